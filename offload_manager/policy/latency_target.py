"""`latency_target`: tenants of the latency class go first by as much as their objective needs; batch gets the rest.

Feedback on what each latency tenant missed. Its weight is its priority times a boost: the boost is doubled when
the tenant missed its objective, held while it came close, and returned slowly after calm windows, never under
`boost_min`. Because the schedulers conserve work, a high weight costs the batch class only what the latency
class really sends. A part of the weights (`batch_share`) is kept for the batch class whatever the boosts are,
so that a misbehaving latency tenant cannot starve it.

Pages come in units that let a packet in without waiting at the head of the host port: one for each latency tenant,
one for each batch tenant that sends (a batch packet that waits there holds up the latency packets behind it), then
in turn to those who send, the latency class first. Two packets of the largest size are left to the pool, so that a
burst of frames from the network passes; no more: a batch class that can fill a large pool takes the input's turns from
the latency class whatever the weights at the outputs are; with quotas its credit ends when the outputs prefer others,
and its packets wait where they are in nobody's way.
"""

from __future__ import annotations

from offload_manager.allocation import CREDIT_PAGES
from offload_manager.policy.base import Proposal, WindowView
from offload_manager.policy.host_shift import HostShift
from offload_manager.policy.score import score
from offload_manager.profile import build_table, quotas_in_order

#: Windows for which a tenant that sent keeps its pages: a pause between two bursts must not move them.
REMEMBERED = 64


class LatencyTarget:
    """Feedback on misses and on the maximum latency of the latency class.

    miss_target: part of a tenant's packets that may miss the objective before its boost is raised.
    near: part of the objective from which the worst packet of a window stops the return of the boost.
    boost_min, boost_max: limits of the boost over a batch tenant of the same priority.
    hold_windows: calm windows before the boost returns; `decay`: factor a window after that.
    batch_share: part of the weights that the batch class keeps, 0..1.
    page_part: part of the pages that may be given out as quotas; the rest (at least the largest packet) is the pool.
    """

    name = "latency_target"

    def __init__(
        self, miss_target: float = 0.01, near: float = 0.8, boost_min: float = 32.0, boost_max: float = 128.0,
        hold_windows: int = 8, decay: float = 0.9, batch_share: float = 0.05, page_part: float = 1.0,
        host_shift: HostShift | None = None,
    ) -> None:
        checks: list[tuple[bool, str, str, float]] = [
            (0 <= miss_target < 1, "miss_target", "in 0..1", miss_target),
            (0 < near <= 1, "near", "in (0, 1]", near),
            (boost_min >= 1, "boost_min", "at least 1", boost_min),
            (boost_max >= boost_min, "boost_max", f"at least boost_min ({boost_min!r})", boost_max),
            (hold_windows >= 0, "hold_windows", "not negative", hold_windows),
            (0 < decay <= 1, "decay", "in (0, 1]", decay),
            (0 < batch_share < 1, "batch_share", "in (0, 1)", batch_share),
            (0 <= page_part <= 1, "page_part", "in 0..1", page_part),
        ]
        for holds, name, rule, value in checks:
            if not holds:
                raise ValueError(f"{name} must be {rule}, not {value!r}")
        self._miss_target, self._near = miss_target, near
        self._boost_min, self._boost_max = boost_min, boost_max
        self._hold, self._decay = hold_windows, decay
        self._batch_share, self._page_part = batch_share, page_part
        self._host_shift = host_shift or HostShift()
        self._boost: dict[int, float] = {}
        self._calm: dict[int, int] = {}
        self._last_sent: dict[int, int] = {}

    def evaluate(self, view: WindowView) -> Proposal:
        """The table after this window's feedback."""
        latency = [t for t, p in enumerate(view.profiles) if p.is_latency and p.admitted]
        missing = [t for t in latency if self._feed_back(t, view)]
        shares = self._weight_shares(view, latency)
        table = build_table(
            view.profiles, view.limits, shares, [], quotas=self._quotas(view, latency), pool=0,
            epoch=view.allocation.epoch, weight_floor=view.limits.weight_capacity // 1024,
            host_shares=self._host_shift.shares(view))
        if missing:
            reason = f"tenants {missing} missed their objective: boost raised to " + ", ".join(
                f"{self._boost[t]:.0f}" for t in missing)
        elif latency:
            low, high = (f(self._boost[t] for t in latency) for f in (min, max))
            reason = f"objectives held: latency class at {low:.0f} to {high:.0f} times a batch tenant"
        else:
            reason = "no tenant of the latency class: shares as configured"
        return Proposal(table, reason, score(view, table), self.name)

    def _feed_back(self, tenant: int, view: WindowView) -> bool:
        """Adjust the tenant's boost; tell whether it was raised (or would be, at the top)."""
        row, slo = view.window.rows[tenant], view.profiles[tenant].slo_cycles
        boost = self._boost.get(tenant, self._boost_min)
        calm = self._calm.get(tenant, 0)
        missed = slo > 0 and row.slo_misses > self._miss_target * row.packets_out
        close = slo > 0 and row.latency_max > self._near * slo
        if missed:
            boost, calm = min(self._boost_max, boost * 2), 0
        elif close:
            calm = 0
        else:
            calm += 1
            if calm > self._hold:
                boost = max(self._boost_min, boost * self._decay)
        self._boost[tenant], self._calm[tenant] = boost, calm
        return missed

    def _weight_shares(self, view: WindowView, latency: list[int]) -> list[float]:
        """Priority times boost; the batch class as a whole keeps at least `batch_share`."""
        shares = [
            p.priority * self._boost.get(t, 1.0) if p.is_latency else p.priority
            for t, p in enumerate(view.profiles)
        ]
        first = sum(shares[t] for t in latency)
        batch = [t for t, p in enumerate(view.profiles) if p.admitted and not p.is_latency]
        rest = sum(shares[t] for t in batch)
        if first > 0 and rest > 0 and rest / (first + rest) < self._batch_share:
            lift = self._batch_share / (1 - self._batch_share) * first / rest
            for t in batch:
                shares[t] *= lift
        return shares

    def _quotas(self, view: WindowView, latency: list[int]) -> list[int]:
        """Pages of every tenant; see above for the order."""
        now = view.window.number
        for t, row in enumerate(view.window.rows):
            if row.bytes_in or row.depth:
                self._last_sent[t] = now

        def sends(t: int) -> bool:
            return now - self._last_sent.get(t, -REMEMBERED) < REMEMBERED

        batch = [t for t, p in enumerate(view.profiles) if not p.is_latency and p.admitted and sends(t)]
        batch.sort(key=lambda t: (-view.profiles[t].priority, t))
        busy = [t for t in latency if sends(t)]
        rounds = 1 + view.limits.pages // (CREDIT_PAGES * max(1, len(busy) + len(batch)))
        # Store and forward: while one packet of the largest size leaves, the next one already needs its pages.
        passing = min(2 * view.limits.packet_pages, view.limits.pages // 2)
        pool = max(int(view.limits.pages * (1 - self._page_part)), passing)
        return quotas_in_order(view.profiles, view.limits, [*latency, *batch, *(busy + batch) * rounds], pool)
