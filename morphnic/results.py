"""How results of tests are shown to people: a line each as it ends, and how many ended how."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["counts", "result_line"]

OUTCOMES = ("pass", "warn", "fail", "skip")


def result_line(outcome: str, seconds: float, name: str, message: str) -> str:
    """One test; `message`: why it failed or was skipped, or what is odd; may be empty."""
    return f"{outcome:<5} {seconds:7.3f} s  {name}" + (f": {message}" if message else "")


def counts(outcomes: Sequence[str]) -> str:
    """`9 pass, 0 warn, 1 fail, 1 skip`."""
    return ", ".join(f"{outcomes.count(one)} {one}" for one in OUTCOMES)
