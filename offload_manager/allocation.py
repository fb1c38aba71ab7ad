"""The allocation table on the software side: rows, the device's rules, rounding of shares, differences.

Pure: no device, no clock, no state. `check` applies the same rules as the resource manager's hardware check,
and one more (a packet that can never fit), so that a table which breaks a rule is refused here, with the
reason and the row, and never sent. `apportion` turns real-valued shares into integers that meet floors, caps and the
capacity exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

from device_link.registers import register_map
from morphnic.errors import AllocationRefused

FULL_RATE = 1 << 16
MAX_WEIGHT = (1 << 16) - 1
WEIGHT_CAPACITY = 1 << 16
MIN_BURST = 256
MAX_BURST = (1 << 15) - 1
#: Of a tenant whose policy names none. One that is limited and has less than nine largest packets is granted one at a
#: time, of which an output starts one in nine cycles: with packets shorter than nine times its rate it gets less than
#: its rate.
DEFAULT_BURST = 4096
FULL_HOST_SHARE = 256
PAGE_BEATS = 16
#: Pages that let a tenant offer its next packet at the host port (of up to 32 beats) without waiting for anybody's:
#: with a smaller quota its packet may wait at the head of the port for the shared pool, and everybody behind it.
CREDIT_PAGES = 2

#: Results of a command, by the number that `rm.status.result` reports.
RESULTS = tuple(register_map().register("rm.status").field("result").titles.values())
WHOLE_TABLE = 255


@dataclass(frozen=True, slots=True)
class Row:
    """What one tenant is granted, in the device's units (see the register map, `staging[t]`); by default nothing, as
    after a reset."""

    weight: int = 0
    rate: int = FULL_RATE
    burst: int = 512
    pages: int = 0
    ports: int = 0
    slots: int = 0
    host_share: int = 0


FIELDS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True, slots=True)
class Guarantee:
    """The least that a table may give a tenant."""

    weight: int = 0
    pages: int = 0


class _Config(Protocol):
    """The part of a device configuration that limits an allocation."""

    @property
    def tenants(self) -> int: ...
    @property
    def ports(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def pages(self) -> int: ...
    @property
    def data_width(self) -> int: ...
    @property
    def clock_hz(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device has to give. `packet_pages`: pages of the largest packet that tenants send."""

    tenants: int
    ports: int
    slots: int
    pages: int
    beat_bytes: int = 8
    clock_hz: int = 100_000_000
    weight_capacity: int = WEIGHT_CAPACITY
    packet_pages: int = 16

    @classmethod
    def of(cls, config: _Config, packet_pages: int = 16) -> Limits:
        """Limits of a device with this configuration."""
        return cls(tenants=config.tenants, ports=config.ports, slots=config.slots, pages=config.pages,
                   beat_bytes=config.data_width // 8, clock_hz=config.clock_hz, packet_pages=packet_pages)

    @property
    def all_ports(self) -> int:
        """Mask of every port."""
        return (1 << self.ports) - 1


@dataclass(frozen=True, slots=True)
class Change:
    """One field of one row that differs between two tables."""

    tenant: int
    field: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """The whole table, and the epoch in which it is (or was) in force."""

    rows: tuple[Row, ...]
    epoch: int = 0

    def with_rows(self, changed: Mapping[int, Row]) -> Allocation:
        """The table with some rows replaced."""
        return replace(self, rows=tuple(changed.get(t, row) for t, row in enumerate(self.rows)))

    def same_table(self, other: Allocation) -> bool:
        """Whether every row is the same, whatever the epochs."""
        return self.rows == other.rows

    def shares(self) -> list[float]:
        """Every tenant's weight over the sum of weights."""
        total = sum(row.weight for row in self.rows)
        return [row.weight / total if total else 0.0 for row in self.rows]

    def share(self, tenant: int) -> float:
        """The tenant's weight over the sum of weights."""
        return self.shares()[tenant]

    def to_lists(self) -> list[list[int]]:
        """Rows as plain lists in the order of `FIELDS`, for the store."""
        return [[getattr(row, name) for name in FIELDS] for row in self.rows]

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]], epoch: int = 0) -> Allocation:
        """Back from `to_lists`."""
        return cls(tuple(Row(*row) for row in rows), epoch)


def reset_allocation(limits: Limits) -> Allocation:
    """The table after a reset of the device: tenant 0 owns everything."""
    first = Row(weight=4096, pages=limits.pages, ports=limits.all_ports, slots=(1 << limits.slots) - 1)
    return Allocation((first, *(Row() for _ in range(limits.tenants - 1))))


def diff(before: Allocation, after: Allocation) -> list[Change]:
    """Every field that differs, by tenant, then in the order of the fields."""
    if len(before.rows) != len(after.rows):
        raise ValueError(f"after must be a table of {len(before.rows)} rows, not {len(after.rows)}")
    return [
        Change(tenant, name, getattr(old, name), getattr(new, name))
        for tenant, (old, new) in enumerate(zip(before.rows, after.rows, strict=True))
        for name in FIELDS
        if getattr(old, name) != getattr(new, name)
    ]


def _row_faults(tenant: int, row: Row, guarantee: Guarantee, limits: Limits) -> Iterator[tuple[str, str]]:
    """Rules that concern one row: (reason, explanation)."""
    if row.rate > FULL_RATE:
        yield "rate over full", f"rate {row.rate} is over {FULL_RATE}; {FULL_RATE} does not limit"
    if row.weight and not row.rate:
        yield "rate over full", "a tenant with weight has rate 0; give it a rate, or weight 0"
    if row.burst < MIN_BURST:
        yield "burst too small", f"burst {row.burst} is under one packet; give at least {MIN_BURST} beats"
    if row.ports >> limits.ports:
        yield "unknown port or slot", f"ports {row.ports:#x} names a port over {limits.ports - 1}"
    if row.slots >> limits.slots:
        yield "unknown port or slot", f"slots {row.slots:#x} names a slot over {limits.slots - 1}"
    if row.host_share > FULL_HOST_SHARE:
        yield "host share over 256", f"host_share {row.host_share} is over {FULL_HOST_SHARE}"
    if row.weight < guarantee.weight:
        yield "below guarantee", f"weight {row.weight} is under the guaranteed {guarantee.weight}"
    if row.pages < guarantee.pages:
        yield "below guarantee", f"pages {row.pages} are under the guaranteed {guarantee.pages}"


def _field_ranges(tenant: int, row: Row) -> None:
    """A value that no register can hold is a fault of the program, not of the table."""
    widths = {"weight": 16, "rate": 17, "burst": 15, "pages": 16, "ports": 16, "slots": 16, "host_share": 9}
    for name, width in widths.items():
        value = getattr(row, name)
        if not 0 <= value < 1 << width:
            raise ValueError(f"row {tenant}: {name} must be in 0..{(1 << width) - 1}, not {value!r}")


def check(allocation: Allocation, limits: Limits, guarantees: Sequence[Guarantee]) -> None:
    """Raise `AllocationRefused` for the first rule that the table breaks; return when it breaks none."""
    if len(allocation.rows) != limits.tenants:
        raise ValueError(f"the table must have {limits.tenants} rows, not {len(allocation.rows)}")
    owners: dict[int, int] = {}
    for tenant, (row, guarantee) in enumerate(zip(allocation.rows, guarantees, strict=True)):
        _field_ranges(tenant, row)
        for reason, explanation in _row_faults(tenant, row, guarantee, limits):
            raise _refused(reason, explanation, tenant)
        for slot in range(limits.slots):
            if row.slots >> slot & 1 and owners.setdefault(slot, tenant) != tenant:
                raise _refused("slot owned twice", f"slot {slot} belongs to tenant {owners[slot]}", tenant)
    weight, pages = (sum(getattr(row, name) for row in allocation.rows) for name in ("weight", "pages"))
    if weight > limits.weight_capacity:
        raise _refused("weights over capacity", f"weights sum to {weight} of {limits.weight_capacity}", None)
    if pages > limits.pages:
        raise _refused("pages over capacity", f"pages sum to {pages} of {limits.pages}", None)
    _check_largest_packet(allocation, limits, limits.pages - pages)


def _check_largest_packet(allocation: Allocation, limits: Limits, pool: int) -> None:
    """The manager's own rule: a packet that fits neither quota nor pool would stall its input for ever."""
    for tenant, row in enumerate(allocation.rows):
        if row.weight and row.pages + pool < limits.packet_pages:
            raise _refused(
                "packet never fits",
                f"{row.pages} pages and a shared pool of {pool} are under the {limits.packet_pages} of the "
                "largest packet; leave more pages to the pool", tenant)


def _refused(reason: str, explanation: str, row: int | None) -> AllocationRefused:
    where = "the table" if row is None else f"tenant {row}"
    return AllocationRefused(f"allocation refused: {reason}: {where}: {explanation}", reason=reason, row=row)


def apportion(
    shares: Sequence[float], total: int, floors: Sequence[int], caps: Sequence[int] | None = None,
) -> list[int]:
    """Integers in proportion to `shares`, each between its floor and its cap, that sum to `total`.

    The sum is smaller only when the caps, or shares of zero, leave nobody to take the rest. Real-valued
    targets come from water filling (a tenant held at its floor or cap leaves the rest to the others), integers
    from the largest remainder, ties to the lower index.
    """
    n = len(shares)
    tops = list(caps) if caps is not None else [total] * n
    if len(floors) != n or len(tops) != n:
        raise ValueError(f"floors and caps must have {n} entries, not {len(floors)} and {len(tops)}")
    if sum(floors) > total:
        raise _refused("below guarantee", f"guarantees sum to {sum(floors)} of {total}", None)
    for index, (low, high, share) in enumerate(zip(floors, tops, shares, strict=True)):
        if not 0 <= low <= high:
            raise ValueError(f"floors[{index}] must be in 0..{high}, not {low!r}")
        if not 0 <= share < float("inf"):
            raise ValueError(f"shares[{index}] must be finite and not negative, not {share!r}")
    return _largest_remainder(_water_fill(shares, total, floors, tops), total, tops, shares)


def _water_fill(
    shares: Sequence[float], total: int, floors: Sequence[int], caps: Sequence[int],
) -> list[float]:
    """clamp(level * share, floor, cap) at the level that spends `total`.

    Each round freezes the side that is violated more (as in flexible box layout), so it ends after at most n.
    """
    result = [float(low) for low in floors]
    # A share of next to nothing beside the others is nothing: it could only overflow the level.
    scale = max(shares, default=0.0)
    free = {i for i, share in enumerate(shares) if scale > 0 and share / scale > 1e-12}
    while free:
        rest = total - sum(value for i, value in enumerate(result) if i not in free)
        norm = sum(shares[i] / scale for i in free)
        target = {i: rest * (shares[i] / scale) / norm for i in free}
        low = {i for i in free if target[i] < floors[i]}
        high = {i for i in free if target[i] > caps[i]}
        excess = sum(floors[i] - target[i] for i in low) - sum(target[i] - caps[i] for i in high)
        frozen = low if excess > 0 else high if excess < 0 else low | high
        for i in free:
            result[i] = float(min(max(target[i], floors[i]), caps[i]))
        if not frozen:
            break
        free -= frozen
    return result


def _largest_remainder(
    targets: Sequence[float], total: int, caps: Sequence[int], shares: Sequence[float],
) -> list[int]:
    """Integers next to `targets`; what is left goes to the largest remainders, each within its cap."""
    result = [int(target) for target in targets]
    order = sorted(range(len(targets)), key=lambda i: (result[i] - targets[i], i))
    order = [i for i in order if shares[i] > 0]
    rest = min(total, round(sum(targets))) - sum(result)
    for i in order:
        if rest <= 0:
            break
        if result[i] < caps[i]:
            result[i] += 1
            rest -= 1
    return result
