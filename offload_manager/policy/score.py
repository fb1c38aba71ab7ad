"""The one score by which proposals of different policies are compared. Between 0 and 1; higher is better.

score = latency_emphasis * headroom + (1 - latency_emphasis) * satisfied - change_cost * moved

headroom: mean over latency tenants with demand of min(1, rate / burst): `burst` is the bandwidth that the tenant's
    forecast would take if it came in its worst sixteenth of the window, `rate` what weighted max-min gives it then
    beside the others' forecasts. (That all others burst at once is not what to prepare for: against that, nothing
    looks better than equal weights.)
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


def rate_beside(tenant: int, demands: Sequence[float], weights: Sequence[float], capacity: float) -> float:
    """What weighted max-min gives to a tenant that takes all it gets, beside the others' demands.

    Where the tenants of some set get what they demand and the rest is divided by weight, the level is never above
    the true one, and with the right set it equals it; the right set is a prefix in order of demand over weight.
    """
    own = weights[tenant]
    others = [(demands[i] / weights[i], demands[i], weights[i])
              for i in range(len(demands)) if i != tenant and demands[i] > 0 and weights[i] > 0]
    left, dividing = capacity, own + sum(weight for _, _, weight in others)
    if own <= 0:
        return 0.0
    level = left / dividing
    for _, demand, weight in sorted(others):
        left -= demand
        dividing -= weight
        level = max(level, left / dividing)
    return own * level


def score(view: WindowView, allocation: Allocation) -> float:
    """Score of `allocation` for the next window of `view`."""
    capacity = _capacity(view)
    wanted = [demand.bytes for demand in view.forecast]
    weights = [float(row.weight) for row in allocation.rows]
    served = serve(wanted, weights, capacity)
    latency, batch = _split(view)
    bursts = {t: max(wanted[t], min(capacity, float(burst_bytes(view.window.rows[t]) * BURST_PARTS))) for t in latency}
    parts = [min(1.0, rate_beside(t, wanted, weights, capacity) / burst) for t, burst in bursts.items() if burst > 0]
    headroom = sum(parts) / len(parts) if parts else 1.0
    batch_wanted = sum(min(wanted[t], capacity) for t in batch)
    satisfied = sum(served[t] for t in batch) / batch_wanted if batch_wanted > 0 else 1.0
    moved = sum(abs(a - b) for a, b in zip(allocation.shares(), view.allocation.shares(), strict=True)) / 2
    return (LATENCY_EMPHASIS * headroom + (1 - LATENCY_EMPHASIS) * min(1.0, satisfied)
            - CHANGE_COST * moved)


def _capacity(view: WindowView) -> float:
    """Bytes that a window can carry: what an output passes, or what the engines serve of such a mix if that is less."""
    window = view.window
    busy = sum(row.engine_cycles for row in window.rows)
    carried = sum(row.bytes_in for row in window.rows)
    output = float(window.cycles * view.limits.beat_bytes)
    return min(output, view.limits.slots * window.cycles * carried / busy) if busy else output


def _split(view: WindowView) -> tuple[list[int], list[int]]:
    """Tenants of the latency class, and the others."""
    latency = [t for t, profile in enumerate(view.profiles) if profile.is_latency]
    return latency, [t for t, profile in enumerate(view.profiles) if not profile.is_latency]
