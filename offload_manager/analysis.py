"""What a window says: which resource limits which tenant, how it accesses, how full and how fair the device is.

Pure functions of one window (and, for backlog, the one before), the table in force and the tenants' profiles.
Every threshold is a named constant with its reason; the analyzer's own flags use the same ones where both exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from offload_manager.allocation import FULL_RATE, PAGE_BEATS, Allocation, Limits
from offload_manager.api import Bottleneck
from offload_manager.forecast import Demand
from offload_manager.profile import Profile
from offload_manager.window import Window, WindowRow

#: Part of a window in back-pressure from which a tenant counts as held up (the analyzer's flag uses the same).
HELD_UP = 1 / 8
#: Part of the packets over the objective from which latency is a bottleneck (the analyzer's flag: 1/16).
MISSING = 1 / 16
#: A resource used more than this is the limit; below it, something else is.
SATURATED = 0.85
#: Host pressure (0..1) from which the host is the bottleneck.
HOST_PRESSED = 0.8
#: Sequential part of the requests: above the first sequential, below the second random, between them mixed.
SEQUENTIAL, RANDOM = 0.6, 0.4

Pattern = Literal["idle", "sequential", "random", "mixed"]


@dataclass(frozen=True, slots=True)
class Analysis:
    """The meaning of one window."""

    utilisation: float
    engine_utilisation: float
    jain: float | None
    patterns: tuple[Pattern, ...]
    demands: tuple[Demand, ...]
    bottlenecks: tuple[Bottleneck, ...]

    def limits_of(self, tenant: int) -> frozenset[str]:
        """Names of the resources that limit this tenant."""
        return frozenset(b.resource for b in self.bottlenecks if b.tenant == tenant)


def weighted_jain(served: Sequence[float], weights: Sequence[float]) -> float | None:
    """Jain's index over service per weight: 1 is proportional, 1/n is one tenant taking all. None for n < 2."""
    ratios = [s / w for s, w in zip(served, weights, strict=True) if w > 0]
    squares = sum(r * r for r in ratios)
    if len(ratios) < 2:
        return None
    return sum(ratios) ** 2 / (len(ratios) * squares) if squares else 1.0


def access_pattern(row: WindowRow) -> Pattern:
    """How the tenant's requests of this window follow each other."""
    if row.requests == 0:
        return "idle"
    part = row.sequential / row.requests
    if part > SEQUENTIAL:
        return "sequential"
    return "random" if part < RANDOM else "mixed"


def pages_wanted(row: WindowRow, limits: Limits) -> float:
    """Pages that the deepest queue of the window needed (mean packet size; store and forward)."""
    if row.packets_in == 0:
        return 0.0
    page_bytes = PAGE_BEATS * limits.beat_bytes
    per_packet = max(1, -(-row.bytes_in // row.packets_in // page_bytes))
    return float(row.queue_depth_max * per_packet)


def demand_of(row: WindowRow, limits: Limits, cycles: int) -> Demand:
    """What the tenant would have used without the others.

    A tenant in back-pressure for part of the window wanted at least what it got in the part when it was not: its
    demand is the bytes admitted over the free part, at most four times as much (a tenant stalled throughout says
    only that it wants more).
    """
    free = max(0.25, 1 - row.backpressure_cycles / cycles) if cycles else 1.0
    return Demand(bytes=row.bytes_in / free, engine_cycles=row.engine_cycles / free,
                  pages=pages_wanted(row, limits))


def analyse(
    window: Window, previous: Window | None, allocation: Allocation, profiles: Sequence[Profile],
    limits: Limits,
) -> Analysis:
    """Everything that policies and people want to know about one window."""
    cycles = max(1, window.cycles)
    capacity = cycles * limits.beat_bytes * limits.ports
    utilisation = min(1.0, sum(row.bytes_out for row in window.rows) / capacity)
    engine = min(1.0, sum(row.engine_cycles for row in window.rows) / (cycles * limits.slots))
    backlogged = [
        t for t, row in enumerate(window.rows)
        if row.depth and previous is not None and previous.rows[t].depth
        and row.backpressure_cycles > HELD_UP * cycles
    ]
    jain = weighted_jain([window.rows[t].bytes_out for t in backlogged],
                         [allocation.rows[t].weight for t in backlogged])
    bottlenecks = [
        found for tenant in range(len(window.rows))
        for found in _bottlenecks(tenant, window, allocation, profiles[tenant], limits, engine)
    ]
    return Analysis(
        utilisation=utilisation, engine_utilisation=engine, jain=jain,
        patterns=tuple(access_pattern(row) for row in window.rows),
        demands=tuple(demand_of(row, limits, cycles) for row in window.rows),
        bottlenecks=tuple(bottlenecks),
    )


def _bottlenecks(
    tenant: int, window: Window, allocation: Allocation, profile: Profile, limits: Limits, engine: float,
) -> list[Bottleneck]:
    """Bottlenecks of one tenant: what holds it up, what its latency says, what its host says."""
    row, granted, cycles = window.rows[tenant], allocation.rows[tenant], max(1, window.cycles)
    found: list[Bottleneck] = []

    def add(resource: str, severity: float, reason: str) -> None:
        found.append(Bottleneck.model_validate({
            "tenant": tenant, "resource": resource, "severity": min(1.0, severity), "reason": reason}))

    held = row.backpressure_cycles / cycles
    if row.drops:
        part = row.drops / (row.drops + row.packets_in)
        add("pages", part, f"{row.drops} packets dropped at ingress ({part:.1%})")
    if held > HELD_UP:
        _explain_back_pressure(add, held, row, granted.rate, granted.pages, limits, cycles, engine)
    if profile.slo_cycles and row.packets_out and row.slo_misses > MISSING * row.packets_out:
        part = row.slo_misses / row.packets_out
        add("latency", part, f"{part:.1%} of {row.packets_out} packets over {profile.slo_cycles} cycles")
    for resource, value in (("host_cpu", row.host_cpu), ("host_memory", row.host_memory)):
        if value > HOST_PRESSED * 255:
            add(resource, value / 255, f"the host agent reports a pressure of {value / 255:.0%}")
    return found


def _explain_back_pressure(
    add: Callable[[str, float, str], None], held: float, row: WindowRow, rate: int, pages: int,
    limits: Limits, cycles: int, engine: float,
) -> None:
    """One resource for a tenant that is held up: the narrowest that the figures show."""
    allowed = cycles * limits.beat_bytes * rate / FULL_RATE
    part = f"held up in {held:.0%} of the window"
    if rate < FULL_RATE and row.bytes_out > SATURATED * allowed:
        add("rate", held, f"{part}, and its shaper is used to {row.bytes_out / allowed:.0%}")
    elif engine > SATURATED and row.engine_cycles:
        add("engine", held, f"{part}, and the engines are busy to {engine:.0%}")
    elif pages and pages_wanted(row, limits) >= pages and engine < SATURATED and row.bytes_out < 0.5 * allowed:
        add("pages", held, f"{part}, with {pages_wanted(row, limits):.0f} pages wanted of {pages} of its own")
    else:
        add("bandwidth", held, part)
