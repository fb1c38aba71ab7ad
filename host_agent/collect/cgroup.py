"""Figures of a tenant that is a cgroup, in version 1, version 2, or the two mixed, as this host has them.

Each figure is looked for in the v1 hierarchy of its controller first, then in the v2 tree: a controller is in one
of the two, never in both. Files of v1 and v2 that look alike count in different units.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from host_agent.collect.figures import Absent, Counter, Gauge, Reading
from host_agent.collect.kernel import Roots, key_values, number, pressure_some, text
from host_agent.collect.network import tenant_network
from host_agent.collect.process import alive, host_memory, run_queue_wait
from morphnic.settings import TenantSettings

__all__ = ["Mounts", "find_mounts", "read_cgroup"]

#: v1 writes this (rounded to pages) where no limit is set.
UNLIMITED_V1 = 1 << 62


@dataclass(frozen=True)
class Mounts:
    """Mount points: `v1` by controller, `v2` the unified tree."""

    v1: Mapping[str, Path]
    v2: Path | None


def find_mounts(roots: Roots) -> Mounts | Absent:
    """The cgroup file systems of this host."""
    content = text(roots.proc / "self" / "mounts")
    if isinstance(content, Absent):
        return content
    v1: dict[str, Path] = {}
    v2 = None
    for line in content.splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        where = Path(fields[1].replace("\\040", " "))
        if fields[2] == "cgroup2":
            v2 = v2 or where
        elif fields[2] == "cgroup":
            for option in fields[3].split(","):
                v1.setdefault(option, where)
    if not v1 and v2 is None:
        return Absent("no cgroup file system is mounted")
    return Mounts(v1, v2)


class _Folders:
    """The folders of one cgroup in every hierarchy."""

    def __init__(self, mounts: Mounts, path: str) -> None:
        self._mounts = mounts
        self._path = path.strip("/")

    def v1(self, controller: str) -> Path | None:
        mount = self._mounts.v1.get(controller)
        folder = mount / self._path if mount is not None else None
        return folder if folder is not None and folder.is_dir() else None

    def v2(self) -> Path | None:
        folder = self._mounts.v2 / self._path if self._mounts.v2 is not None else None
        return folder if folder is not None and folder.is_dir() else None

    def all(self) -> list[Path]:
        mounts = dict.fromkeys([*self._mounts.v1.values(), *([self._mounts.v2] if self._mounts.v2 else [])])
        return [mount / self._path for mount in mounts if (mount / self._path).is_dir()]

    def missing(self, controller: str) -> Absent:
        return Absent(f"cgroup '{self._path}' has no {controller} controller on this host")


def read_cgroup(
    roots: Roots, tenant: int, settings: TenantSettings, time: float, boot_time: float
) -> Reading:
    """One reading of a cgroup and everything below it."""
    assert settings.cgroup is not None
    mounts = find_mounts(roots)
    if isinstance(mounts, Absent):
        return Reading.absent(time, boot_time, mounts.reason)
    folders = _Folders(mounts, settings.cgroup)
    if not folders.all():
        return Reading.absent(time, boot_time, f"there is no cgroup '{settings.cgroup}' on this host")
    pids = member_pids(folders.all())

    def one(value: float | Absent, source: str) -> Counter | Absent:
        return value if isinstance(value, Absent) else Counter({"cgroup": value}, source)

    disk_bytes, disk_operations = _disk(folders)
    memory, limit = _memory(folders)
    total = host_memory(roots)
    if isinstance(limit, Absent) and not isinstance(total, Absent):
        limit = Gauge(total, "MemTotal: the cgroup has no limit")
    counters: dict[str, Counter | Absent] = {
        "cpu_seconds": _cpu(folders),
        "cpu_stall_seconds": one(_pressure(folders, "cpu.pressure"), "pressure of the cgroup, cpu.pressure"),
        "cpu_wait_seconds": _wait(roots, pids),
        "memory_stall_seconds": one(_pressure(folders, "memory.pressure"),
                                    "pressure of the cgroup, memory.pressure"),
        "network_bytes": tenant_network(roots, tenant, settings.interfaces, pids),
        "disk_bytes": disk_bytes,
        "disk_operations": disk_operations,
    }
    gauges = {"memory_bytes": memory, "memory_limit_bytes": limit, "cpu_limit": _cpu_limit(folders)}
    return Reading(time, boot_time, counters, gauges, processes=len(pids))


def member_pids(folders: Sequence[Path]) -> list[int]:
    """Processes in a cgroup and below it; hierarchies may disagree, so all of them are asked."""
    pids: set[int] = set()
    for folder in folders:
        for procs in folder.rglob("cgroup.procs"):
            content = text(procs)
            if not isinstance(content, Absent):
                pids |= {int(line) for line in content.split() if line != "0"}
    return sorted(pids)


def _cpu(folders: _Folders) -> Counter | Absent:
    old = folders.v1("cpuacct")
    if old is not None:
        nanoseconds = number(old / "cpuacct.usage")
        if isinstance(nanoseconds, Absent):
            return nanoseconds
        return Counter({"cgroup": nanoseconds / 1e9}, "cpuacct.usage")
    new = folders.v2()
    if new is None:
        return folders.missing("CPU")
    values = key_values(new / "cpu.stat")
    if isinstance(values, Absent):
        return values
    if "usage_usec" not in values:
        return Absent(f"{new}/cpu.stat: no usage_usec")
    return Counter({"cgroup": values["usage_usec"] / 1e6}, "cpu.stat")


def _cpu_limit(folders: _Folders) -> Gauge | Absent:
    """CPUs that the cgroup may use: its quota, else all of the host's."""
    cores = float(os.cpu_count() or 1)
    everything = Gauge(cores, "CPUs of the host: the cgroup has no quota")
    old, new = folders.v1("cpu"), folders.v2()
    if old is not None:
        quota, period = number(old / "cpu.cfs_quota_us"), number(old / "cpu.cfs_period_us")
        if isinstance(quota, Absent) or isinstance(period, Absent) or quota <= 0 or period <= 0:
            return everything
        return Gauge(min(cores, quota / period), "cpu.cfs_quota_us")
    content = text(new / "cpu.max") if new is not None else Absent("")
    if isinstance(content, Absent) or content.startswith("max"):
        return everything
    quota_text, period_text = content.split()[:2]
    return Gauge(min(cores, int(quota_text) / int(period_text)), "cpu.max")


def _memory(folders: _Folders) -> tuple[Gauge | Absent, Gauge | Absent]:
    """Memory charged to the cgroup (page cache included) and its limit."""
    old, new = folders.v1("memory"), folders.v2()
    if old is not None:
        folder, use_name, limit_name = old, "memory.usage_in_bytes", "memory.limit_in_bytes"
    elif new is not None:
        folder, use_name, limit_name = new, "memory.current", "memory.max"
    else:
        return folders.missing("memory"), folders.missing("memory")
    use, limit = number(folder / use_name), number(folder / limit_name)
    use_gauge = use if isinstance(use, Absent) else Gauge(float(use), use_name)
    if isinstance(limit, Absent) or limit >= UNLIMITED_V1:
        return use_gauge, Absent(f"{folder / limit_name} sets no limit")
    return use_gauge, Gauge(float(limit), limit_name)


def _disk(folders: _Folders) -> tuple[Counter | Absent, Counter | Absent]:
    """Bytes and operations of every disk."""
    old = folders.v1("blkio")
    if old is not None:
        return (_blkio(old, "blkio.throttle.io_service_bytes"), _blkio(old, "blkio.throttle.io_serviced"))
    new = folders.v2()
    if new is None:
        return folders.missing("disk"), folders.missing("disk")
    content = text(new / "io.stat")
    if isinstance(content, Absent):
        return content, content
    sums: dict[str, dict[str, float]] = {"bytes": {}, "ios": {}}
    for line in content.splitlines():
        disk, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        for unit, found in sums.items():
            found[disk] = float(values.get(f"r{unit}", 0)) + float(values.get(f"w{unit}", 0))
    return Counter(sums["bytes"], "io.stat", dict.fromkeys(sums["bytes"], float("inf"))), Counter(
        sums["ios"], "io.stat", dict.fromkeys(sums["ios"], float("inf")))


def _blkio(folder: Path, name: str) -> Counter | Absent:
    """A v1 file of `MAJOR:MINOR Operation N` lines; the recursive one includes cgroups below."""
    content: str | Absent = Absent("")
    for file in (f"{name}_recursive", name):
        content = text(folder / file)
        if not isinstance(content, Absent):
            break
    if isinstance(content, Absent):
        return content
    values: dict[str, float] = {}
    for line in content.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] in ("Read", "Write"):
            values[fields[0]] = values.get(fields[0], 0.0) + float(fields[2])
    # A disk appears with its first operation, so a new line is all of this interval's.
    return Counter(values, file, dict.fromkeys(values, float("inf")))


def _pressure(folders: _Folders, name: str) -> float | Absent:
    """Pressure files are in the v2 tree, also beside v1 controllers."""
    new = folders.v2()
    if new is None:
        return Absent("pressure is kept in the cgroup v2 tree only, where this cgroup is not")
    return pressure_some(new / name)


def _wait(roots: Roots, pids: Sequence[int]) -> Counter | Absent:
    """Run-queue wait of the members, for hosts without pressure."""
    values: dict[str, float] = {}
    for pid in pids:
        wait = run_queue_wait(roots, pid)
        if isinstance(wait, Absent):
            if not alive(roots, pid):
                continue
            return wait
        values[f"process {pid}"] = wait
    return Counter(values, "/proc/PID/task/*/schedstat of the members")
