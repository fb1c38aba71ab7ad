"""What a run achieved, computed from the completion of every request: throughput, percentiles, fairness.

All times are in device cycles, all sizes in bytes. A request is done when its last packet is; its latency counts from
its arrival (open loop), so that waiting in the host's queue is part of it. A request of which a packet was dropped by
policy has no latency and is counted as dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassFigures", "Requests", "RunFigures", "jain", "max_min", "run_figures"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Requests:
    """One element a request, in order of arrival.

    arrival, done: cycles (`done` is -1 for a request that was not delivered whole); tenant: id; size: bytes.
    """

    arrival: Ints
    done: Ints
    tenant: Ints
    size: Ints

    @property
    def delivered(self) -> NDArray[np.bool_]:
        """True for each request of which every packet was delivered."""
        return self.done >= 0

    @property
    def latency(self) -> Ints:
        """Cycles from arrival to the last packet's delivery, for delivered requests only."""
        return (self.done - self.arrival)[self.delivered]


@dataclass(frozen=True)
class ClassFigures:
    """Latency of one class of tenants: cycles; `misses` is the share of its requests above `objective`."""

    name: str
    requests: int
    p50: float
    p99: float
    objective: int
    misses: float


@dataclass(frozen=True)
class RunFigures:
    """Figures of one run. `throughput` in bytes a cycle while requests arrived, `utilisation` of `capacity`."""

    offered: int
    delivered: int
    dropped: int
    cycles: int
    throughput: float
    utilisation: float
    jain: float
    classes: tuple[ClassFigures, ...]


def jain(values: Floats) -> float:
    """Jain's fairness index: 1 when all are equal, 1/n when one has everything (Jain et al., 1984)."""
    squares = float(np.sum(values * values))
    return 1.0 if squares == 0.0 else float(np.sum(values)) ** 2 / (len(values) * squares)


def max_min(demands: Floats, weights: Floats, capacity: float) -> Floats:
    """Weighted max-min fair shares: nobody gets more than it demands, the rest is shared by weight.

    Progressive filling (Bertsekas and Gallager, Data Networks, 6.5.2). Lengths are equal; weights are positive.
    """
    shares = np.zeros_like(demands)
    open_ = demands > 0
    left = capacity
    while left > 1e-9 and open_.any():
        level = left * weights / float(np.sum(weights[open_]))
        full = open_ & (demands - shares <= level)
        if not full.any():
            shares[open_] += level[open_]
            break
        left -= float(np.sum((demands - shares)[full]))
        shares[full] = demands[full]
        open_ &= ~full
    return shares


def _class_figures(name: str, requests: Requests, members: NDArray[np.bool_], objective: int) -> ClassFigures:
    delivered = members & requests.delivered
    latency = (requests.done - requests.arrival)[delivered]
    late = int(np.sum(latency > objective)) + int(np.sum(members & ~requests.delivered))
    count = int(np.sum(members))
    p50, p99 = np.percentile(latency, [50, 99], method="higher") if len(latency) else (np.nan, np.nan)
    return ClassFigures(name, count, float(p50), float(p99), objective, late / count if count else 0.0)


def run_figures(requests: Requests, classes: dict[str, set[int]], objectives: dict[str, int], *,
                weights: dict[int, float], capacity: float, bottleneck: Requests | None = None) -> RunFigures:
    """Figures of a run.

    classes: class name -> its tenants. objectives: class name -> latency in cycles. weights: tenant -> importance.
    capacity: bytes a cycle that the bottleneck can carry. Fairness is Jain's index over tenants of what each got until
    the last arrival, divided by its weighted max-min share of the capacity. bottleneck: the requests that use it, and
    so count for throughput, utilisation and fairness (default: all).
    """
    everything, requests = requests, bottleneck or requests
    end = int(requests.arrival.max(initial=0)) + 1
    span = end - int(requests.arrival.min(initial=0))
    in_time = requests.delivered & (requests.done < end)
    tenants = sorted(weights)
    offered = np.array([float(np.sum(requests.size[requests.tenant == t])) for t in tenants])
    received = np.array([float(np.sum(requests.size[in_time & (requests.tenant == t)])) for t in tenants])
    entitled = max_min(offered, np.array([weights[t] for t in tenants]), capacity * span)
    active = entitled > 0
    throughput = float(np.sum(received)) / span
    return RunFigures(
        offered=int(np.sum(everything.size)),
        delivered=int(np.sum(everything.size[everything.delivered])),
        dropped=int(np.sum(everything.size[~everything.delivered])),
        cycles=int(everything.done.max(initial=0)),
        throughput=throughput,
        utilisation=throughput / capacity,
        jain=jain(received[active] / entitled[active]) if active.any() else 1.0,
        classes=tuple(
            _class_figures(name, everything, np.isin(everything.tenant, list(members)), objectives[name])
            for name, members in classes.items()),
    )
