"""Named fault points, a test aid: `MORPHNIC_FAULT=point:count` kills this process with SIGKILL there.

The tests of crash consistency start the manager with the variable set and look at what a restart makes of it. The
process ends the `count`-th time that it reaches the point; without the variable a point costs one comparison.

Points: `stage` (rows are being staged), `check` (before the device checks), `commit` (the device committed, the
store does not know yet), `confirm` (the device confirmed, the store does not know yet), `store` (in the middle of
a store transaction).
"""

from __future__ import annotations

import os
import signal

from morphnic.errors import InputError

VARIABLE = "MORPHNIC_FAULT"
POINTS = ("stage", "check", "commit", "confirm", "store")

_armed: tuple[str, int] | None = None
_reached = 0


def arm_from_environment() -> None:
    """Read the variable; called once when the manager starts."""
    global _armed, _reached
    text = os.environ.get(VARIABLE)
    if not text:
        _armed = None
        return
    name, _, count = text.partition(":")
    if name not in POINTS or not count.isdigit() or int(count) < 1:
        raise InputError(f"{VARIABLE} must be POINT:COUNT with a point of {', '.join(POINTS)} and a count of at "
                         f"least 1, not {text!r}")
    _armed, _reached = (name, int(count)), 0


def fault_point(name: str) -> None:
    """Kill this process when the armed point is reached for the armed time."""
    global _reached
    if _armed is None or _armed[0] != name:
        return
    _reached += 1
    if _reached >= _armed[1]:
        os.kill(os.getpid(), signal.SIGKILL)
