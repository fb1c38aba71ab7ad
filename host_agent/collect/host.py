"""Figures of tenant 0: the whole host, through psutil and the kernel's pressure files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from host_agent.collect.figures import Absent, Counter, Gauge, Reading
from host_agent.collect.kernel import Roots, pressure_some
from host_agent.collect.network import named_interfaces

__all__ = ["read_host"]


def read_host(roots: Roots, interfaces: Sequence[str], time: float, boot_time: float) -> Reading:
    """One reading of the host. psutil takes the place of /proc from its own `PROCFS_PATH`."""
    psutil.PROCFS_PATH = str(roots.proc)
    disk_bytes, disk_operations = _disks(roots)
    counters: dict[str, Counter | Absent] = {
        "cpu_seconds": _cpu(roots),
        "cpu_stall_seconds": _pressure(roots, "cpu"),
        "cpu_wait_seconds": Absent("run-queue wait is kept by process"),
        "memory_stall_seconds": _pressure(roots, "memory"),
        "network_bytes": named_interfaces(roots, interfaces) if interfaces else _network(roots),
        "disk_bytes": disk_bytes,
        "disk_operations": disk_operations,
    }
    memory, total = _memory(roots)
    gauges: dict[str, Gauge | Absent] = {
        "memory_bytes": memory, "memory_limit_bytes": total,
        "cpu_limit": Gauge(float(os.cpu_count() or 1), "CPUs of the host"),
    }
    return Reading(time, boot_time, counters, gauges)


def _ask(path: Path, question: Callable[[], Any]) -> Any | Absent:
    """psutil's answer; what it raises when the file below it is missing or odd becomes the reason."""
    try:
        return question()
    except (OSError, psutil.Error, ValueError, NotImplementedError, RuntimeError, KeyError) as error:
        return Absent(f"{path}: {error}")


def _cpu(roots: Roots) -> Counter | Absent:
    times = _ask(roots.proc / "stat", psutil.cpu_times)
    if isinstance(times, Absent):
        return times
    # guest time is already in user time; waiting for a disk is not work
    busy = times.user + times.nice + times.system + times.irq + times.softirq + getattr(times, "steal", 0.0)
    return Counter({"host": busy}, "/proc/stat")


def _memory(roots: Roots) -> tuple[Gauge | Absent, Gauge | Absent]:
    memory = _ask(roots.proc / "meminfo", psutil.virtual_memory)
    if isinstance(memory, Absent):
        return memory, memory
    return (Gauge(float(memory.total - memory.available), "MemTotal - MemAvailable"),
            Gauge(float(memory.total), "MemTotal"))


def _network(roots: Roots) -> Counter | Absent:
    """Interfaces with hardware behind them: bridges, taps and veths carry the same bytes a second time."""
    counts = _ask(roots.proc / "net" / "dev", lambda: psutil.net_io_counters(pernic=True, nowrap=False))
    if isinstance(counts, Absent):
        return counts
    real = {name: float(count.bytes_recv + count.bytes_sent) for name, count in counts.items()
            if (roots.sys / "class" / "net" / name / "device").exists()}
    if not real:
        return Absent("no network interface with hardware; name some: [agent.tenants.0] interfaces = [...]")
    return Counter(real, "/proc/net/dev " + ", ".join(sorted(real)))


def _disks(roots: Roots) -> tuple[Counter | Absent, Counter | Absent]:
    """Whole disks with hardware behind them: partitions, loops and mapped devices would count twice."""
    counts = _ask(roots.proc / "diskstats", lambda: psutil.disk_io_counters(perdisk=True, nowrap=False))
    if isinstance(counts, Absent):
        return counts, counts
    real = {name: count for name, count in counts.items()
            if (roots.sys / "block" / name / "device").exists()}
    if not real:
        none = Absent(f"no disk with hardware below {roots.sys}/block")
        return none, none
    source = "/proc/diskstats " + ", ".join(sorted(real))
    return (Counter({name: float(count.read_bytes + count.write_bytes) for name, count in real.items()}, source),
            Counter({name: float(count.read_count + count.write_count) for name, count in real.items()}, source))


def _pressure(roots: Roots, resource: str) -> Counter | Absent:
    path = roots.proc / "pressure" / resource
    seconds = pressure_some(path)
    return seconds if isinstance(seconds, Absent) else Counter({"host": seconds}, f"pressure, {path}")
