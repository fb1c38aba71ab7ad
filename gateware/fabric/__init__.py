"""The fabric: crosspoint queues, admission by allocation, surplus-round-robin outputs, shapers."""
