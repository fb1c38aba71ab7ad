"""The one score by which proposals of different policies are compared. Between 0 and 1; higher is better.

score = latency_emphasis * headroom + (1 - latency_emphasis) * satisfied - change_cost * moved

headroom: mean over latency tenants with demand of min(1, rate / burst): `rate` is the bandwidth that the table
    guarantees against any adversary (its weight over all weights of tenants that want something), `burst` the
    bandwidth that the tenant's forecast would take if it came in its worst sixteenth of the window.
satisfied: the part of the batch tenants' forecast demand that a work-conserving scheduler with these weights
    would serve beside the latency tenants' demand.
moved: half the sum of the absolute differences of weight shares from the table in force (0 to 1).

It predicts; what a table really did is measured by the loop, which rolls back when guarded figures got worse.
"""

from __future__ import annotations

from collections.abc import Sequence

from offload_manager.allocation import Allocation
from offload_manager.policy.base import WindowView
from offload_manager.window import BURST_PARTS, burst_bytes

LATENCY_EMPHASIS = 0.6
CHANGE_COST = 0.01


def serve(demands: Sequence[float], weights: Sequence[float], capacity: float) -> list[float]:
    """Service of each under weighted max-min: nobody gets more than it wants, the rest is shared by weight."""
    served = [0.0] * len(demands)
    waiting = {i for i, d in enumerate(demands) if d > 0 and weights[i] > 0}
    left = capacity
    while waiting and left > 0:
        total = sum(weights[i] for i in waiting)
        content = {i for i in waiting if demands[i] * total <= left * weights[i]}
        if not content:
            for i in waiting:
                served[i] = left * weights[i] / total
            break
        for i in content:
            served[i] = demands[i]
        left -= sum(demands[i] for i in content)
        waiting -= content
    return served


def score(view: WindowView, allocation: Allocation) -> float:
    """Score of `allocation` for the next window of `view`."""
    capacity = float(view.window.cycles * view.limits.beat_bytes)
    wanted = [demand.bytes for demand in view.forecast]
    weights = [float(row.weight) for row in allocation.rows]
    competing = sum(weight for weight, want in zip(weights, wanted, strict=True) if want > 0)
    latency, batch = _split(view)
    headrooms = []
    for t in latency:
        burst = max(wanted[t], min(capacity, float(burst_bytes(view.window.rows[t]) * BURST_PARTS)))
        if burst > 0 and competing > 0:
            headrooms.append(min(1.0, capacity * weights[t] / competing / burst))
    headroom = sum(headrooms) / len(headrooms) if headrooms else 1.0
    served = serve(wanted, weights, capacity)
    batch_wanted = sum(min(wanted[t], capacity) for t in batch)
    satisfied = sum(served[t] for t in batch) / batch_wanted if batch_wanted > 0 else 1.0
    moved = sum(abs(a - b) for a, b in zip(allocation.shares(), view.allocation.shares(), strict=True)) / 2
    return (LATENCY_EMPHASIS * headroom + (1 - LATENCY_EMPHASIS) * min(1.0, satisfied)
            - CHANGE_COST * moved)


def _split(view: WindowView) -> tuple[list[int], list[int]]:
    """Tenants of the latency class, and the others."""
    latency = [t for t, profile in enumerate(view.profiles) if profile.is_latency]
    return latency, [t for t, profile in enumerate(view.profiles) if not profile.is_latency]
