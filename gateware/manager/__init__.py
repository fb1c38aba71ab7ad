"""The resource manager: owns the allocation, checks a new one, commits it in one cycle, rolls it back."""
