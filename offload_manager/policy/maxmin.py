"""`maxmin`: weighted max-min over bandwidth, pages and engine time (dominant resource fairness).

Progressive filling: every tenant's fraction of its forecast demand grows at the rate that keeps dominant shares
in proportion to priorities, until its demand is met or a resource that it needs is spent. What nobody wants is
spread by priority, so an idle tenant returns its share but is never shut out.
"""

from __future__ import annotations

from collections.abc import Sequence

from offload_manager.policy.base import Proposal, WindowView
from offload_manager.policy.host_shift import HostShift
from offload_manager.policy.score import score
from offload_manager.profile import build_table

_EPSILON = 1e-9


def dominant_fill(demands: Sequence[Sequence[float]], priorities: Sequence[float]) -> list[float]:
    """Fraction of each tenant's demand that is granted, 0..1.

    demands: for each tenant its part of the capacity of every resource (1.0 is all of it).
    """
    n = len(demands)
    granted = [0.0] * n
    resources = range(len(demands[0])) if n else range(0)
    left = [1.0 for _ in resources]
    dominant = [max(d) for d in demands]
    active = {t for t in range(n) if dominant[t] > _EPSILON and priorities[t] > 0}
    while active:
        # Fraction gained for each unit of dominant share a priority.
        pace = {t: priorities[t] / dominant[t] for t in active}
        step = min((1.0 - granted[t]) / pace[t] for t in active)
        for r in resources:
            use = sum(pace[t] * demands[t][r] for t in active)
            if use > _EPSILON:
                step = min(step, left[r] / use)
        for t in active:
            granted[t] += step * pace[t]
            for r in resources:
                left[r] -= step * pace[t] * demands[t][r]
        spent = {r for r in resources if left[r] <= _EPSILON}
        active = {
            t for t in active
            if granted[t] < 1.0 - _EPSILON and not any(demands[t][r] > _EPSILON for r in spent)
        }
    return [min(1.0, g) for g in granted]


class MaxMin:
    """Weighted max-min from the forecast.

    idle_weight: percent of the weights' capacity that every admitted tenant keeps however idle it is.
    page_part: part of the pages that is divided as quotas; the rest is the pool shared by all.
    """

    name = "maxmin"

    def __init__(self, idle_weight: float = 1.0, page_part: float = 0.5,
                 host_shift: HostShift | None = None) -> None:
        if not 0 < idle_weight <= 100 / 64:
            raise ValueError(f"idle_weight must be in (0, {100 / 64}], not {idle_weight!r}")
        if not 0 <= page_part <= 1:
            raise ValueError(f"page_part must be in 0..1, not {page_part!r}")
        self._idle_weight = idle_weight
        self._page_part = page_part
        self._host_shift = host_shift or HostShift()

    def evaluate(self, view: WindowView) -> Proposal:
        """The table that serves the forecast max-min fairly."""
        limits = view.limits
        bandwidth = view.window.cycles * limits.beat_bytes
        engine = view.window.cycles * limits.slots
        demands = [
            (d.bytes / bandwidth, min(1.0, d.pages / limits.pages), d.engine_cycles / engine)
            for d in view.forecast
        ]
        priorities = [p.priority if p.admitted else 0.0 for p in view.profiles]
        granted = dominant_fill(demands, priorities)
        served = [g * max(d[0], d[2]) for g, d in zip(granted, demands, strict=True)]
        # Shares may add to more than one (engine and bandwidth are different capacities); the rest, if any, is
        # spread among those who want something.
        spare = max(0.0, 1.0 - sum(served))
        wanting = sum(p for p, s in zip(priorities, served, strict=True) if s > 0)
        shares = [
            s + (spare * p / wanting if s > 0 and wanting else 0.0)
            for p, s in zip(priorities, served, strict=True)
        ]
        if not any(shares):
            shares = list(priorities)
        page_shares = [g * d[1] for g, d in zip(granted, demands, strict=True)]
        table = build_table(
            view.profiles, limits, shares, page_shares, pool=int(limits.pages * (1 - self._page_part)),
            weight_floor=int(limits.weight_capacity * self._idle_weight / 100),
            epoch=view.allocation.epoch, host_shares=self._host_shift.shares(view))
        met = sum(1 for g, d in zip(granted, demands, strict=True) if max(d) > _EPSILON and g > 1 - 1e-6)
        wanted = sum(1 for d in demands if max(d) > _EPSILON)
        return Proposal(table, f"max-min over the forecast meets {met} of {wanted} tenants in full",
                        score(view, table), self.name)
