"""Figures of a tenant that is a set of processes: ids, a name, or a virtual machine's QEMU.

A process is known by its id *and* start time, so that a reused id is not taken for the old process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from host_agent.collect.figures import Absent, Counter, Gauge, Reading
from host_agent.collect.kernel import Roots, clock_ticks, key_values, text
from host_agent.collect.network import tenant_network
from morphnic.settings import TenantSettings

__all__ = ["alive", "find_by_name", "find_vm", "read_processes", "run_queue_wait"]

PAGE = os.sysconf("SC_PAGE_SIZE")


def all_pids(roots: Roots) -> list[int]:
    """Ids of all processes."""
    return sorted(int(entry.name) for entry in roots.proc.iterdir() if entry.name.isdigit())


def find_by_name(roots: Roots, name: str) -> list[int]:
    """Processes whose executable or command name is `name` (the kernel keeps 15 characters of the latter)."""
    return [pid for pid in all_pids(roots) if name in _names(roots, pid)]


def _names(roots: Roots, pid: int) -> set[str]:
    command = text(roots.proc / str(pid) / "comm")
    names = set() if isinstance(command, Absent) else {command.strip()}
    arguments = _arguments(roots, pid)
    return names | ({Path(arguments[0]).name} if arguments and arguments[0] else set())


def find_vm(roots: Roots, wanted: str) -> list[int]:
    """QEMU processes that run the guest with this name or UUID (`-name`, `-uuid`)."""
    found = []
    for pid in all_pids(roots):
        arguments = _arguments(roots, pid)
        if not arguments or not Path(arguments[0]).name.startswith(("qemu-system-", "qemu-kvm", "kvm")):
            continue
        if wanted in _guest_names(arguments):
            found.append(pid)
    return found


def _guest_names(arguments: Sequence[str]) -> set[str]:
    names = set()
    for option, value in pairwise(arguments):
        if option.lstrip("-") == "uuid":
            names.add(value)
        if option.lstrip("-") == "name":
            names |= {part.removeprefix("guest=") for part in value.split(",")
                      if "=" not in part or part.startswith("guest=")}
    return names


def _arguments(roots: Roots, pid: int) -> list[str]:
    line = text(roots.proc / str(pid) / "cmdline")
    return [] if isinstance(line, Absent) else line.rstrip("\0").split("\0")


def members(roots: Roots, settings: TenantSettings) -> list[int] | Absent:
    """Process ids of a tenant that is given by processes."""
    if settings.pids:
        alive = [pid for pid in settings.pids if (roots.proc / str(pid)).is_dir()]
        listed = ", ".join(str(pid) for pid in settings.pids)
        return alive or Absent(f"no process with the id {listed} runs")
    if settings.process is not None:
        return find_by_name(roots, settings.process) or Absent(f"no process named '{settings.process}' runs")
    assert settings.vm is not None
    return find_vm(roots, settings.vm) or Absent(f"no QEMU runs the guest '{settings.vm}'")


def read_processes(
    roots: Roots, tenant: int, settings: TenantSettings, time: float, boot_time: float
) -> Reading:
    """One reading of a set of processes."""
    pids = members(roots, settings)
    if isinstance(pids, Absent):
        return Reading.absent(time, boot_time, pids.reason)
    starts = {pid: start for pid in pids if (start := _start(roots, pid)) is not None}
    pids = sorted(starts)

    def counter(source: str, read: Callable[[int], float | Absent]) -> Counter | Absent:
        return _counter(roots, starts, source, read)

    counters: dict[str, Counter | Absent] = {
        "cpu_seconds": counter("/proc/PID/stat", lambda pid: _cpu_seconds(roots, pid)),
        "cpu_stall_seconds": Absent("the kernel keeps pressure of cgroups, not of processes"),
        "cpu_wait_seconds": counter("/proc/PID/task/*/schedstat", lambda pid: run_queue_wait(roots, pid)),
        "memory_stall_seconds": Absent("the kernel keeps pressure of cgroups, not of processes"),
        "network_bytes": tenant_network(roots, tenant, settings.interfaces, pids),
        "disk_bytes": counter("/proc/PID/io", lambda pid: _disk_bytes(roots, pid)),
        "disk_operations": Absent("the kernel counts disk operations by cgroup and disk, not by process"),
    }
    total = host_memory(roots)
    gauges: dict[str, Gauge | Absent] = {
        "memory_bytes": _resident(roots, pids),
        "memory_limit_bytes": Gauge(total, "MemTotal") if not isinstance(total, Absent) else total,
        "cpu_limit": Gauge(float(os.cpu_count() or 1), "CPUs of the host"),
    }
    return Reading(time, boot_time, counters, gauges, processes=len(pids))


def _counter(
    roots: Roots, starts: dict[int, float], source: str, read: Callable[[int], float | Absent]
) -> Counter | Absent:
    """The counter over all processes; absent when there is one that we may not read (others only ended)."""
    values: dict[str, float] = {}
    born: dict[str, float] = {}
    for pid, start in starts.items():
        value = read(pid)
        if isinstance(value, Absent):
            if not alive(roots, pid):
                continue  # it ended while we looked
            return value
        values[f"process {pid}/{start:.2f}"] = value
        born[f"process {pid}/{start:.2f}"] = start
    return Counter(values, source, born)


def alive(roots: Roots, pid: int) -> bool:
    """Whether the process is still there: a file of one that ended is missing for a good reason."""
    return (roots.proc / str(pid) / "stat").exists()


def _stat(roots: Roots, pid: int) -> list[str] | Absent:
    """Fields of /proc/PID/stat from the state on: the name before may hold blanks and brackets."""
    content = text(roots.proc / str(pid) / "stat")
    if isinstance(content, Absent):
        return content
    fields = content.rpartition(")")[2].split()
    return fields if len(fields) >= 20 else Absent(f"{roots.proc}/{pid}/stat is too short")


def _start(roots: Roots, pid: int) -> float | None:
    """Start in seconds since boot; None when the process has ended."""
    fields = _stat(roots, pid)
    return None if isinstance(fields, Absent) else int(fields[19]) / clock_ticks()


def _cpu_seconds(roots: Roots, pid: int) -> float | Absent:
    fields = _stat(roots, pid)
    return fields if isinstance(fields, Absent) else (int(fields[11]) + int(fields[12])) / clock_ticks()


def run_queue_wait(roots: Roots, pid: int) -> float | Absent:
    """Seconds that the threads of a process were ready and waited for a core."""
    folder = roots.proc / str(pid) / "task"
    try:
        threads = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        return Absent(f"{folder}: {error.strerror}")
    total = 0.0
    for thread in threads:
        content = text(folder / thread / "schedstat")
        if isinstance(content, Absent):
            if (folder / thread).exists():
                return Absent(f"{content.reason} (a kernel without schedstat)")
            continue
        columns = content.split()
        if len(columns) < 2:
            return Absent(f"{folder / thread / 'schedstat'}: too short")
        total += int(columns[1]) / 1e9
    return total


def _disk_bytes(roots: Roots, pid: int) -> float | Absent:
    path = roots.proc / str(pid) / "io"
    counts = key_values(path)
    if isinstance(counts, Absent):
        return counts
    if not {"read_bytes", "write_bytes"} <= counts.keys():
        return Absent(f"{path}: no read_bytes and write_bytes")
    return float(counts["read_bytes"] + counts["write_bytes"])


def _resident(roots: Roots, pids: Sequence[int]) -> Gauge | Absent:
    """Resident memory. Pages shared between the processes are counted in each of them."""
    total = 0
    for pid in pids:
        content = text(roots.proc / str(pid) / "statm")
        columns = [] if isinstance(content, Absent) else content.split()
        if len(columns) < 2 and alive(roots, pid):
            return content if isinstance(content, Absent) else Absent(f"{roots.proc}/{pid}/statm: too short")
        total += int(columns[1]) * PAGE if len(columns) > 1 else 0
    return Gauge(float(total), "resident, /proc/PID/statm")


def host_memory(roots: Roots) -> int | Absent:
    """Bytes of memory of the host."""
    path = roots.proc / "meminfo"
    values = key_values(path)
    if isinstance(values, Absent):
        return values
    return values["MemTotal"] * 1024 if "MemTotal" in values else Absent(f"{path}: no MemTotal")
