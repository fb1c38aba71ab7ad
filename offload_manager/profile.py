"""What the operator says about each tenant: name, class, objective, entitlement, guarantee.

A `Profile` is in the operator's units made device units once (`slo_cycles`, guaranteed weight and pages), so that
policies compare and add plain numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from offload_manager.allocation import (
    CREDIT_PAGES,
    DEFAULT_BURST,
    FULL_RATE,
    Allocation,
    Guarantee,
    Limits,
    Row,
    apportion,
)
from offload_manager.api import TenantClass


@dataclass(frozen=True, slots=True)
class Profile:
    """One tenant as the policy file, or a request through the API, describes it.

    priority: the tenant's part of bandwidth beside others of its class (any positive number).
    slots: engine slots that it owns alone; 0 for the shared ones.
    admitted: False gives the tenant nothing at all (weight 0).
    """

    name: str
    tenant_class: TenantClass = TenantClass.BATCH
    priority: float = 1.0
    slo_cycles: int = 0
    guarantee: Guarantee = field(default_factory=Guarantee)
    ports: int = 0
    slots: int = 0
    rate: int = FULL_RATE
    burst: int = DEFAULT_BURST
    host_share: int = 0
    max_host_share: int = 256
    admitted: bool = True

    @property
    def is_latency(self) -> bool:
        """Whether the tenant is judged by latency."""
        return self.tenant_class is TenantClass.LATENCY


def quotas_in_order(
    profiles: Sequence[Profile], limits: Limits, order: Sequence[int], pool: int,
) -> list[int]:
    """`CREDIT_PAGES` for one tenant after the other in `order` (a tenant may come twice) while `pool` is left.

    Never less than a guarantee. Whole units: part of one would not keep a packet from waiting for the pool.
    """
    quotas = [p.guarantee.pages if p.admitted else 0 for p in profiles]
    left = limits.pages - max(pool, limits.packet_pages) - sum(quotas)
    units = [0] * len(quotas)
    for t in order:
        units[t] += CREDIT_PAGES
        missing = max(0, units[t] - quotas[t])
        if profiles[t].admitted and missing <= left:
            quotas[t] += missing
            left -= missing
    return quotas


def build_table(
    profiles: Sequence[Profile], limits: Limits, weights: Sequence[float], pages: Sequence[float], *,
    pool: int, weight_floor: int = 0, epoch: int = 0, host_shares: Sequence[int] | None = None,
    quotas: Sequence[int] | None = None,
) -> Allocation:
    """A legal table with these shares of weight and pages; `quotas` gives the pages themselves instead.

    `pool` pages are left to everybody, or more when the caps say so; every admitted tenant gets `weight_floor`
    or its guarantee, whichever is more, so that its next packet is admitted however idle it was.
    """
    admitted = [profile.admitted for profile in profiles]
    floors = [max(p.guarantee.weight, weight_floor) if p.admitted else 0 for p in profiles]
    cap = [limits.weight_capacity - 1 if a else 0 for a in admitted]
    row_weights = apportion(
        [share if a else 0.0 for share, a in zip(weights, admitted, strict=True)],
        limits.weight_capacity, floors, cap)
    page_floors = [p.guarantee.pages if p.admitted else 0 for p in profiles]
    spend = max(sum(page_floors), limits.pages - max(pool, limits.packet_pages))
    if quotas is None:
        quotas = apportion([share if a else 0.0 for share, a in zip(pages, admitted, strict=True)], spend, page_floors)
    shares = host_shares if host_shares is not None else [p.host_share for p in profiles]
    rows = tuple(
        Row(weight=weight, rate=p.rate, burst=p.burst, pages=page, ports=p.ports, slots=p.slots,
            host_share=share) if p.admitted else Row(burst=p.burst)
        for p, weight, page, share in zip(profiles, row_weights, quotas, shares, strict=True))
    return Allocation(rows, epoch)
