"""The table's rules, one by one, and the rounding of shares as properties."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateware.config
from gateware.manager.allocation import FULL_RATE as HARDWARE_FULL_RATE
from morphnic.errors import AllocationRefused
from offload_manager.allocation import (
    CREDIT_PAGES,
    FULL_RATE,
    PAGE_BEATS,
    RESULTS,
    WEIGHT_CAPACITY,
    Allocation,
    Change,
    Guarantee,
    Limits,
    Row,
    apportion,
    check,
    diff,
    reset_allocation,
)

LIMITS = Limits(tenants=4, ports=4, slots=2, pages=64, packet_pages=16)
NONE = (Guarantee(),) * 4


def table(**rows: Row) -> Allocation:
    """A legal table of small rows, with some replaced (`t1=Row(...)`)."""
    base = Row(weight=1000, pages=4, ports=0b1111)
    return Allocation(tuple(rows.get(f"t{t}", base) for t in range(4)))


def test_constants_are_those_of_the_gateware() -> None:
    """The manager imports no gateware: what both must agree on is compared here."""
    assert (PAGE_BEATS, CREDIT_PAGES, FULL_RATE) == (
        gateware.config.PAGE_BEATS, gateware.config.CREDIT_PAGES, HARDWARE_FULL_RATE)


def test_accepts_reset_table() -> None:
    check(reset_allocation(LIMITS), LIMITS, NONE)


GOOD = Row(weight=1000, pages=4, ports=0b1111)


@pytest.mark.parametrize(("row", "reason"), [
    (replace(GOOD, rate=FULL_RATE + 1), "rate over full"),
    (replace(GOOD, burst=255), "burst too small"),
    (replace(GOOD, ports=0b1_0000), "unknown port or slot"),
    (replace(GOOD, slots=0b100), "unknown port or slot"),
    (replace(GOOD, host_share=257), "host share over 256"),
])
def test_refuses_row_that_breaks_rule(row: Row, reason: str) -> None:
    with pytest.raises(AllocationRefused, match=reason) as caught:
        check(table(t2=row), LIMITS, NONE)
    assert (caught.value.reason, caught.value.row) == (reason, 2)
    assert reason in RESULTS


@pytest.mark.parametrize("row", [
    replace(GOOD, rate=FULL_RATE), replace(GOOD, burst=256), replace(GOOD, ports=0), replace(GOOD, slots=0b11),
    replace(GOOD, host_share=256),
])
def test_accepts_row_at_limit(row: Row) -> None:
    check(table(t2=row), LIMITS, NONE)


@pytest.mark.parametrize("guarantee", [Guarantee(1001, 0), Guarantee(0, 5)])
def test_refuses_row_below_guarantee(guarantee: Guarantee) -> None:
    with pytest.raises(AllocationRefused) as caught:
        check(table(), LIMITS, (Guarantee(1000, 4), Guarantee(1000, 4), Guarantee(1000, 4), guarantee))
    assert (caught.value.reason, caught.value.row) == ("below guarantee", 3)


def test_refuses_slot_owned_twice_and_names_the_second_owner() -> None:
    with pytest.raises(AllocationRefused, match="slot 1 belongs to tenant 0") as caught:
        check(table(t0=replace(GOOD, slots=0b10), t3=replace(GOOD, slots=0b11)), LIMITS, NONE)
    assert caught.value.row == 3


def test_refuses_weights_over_capacity_and_accepts_exactly_all() -> None:
    exact = table(t0=replace(GOOD, weight=WEIGHT_CAPACITY - 3000))
    check(exact, LIMITS, NONE)
    with pytest.raises(AllocationRefused, match="weights over capacity") as caught:
        check(exact.with_rows({1: replace(GOOD, weight=1001)}), LIMITS, NONE)
    assert caught.value.row is None


def test_refuses_pages_over_capacity() -> None:
    with pytest.raises(AllocationRefused, match="pages sum to 65 of 64"):
        check(table(t0=replace(GOOD, pages=53)), LIMITS, NONE)


def test_refuses_table_in_which_the_largest_packet_never_fits() -> None:
    fits = table(t0=replace(GOOD, pages=40))  # 52 quotas, pool 12: 4 + 12 = 16
    check(fits, LIMITS, NONE)
    with pytest.raises(AllocationRefused, match="packet never fits") as caught:
        check(fits.with_rows({0: replace(GOOD, pages=41)}), LIMITS, NONE)
    assert caught.value.row == 1
    check(fits.with_rows({0: replace(GOOD, pages=41), **{t: Row() for t in (1, 2, 3)}}), LIMITS, NONE)


@pytest.mark.parametrize(("field", "value"), [("weight", 1 << 16), ("pages", -1), ("burst", 1 << 15)])
def test_value_that_no_register_holds_is_an_argument_error(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"row 1: {field} must be in"):
        check(table(t1=replace(GOOD, **{field: value})), LIMITS, NONE)


def test_diff_names_every_changed_field() -> None:
    before = table()
    after = before.with_rows({1: replace(GOOD, weight=7), 3: replace(GOOD, pages=0, host_share=9)})
    assert diff(before, after) == [
        Change(1, "weight", 1000, 7), Change(3, "pages", 4, 0), Change(3, "host_share", 0, 9)]
    assert diff(after, after) == []


def test_diff_of_tables_of_different_devices_is_an_argument_error() -> None:
    with pytest.raises(ValueError, match="must be a table of 4 rows"):
        diff(table(), Allocation(table().rows[:3]))


def test_lists_round_trip() -> None:
    assert Allocation.from_lists(table(t1=Row(1, 2, 3, 4, 5, 6, 7)).to_lists(), 9).rows[1] == Row(1, 2, 3, 4, 5, 6, 7)


shares_floors_caps = st.integers(1, 64).flatmap(lambda n: st.tuples(
    st.lists(st.one_of(st.just(0.0), st.floats(0, 1e12, allow_nan=False)), min_size=n, max_size=n),
    st.lists(st.integers(0, 1000), min_size=n, max_size=n),
    st.lists(st.integers(0, 70000), min_size=n, max_size=n)))


@given(shares_floors_caps, st.integers(0, 70000))
def test_apportion_meets_floors_caps_and_total(
    case: tuple[list[float], list[int], list[int]], extra: int,
) -> None:
    shares, floors, above = case
    caps = [low + more for low, more in zip(floors, above, strict=True)]
    total = sum(floors) + extra
    result = apportion(shares, total, floors, caps)
    assert all(low <= x <= high for low, x, high in zip(floors, result, caps, strict=True))
    assert sum(result) <= total
    largest = max(shares)
    room = [i for i, x in enumerate(result) if x < caps[i] and largest > 0 and shares[i] / largest > 1e-12]
    if room:
        assert sum(result) == total


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=32), st.integers(64, 65536))
def test_apportion_is_within_one_of_proportional_without_floors(shares: list[float], total: int) -> None:
    result = apportion(shares, total, [0] * len(shares))
    assert sum(result) == total
    for x, share in zip(result, shares, strict=True):
        assert abs(x - total * share / sum(shares)) < 1 + 1e-6


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=16))
def test_apportion_never_gives_a_larger_share_less(shares: list[float]) -> None:
    result = apportion(shares, 1000, [0] * len(shares))
    for i, a in enumerate(shares):
        for j, b in enumerate(shares):
            if a > b:
                assert result[i] >= result[j]


def test_apportion_takes_the_rest_from_those_over_their_floor() -> None:
    assert apportion([1, 1, 1], 90, [60, 0, 0]) == [60, 15, 15]
    assert apportion([8, 1, 1], 100, [0, 0, 0], [50, 100, 100]) == [50, 25, 25]


def test_apportion_refuses_guarantees_over_capacity() -> None:
    with pytest.raises(AllocationRefused, match="guarantees sum to 11 of 10"):
        apportion([1, 1], 10, [6, 5])
