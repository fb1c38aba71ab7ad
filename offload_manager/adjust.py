"""Requests for more or less: what they change about a tenant's profile, or why not.

Pure. An adjustment is kept beside the policy file (in the store) and laid over its profiles, so that every policy
honours it from then on. `refit` makes the smallest change of a table that meets the changed profiles at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from offload_manager.allocation import FULL_HOST_SHARE, FULL_RATE, Allocation, Guarantee, Limits, apportion
from offload_manager.api import Resource, ResourceRequest
from offload_manager.profile import Profile


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What requests changed about one tenant; None: as the policy file says."""

    weight: int | None = None
    pages: int | None = None
    slots: int | None = None
    rate: int | None = None
    host_share: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not granted, and the most that would have been."""

    reason: str
    detail: str
    alternative: float | None = None


def apply(profiles: Sequence[Profile], adjustments: Mapping[int, Adjustment]) -> tuple[Profile, ...]:
    """Profiles with the adjustments laid over."""
    return tuple(
        _adjusted(profile, adjustments[t]) if t in adjustments else profile for t, profile in enumerate(profiles))


def _adjusted(profile: Profile, change: Adjustment) -> Profile:
    guarantee = Guarantee(
        profile.guarantee.weight if change.weight is None else change.weight,
        profile.guarantee.pages if change.pages is None else change.pages)
    values = {name: value for name, value in asdict(change).items()
              if name in ("slots", "rate", "host_share") and value is not None}
    return replace(profile, guarantee=guarantee, **values)


def load(document: object) -> dict[int, Adjustment]:
    """Back from the store."""
    if not isinstance(document, dict):
        return {}
    return {int(tenant): Adjustment(**values) for tenant, values in document.items()}


def dump(adjustments: Mapping[int, Adjustment]) -> dict[str, dict[str, int | None]]:
    """For the store."""
    return {str(tenant): asdict(change) for tenant, change in adjustments.items()}


def amount_of(profile: Profile, resource: Resource, limits: Limits) -> float:
    """What the tenant has of a resource, in the units of a request."""
    match resource:
        case Resource.BANDWIDTH:
            return round(100 * profile.guarantee.weight / limits.weight_capacity, 2)
        case Resource.PAGES:
            return float(profile.guarantee.pages)
        case Resource.SLOTS:
            return float(profile.slots.bit_count())
        case Resource.RATE:
            return round(100 * profile.rate / FULL_RATE, 2)
        case Resource.HOST_SHARE:
            return round(100 * profile.host_share / FULL_HOST_SHARE, 2)


def consider(
    request: ResourceRequest, profiles: Sequence[Profile], configured: Sequence[Profile], limits: Limits,
    current: Adjustment,
) -> Adjustment | Refusal:
    """The tenant's new adjustment, or why the request is refused. `configured`: profiles of the policy file."""
    tenant = request.tenant
    profile, sign = profiles[tenant], 1 if request.direction == "more" else -1
    if not profile.admitted:
        return Refusal("limit of policy", f"tenant {tenant} is not admitted by the policy file; set admitted: true "
                                          "for it")
    if request.resource in (Resource.PAGES, Resource.SLOTS) and request.amount != int(request.amount):
        return Refusal("out of range", f"{request.resource} are whole; ask for {round(request.amount) or 1}")
    wanted = round(amount_of(profile, request.resource, limits) + sign * request.amount, 2)
    if request.resource is Resource.SLOTS:
        return _consider_slots(tenant, wanted, profiles, limits, current)
    low, high, reason, detail = _bounds(request.resource, tenant, profiles, configured[tenant], limits)
    if wanted < low:
        floor = "below guarantee" if request.resource in (Resource.BANDWIDTH, Resource.PAGES) else "out of range"
        return Refusal(floor, f"tenant {tenant} would have {wanted:g}, the least is {low:g}: change the policy file "
                              "for less", low)
    if wanted > high:
        return Refusal(reason, detail, high)
    return _set(current, request.resource, wanted, limits)


def _bounds(resource: Resource, tenant: int, profiles: Sequence[Profile], configured: Profile,
            limits: Limits) -> tuple[float, float, str, str]:
    """Least and most of a resource, and the reason and remedy for more."""
    others = [p.guarantee for t, p in enumerate(profiles) if t != tenant]
    if resource is Resource.BANDWIDTH:
        room = 100 * (limits.weight_capacity - sum(g.weight for g in others)) / limits.weight_capacity
        # Rounded down, so that what is offered as an alternative is granted when it is asked for.
        room = int(min(room, 100 * (limits.weight_capacity - 1) / limits.weight_capacity) * 100) / 100
        return (amount_of(configured, resource, limits), room, "capacity",
                f"other tenants are guaranteed the rest: {room:g} % is the most; ask one of them for less first")
    if resource is Resource.PAGES:
        pages = limits.pages - limits.packet_pages - sum(g.pages for g in others)
        return (float(configured.guarantee.pages), float(pages), "capacity",
                f"{pages} pages are the most beside the other guarantees and the {limits.packet_pages} of the "
                "largest packet; ask another tenant for less first")
    if resource is Resource.RATE:
        return 0.01, 100.0, "out of range", "100 % does not limit; there is no more"
    top = 100 * configured.max_host_share / FULL_HOST_SHARE
    return (0.0, top, "limit of policy",
            f"the policy file allows {top:g} % of processing on the host (max_host_share)")


def _set(current: Adjustment, resource: Resource, wanted: float, limits: Limits) -> Adjustment:
    match resource:
        case Resource.BANDWIDTH:
            return replace(current, weight=round(wanted / 100 * limits.weight_capacity))
        case Resource.PAGES:
            return replace(current, pages=int(wanted))
        case Resource.RATE:
            return replace(current, rate=max(1, round(wanted / 100 * FULL_RATE)))
        case _:
            return replace(current, host_share=round(wanted / 100 * FULL_HOST_SHARE))


def _consider_slots(tenant: int, wanted: float, profiles: Sequence[Profile], limits: Limits,
                    current: Adjustment) -> Adjustment | Refusal:
    """Slots of its own. One stays shared while a tenant without its own is admitted: it would get no service."""
    mine = profiles[tenant].slots
    owned = sum(p.slots for t, p in enumerate(profiles) if t != tenant)
    free = [slot for slot in range(limits.slots) if not (owned | mine) >> slot & 1]
    if wanted < 0:
        return Refusal("not owned", f"tenant {tenant} owns {mine.bit_count()} slots", float(mine.bit_count()))
    shared_needed = any(p.admitted and not p.slots for t, p in enumerate(profiles) if t != tenant)
    spare = max(0, len(free) - (1 if shared_needed else 0))
    missing = int(wanted) - mine.bit_count()
    if missing > spare:
        return Refusal("no free slot", f"{spare} of {limits.slots} slots can be given to one tenant; others own the "
                                       "rest, or share it", float(mine.bit_count() + spare))
    slots = mine
    for slot in free[:max(0, missing)]:
        slots |= 1 << slot
    for slot in reversed(range(limits.slots)):
        if slots.bit_count() > wanted and slots >> slot & 1:
            slots &= ~(1 << slot)
    return replace(current, slots=slots)


def refit(table: Allocation, profiles: Sequence[Profile], limits: Limits) -> Allocation:
    """`table` changed as little as possible so that it meets the profiles."""
    weights = [row.weight for row in table.rows]
    floors = [p.guarantee.weight for p in profiles]
    if any(w < low for w, low in zip(weights, floors, strict=True)) or sum(weights) > limits.weight_capacity:
        shares = [float(max(w, low)) if p.admitted else 0.0
                  for w, low, p in zip(weights, floors, profiles, strict=True)]
        weights = apportion(shares, limits.weight_capacity, floors,
                            [limits.weight_capacity - 1] * len(floors))
    pages = [row.pages for row in table.rows]
    least = [p.guarantee.pages for p in profiles]
    spend = min(limits.pages - limits.packet_pages, max(sum(pages), sum(least)))
    if any(n < low for n, low in zip(pages, least, strict=True)) or sum(pages) > spend:
        pages = apportion([float(n) for n in pages], max(spend, sum(least)), least)
    rows = {
        t: replace(row, weight=weight, pages=count, ports=p.ports, slots=p.slots, rate=p.rate, burst=p.burst,
                   host_share=min(p.max_host_share, max(p.host_share, row.host_share)))
        for t, (row, p, weight, count) in enumerate(zip(table.rows, profiles, weights, pages, strict=True))
        if p.admitted
    }
    return table.with_rows(rows)
