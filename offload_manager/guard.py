"""Did a committed table make a guarded figure worse? Pure figures of windows before and after it.

A figure is held against a table only where the table can be its cause: a latency tenant's misses when the table took
bandwidth, pages or engine work from that tenant; a batch class that gets less when it is held up and what it lost
went to nobody. Load that grew meanwhile excuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offload_manager.allocation import Allocation
from offload_manager.policy_spec import GuardSpec
from offload_manager.profile import Profile
from offload_manager.window import Window

#: A share that fell by less than this part was not taken away; it was rounded or spread.
TAKEN = 0.02


@dataclass(frozen=True, slots=True)
class Figures:
    """Guarded figures over some windows: a rate is bytes a cycle."""

    offered: float
    latency_rate: float
    batch_rate: float
    batch_held: float
    miss_ratio: float

    @property
    def empty(self) -> bool:
        """Whether nothing was offered: then nothing can be compared."""
        return self.offered == 0


def measure(windows: Sequence[Window], profiles: Sequence[Profile], accused: Sequence[int]) -> Figures:
    """Figures over `windows`; misses are those of the `accused` tenants."""
    cycles = max(1, sum(window.cycles for window in windows))
    latency = [t for t, p in enumerate(profiles) if p.is_latency]
    batch = [t for t, p in enumerate(profiles) if not p.is_latency]

    def total(name: str, tenants: Sequence[int]) -> int:
        return sum(getattr(window.rows[t], name) for window in windows for t in tenants)

    packets = total("packets_out", accused)
    held = max((total("backpressure_cycles", [t]) / cycles for t in batch), default=0.0)
    return Figures(
        offered=total("bytes_in", range(len(profiles))) / cycles,
        latency_rate=total("bytes_out", latency) / cycles,
        batch_rate=total("bytes_out", batch) / cycles,
        batch_held=held,
        miss_ratio=total("slo_misses", accused) / packets if packets else 0.0,
    )


def accused_tenants(before: Allocation, after: Allocation, profiles: Sequence[Profile]) -> list[int]:
    """Latency tenants from whom the table took something."""
    found = []
    had, has = before.shares(), after.shares()
    for t, profile in enumerate(profiles):
        old, new = before.rows[t], after.rows[t]
        took = (
            has[t] < had[t] * (1 - TAKEN) or new.pages < old.pages or new.rate < old.rate
            or new.host_share > old.host_share or old.ports & ~new.ports or old.slots & ~new.slots
        )
        if profile.is_latency and took:
            found.append(t)
    return found


def verdict(before: Figures, after: Figures, spec: GuardSpec) -> str | None:
    """Why the table must go, or None."""
    if before.empty or after.offered > before.offered * (1 + spec.demand_grew):
        return None
    if after.miss_ratio > before.miss_ratio + spec.miss_ratio_worse:
        return (f"misses of the latency class rose from {before.miss_ratio:.1%} to {after.miss_ratio:.1%} "
                "of the packets of tenants that had to give")
    lost = before.batch_rate - after.batch_rate
    taken = max(0.0, after.latency_rate - before.latency_rate)
    if lost > spec.batch_worse * before.batch_rate and after.batch_held > before.batch_held and taken < lost / 2:
        return (f"the batch class fell from {before.batch_rate:.3f} to {after.batch_rate:.3f} bytes a cycle, is held "
                f"up in {after.batch_held:.0%} of the time, and nobody got the rest")
    return None
