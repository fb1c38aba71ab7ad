"""Models of other ways to schedule engines, event by event, on the arrivals that the gateware gets.

Each model is ideal: it knows at once who waits, an engine that is free takes the next request in no time, and nothing
limits how many wait. Only the choice of the tenant differs.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from math import gcd

import numpy as np
from _engine_column import Arrivals, Service


class RoundRobin:
    """One request of each tenant in turn; weights are not looked at."""

    def __init__(self, weights: Sequence[int]):
        self._last = 0
        self._count = len(weights)

    def choose(self, now: int, waiting: Sequence[int]) -> int:
        """The next tenant of those with waiting requests."""
        for step in range(1, self._count + 1):
            tenant = (self._last + step) % self._count
            if waiting[tenant]:
                self._last = tenant
                return tenant
        return -1

    def note(self, tenant: int, start: int, end: int) -> None:
        """A request was begun; when it will end is not known to a scheduler before it does."""

    def active(self, tenant: int, now: int, *, begins: bool) -> None:
        """A tenant has requests from now on, or none."""


class WeightedRoundRobin(RoundRobin):
    """As many requests of each tenant in a round as its weight says."""

    def __init__(self, weights: Sequence[int]):
        super().__init__(weights)
        unit = gcd(*weights)
        self._shares = [weight // unit for weight in weights]
        self._left = self._shares[0]

    def choose(self, now: int, waiting: Sequence[int]) -> int:
        """The tenant of this turn until its requests or its turn end."""
        if waiting[self._last] and self._left:
            self._left -= 1
            return self._last
        tenant = super().choose(now, waiting)
        self._left = self._shares[tenant] - 1
        return tenant


class LifetimeAverage(RoundRobin):
    """The tenant with the smallest engine time since the start, over the time in which it had requests, by weight."""

    def __init__(self, weights: Sequence[int]):
        super().__init__(weights)
        self._weights = weights
        self._busy = [0.0] * len(weights)
        self._active = [0.0] * len(weights)
        self._since: list[int | None] = [None] * len(weights)
        self._running: dict[tuple[int, int], int] = {}  # (tenant, end) to start: what ran so far counts

    def choose(self, now: int, waiting: Sequence[int]) -> int:
        """The smallest average."""
        busy = list(self._busy)
        for (tenant, end), start in list(self._running.items()):
            if end <= now:
                self._busy[tenant] += end - start
                busy[tenant] += end - start
                del self._running[tenant, end]
            else:
                busy[tenant] += now - start

        def average(tenant: int) -> float:
            since = self._since[tenant]
            active = self._active[tenant] + (now - since if since is not None else 0)
            return busy[tenant] / max(active, 1) / self._weights[tenant]

        candidates = [tenant for tenant in range(self._count) if waiting[tenant]]
        return min(candidates, key=average) if candidates else -1

    def note(self, tenant: int, start: int, end: int) -> None:
        """Remember what runs."""
        self._running[tenant, end] = start

    def active(self, tenant: int, now: int, *, begins: bool) -> None:
        """Keep the time with requests."""
        since = self._since[tenant]
        if begins and since is None:
            self._since[tenant] = now
        elif not begins and since is not None:
            self._active[tenant] += now - since
            self._since[tenant] = None


MODELS: dict[str, Callable[[Sequence[int]], RoundRobin]] = {
    "round_robin": RoundRobin, "wrr": WeightedRoundRobin, "lifetime_average": LifetimeAverage}


def simulate(make: Callable[[Sequence[int]], RoundRobin], arrivals: Sequence[Arrivals], weights: Sequence[int],
             servers: int, cycles: int, bin_cycles: int) -> Service:
    """Serve `arrivals` with `servers` engines that every tenant may use."""
    scheduler = make(weights)
    tenants = len(arrivals)
    times = np.concatenate([one.cycles for one in arrivals])
    owners = np.repeat(np.arange(tenants), [len(one.cycles) for one in arrivals])
    order = np.argsort(times, kind="stable")
    coming = deque(zip(times[order].tolist(), owners[order].tolist(), strict=True))
    costs = [one.costs.tolist() for one in arrivals]
    waiting, begun, running = [0] * tenants, [0] * tenants, [0] * tenants
    starts: list[list[int]] = [[] for _ in range(tenants)]
    ends: list[list[int]] = [[] for _ in range(tenants)]
    free, engaged, now = servers, [], 0  # engaged: (end, tenant) of what runs
    while now < cycles:
        while coming and coming[0][0] <= now:
            tenant = coming.popleft()[1]
            waiting[tenant] += 1
            scheduler.active(tenant, now, begins=True)
        while engaged and engaged[0][0] <= now:
            tenant = heapq.heappop(engaged)[1]
            free += 1
            running[tenant] -= 1
            if not waiting[tenant] and not running[tenant]:
                scheduler.active(tenant, now, begins=False)
        while free and any(waiting):
            tenant = scheduler.choose(now, waiting)
            cost = int(costs[tenant][begun[tenant]])
            begun[tenant] += 1
            waiting[tenant] -= 1
            running[tenant] += 1
            free -= 1
            starts[tenant].append(now)
            ends[tenant].append(now + cost)
            heapq.heappush(engaged, (now + cost, tenant))
            scheduler.note(tenant, now, now + cost)
        events = ([engaged[0][0]] if engaged else []) + ([int(coming[0][0])] if coming else [])
        if not events:
            break
        now = max(min(events), now + 1)
    return _binned(arrivals, starts, ends, cycles, bin_cycles)


def _binned(arrivals: Sequence[Arrivals], starts: list[list[int]], ends: list[list[int]], cycles: int,
            bin_cycles: int) -> Service:
    bins = cycles // bin_cycles
    edges = np.arange(bins + 1) * bin_cycles
    busy = np.zeros((bins, len(arrivals)), np.int64)
    waiting = np.zeros((bins, len(arrivals)), np.int64)
    for tenant, one in enumerate(arrivals):
        begun, done = np.array(starts[tenant], np.int64), np.sort(np.array(ends[tenant], np.int64))
        busy[:, tenant] = np.diff(_elapsed(begun, edges) - _elapsed(done, edges))
        came = np.asarray(one.cycles, np.int64)
        # Fewest in a bin: those that had come when it began, without those that were begun when it ended.
        waiting[:, tenant] = (np.searchsorted(came, edges[:-1], "right") - np.searchsorted(begun, edges[1:], "left"))
    return Service(bin_cycles, busy, np.maximum(waiting, 0), [np.array(one) for one in ends])


def _elapsed(since: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Sum over `since` (rising) of the cycles from each to `now`, where it lies before."""
    count = np.searchsorted(since, now, "right")
    total = np.concatenate([[0], np.cumsum(since)])
    return count * now - total[count]
