"""Reading the kernel's text files: each function returns the value or an `Absent` that names file and fault."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from host_agent.collect.figures import Absent

__all__ = ["Roots", "boot_time", "key_values", "net_dev", "number", "pressure_some", "text"]


@dataclass(frozen=True)
class Roots:
    """Where the kernel's file systems are; tests point them at trees of their own."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


def boot_time() -> float:
    """Seconds since boot on the clock that process start times use."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def clock_ticks() -> int:
    """Ticks a second of /proc/PID/stat."""
    return int(os.sysconf("SC_CLK_TCK"))


def text(path: Path) -> str | Absent:
    """Contents of a file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return Absent(f"{path}: {error.strerror or error}")


def number(path: Path) -> int | Absent:
    """A file that holds one number; `max` is no limit and so no number."""
    content = text(path)
    if isinstance(content, Absent):
        return content
    try:
        return int(content)
    except ValueError:
        return Absent(f"{path}: {content.strip()[:40]!r} is no number")


def key_values(path: Path) -> dict[str, int] | Absent:
    """A file of `key value` lines, as cpu.stat; lines of another form are left out."""
    content = text(path)
    if isinstance(content, Absent):
        return content
    found = {}
    for line in content.splitlines():
        parts = line.replace(":", " ").split()
        if len(parts) >= 2 and parts[1].isascii() and parts[1].isdigit():
            found[parts[0]] = int(parts[1])
    return found


def pressure_some(path: Path) -> float | Absent:
    """Seconds in which at least one task waited, from a pressure file (`some ... total=MICROSECONDS`)."""
    content = text(path)
    if isinstance(content, Absent):
        return content
    for line in content.splitlines():
        if line.startswith("some ") and "total=" in line:
            microseconds = line.rsplit("total=", 1)[1].strip()
            if microseconds.isascii() and microseconds.isdigit():
                return int(microseconds) / 1e6
    return Absent(f"{path}: no line 'some ... total='")


def net_dev(path: Path) -> dict[str, int] | Absent:
    """Bytes received and sent of every interface in a /proc/.../net/dev."""
    content = text(path)
    if isinstance(content, Absent):
        return content
    found = {}
    for line in content.splitlines():
        name, colon, columns = line.partition(":")
        numbers = columns.split()
        if colon and len(numbers) >= 9 and numbers[0].isdigit() and numbers[8].isdigit():
            found[name.strip()] = int(numbers[0]) + int(numbers[8])
    return found or Absent(f"{path}: no interface in it")
