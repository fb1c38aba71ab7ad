"""What a check finds, and running a tool to see whether it starts."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Literal

TOOL_TIMEOUT_S = 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `state`: "ok", "warning" (works without it) or "missing"."""

    check: str
    state: Literal["ok", "warning", "missing"]
    detail: str
    remedy: str = ""


def first_line_of(
    check: str, command: list[str], remedy: str, variables: dict[str, str] | None = None
) -> Finding:
    """Run a tool for its version: a file that is there but does not start is of no use."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S,
                              env=os.environ | (variables or {}), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(check, "missing", f"{command[0]} does not start: {error}", remedy)
    if done.returncode != 0:
        fault = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        return Finding(check, "missing", f"{command[0]} fails: {fault[0]}", remedy)
    return Finding(check, "ok", (done.stdout.strip().splitlines() or [command[0]])[0])
