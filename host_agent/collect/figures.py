"""Readings, and the figures that two readings give.

A `Reading` holds what the kernel said at one instant: counters that only rise, and gauges. `rates` turns two
readings into figures. Every value that could not be read is an `Absent` with its reason, and stays one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["FIGURES", "Absent", "Counter", "Figure", "Gauge", "Reading", "rates"]


@dataclass(frozen=True)
class Absent:
    """A value that could not be read, and why."""

    reason: str


@dataclass(frozen=True)
class Gauge:
    """A level, and the file or rule that it comes from."""

    value: float
    source: str


@dataclass(frozen=True)
class Counter:
    """A count that only rises, of each instance: a process, a disk, an interface, or the one cgroup.

    Instances come and go between readings; the difference is taken instance by instance. `born` names those that
    did not exist before a given instant, in seconds since boot: all of their count belongs to them.
    """

    values: Mapping[str, float]
    source: str
    born: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """All that was read of one tenant at one instant. `time` is monotonic, `boot_time` counts suspends too."""

    time: float
    boot_time: float
    counters: Mapping[str, Counter | Absent]
    gauges: Mapping[str, Gauge | Absent]
    processes: int | None = None

    @classmethod
    def absent(cls, time: float, boot_time: float, reason: str) -> Reading:
        """A reading of a tenant that is not there: every figure is absent for `reason`."""
        gone = Absent(reason)
        return cls(time, boot_time, dict.fromkeys(COUNTERS, gone), dict.fromkeys(GAUGES, gone), processes=0)


@dataclass(frozen=True)
class Figure:
    """One figure of one tenant: a value with its source, or None with the reason."""

    value: float | None
    source: str = ""
    reason: str = ""


COUNTERS = ("cpu_seconds", "cpu_stall_seconds", "cpu_wait_seconds", "memory_stall_seconds", "network_bytes",
            "disk_bytes", "disk_operations")
GAUGES = ("memory_bytes", "memory_limit_bytes", "cpu_limit")
#: Figure -> unit for people.
FIGURES = {
    "cpu_percent": "% of a core", "cpu_pressure": "0..1", "memory_bytes": "bytes", "memory_pressure": "0..1",
    "network_bytes_per_second": "bytes/s", "disk_bytes_per_second": "bytes/s", "disk_iops": "1/s",
}


def rates(before: Reading, after: Reading) -> dict[str, Figure]:
    """Figures of the interval between two readings of the same tenant."""
    seconds = after.time - before.time
    if seconds <= 0:
        raise ValueError(f"after must be later than before, not {seconds!r} s")

    def rate(counter: str, scale: float = 1.0) -> Figure:
        return _rate(before, after, counter, scale / seconds)

    return {
        "cpu_percent": rate("cpu_seconds", 100.0),
        "cpu_pressure": _first(
            lambda: _fraction(rate("cpu_stall_seconds")),
            lambda: _fraction(rate("cpu_wait_seconds")),
            lambda: _ratio(rate("cpu_seconds"), after.gauges["cpu_limit"], "estimated: use / CPUs allowed"),
        ),
        "memory_bytes": _gauge(after.gauges["memory_bytes"]),
        "memory_pressure": _first(
            lambda: _fraction(rate("memory_stall_seconds")),
            lambda: _ratio(_gauge(after.gauges["memory_bytes"]), after.gauges["memory_limit_bytes"],
                           "estimated: use / limit"),
        ),
        "network_bytes_per_second": rate("network_bytes"),
        "disk_bytes_per_second": rate("disk_bytes"),
        "disk_iops": rate("disk_operations"),
    }


def _rate(before: Reading, after: Reading, name: str, scale: float) -> Figure:
    first, second = before.counters[name], after.counters[name]
    if isinstance(second, Absent):
        return Figure(None, reason=second.reason)
    if isinstance(first, Absent):
        return Figure(None, reason=f"first reading of it; before: {first.reason}")
    total = 0.0
    for instance, value in second.values.items():
        if instance in first.values:
            if value < first.values[instance]:
                return Figure(None, reason=f"the counter of {instance} fell: it was started anew")
            total += value - first.values[instance]
        elif second.born.get(instance, -1.0) >= before.boot_time:
            total += value
        # else: an old instance that is new to this tenant; what it did before is not this interval's
    return Figure(total * scale, source=second.source)


def _gauge(gauge: Gauge | Absent) -> Figure:
    if isinstance(gauge, Absent):
        return Figure(None, reason=gauge.reason)
    return Figure(gauge.value, source=gauge.source)


def _fraction(figure: Figure) -> Figure:
    """A share of time; the kernel's two clocks may make it a little more than one."""
    if figure.value is None:
        return figure
    return Figure(min(1.0, figure.value), source=figure.source)


def _ratio(figure: Figure, limit: Gauge | Absent, rule: str) -> Figure:
    if figure.value is None:
        return figure
    if isinstance(limit, Absent):
        return Figure(None, reason=limit.reason)
    if limit.value <= 0:
        return Figure(None, reason=f"{limit.source} is {limit.value:g}")
    return Figure(min(1.0, figure.value / limit.value), source=f"{rule} ({limit.source})")


def _first(*ways: Callable[[], Figure]) -> Figure:
    """The first way that gives a value; when none does, the reasons of all."""
    reasons = []
    for way in ways:
        figure = way()
        if figure.value is not None:
            return figure
        if figure.reason not in reasons:
            reasons.append(figure.reason)
    return Figure(None, reason="; ".join(reasons))
