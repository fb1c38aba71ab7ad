"""The transaction against the modelled resource manager: what is sent, what a refusal becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_link.operations import Operation, Write, WriteList, touched
from gateware.config import DeviceConfig
from morphnic.errors import AllocationRefused
from offload_manager.allocation import Allocation, Guarantee, Limits, Row, diff, reset_allocation
from offload_manager.allocation import check as check_table
from offload_manager.driver import AllocationDriver, Phase
from tests.gateware.manager import model as golden
from tests.offload_manager.modelled import ModelTransport, modelled_device, transport_of
from tests.offload_manager.views import LIMITS, equal_table, profiles

NONE = [Guarantee()] * 4


@pytest.fixture
def driver() -> AllocationDriver:
    """A driver that owns a modelled device."""
    made = AllocationDriver(modelled_device(), token=7)
    made.claim()
    return made


def target() -> Allocation:
    """A legal table unlike the one after reset."""
    return equal_table(profiles(guarantee=Guarantee()))


def commit(driver: AllocationDriver, table: Allocation, tag: int = 1, *, confirm_within: int = 0) -> None:
    """One whole transaction."""
    driver.prepare(table, driver.read_active(), tag, NONE)
    driver.commit(confirm_within)


def test_table_after_reset_is_read_back(driver: AllocationDriver) -> None:
    assert driver.read_active().same_table(reset_allocation(LIMITS))


def test_committed_table_is_read_back_with_its_epoch_and_tag(driver: AllocationDriver) -> None:
    driver.prepare(target(), driver.read_active(), 42, NONE)
    done = driver.commit(0)
    assert driver.read_active() == replace(target(), epoch=1)
    assert (done.epoch, driver.state().active_tag) == (1, 42)


def test_only_changed_fields_are_staged(driver: AllocationDriver) -> None:
    commit(driver, target())
    transport = transport_of(driver.device)
    transport.exchanges.clear()
    changed = target().with_rows({2: replace(target().rows[2], weight=5)})
    commit(driver, changed)
    staging = driver.device.staging[0].weight.address
    written = [a for e in transport.exchanges for o in e if isinstance(o, Write | WriteList) for a in touched(o)
               if staging <= a < staging + 4 * 32]
    assert written == [driver.device.staging[2].weight.address]


def test_transaction_takes_few_exchanges(driver: AllocationDriver) -> None:
    base = driver.read_active()
    transport = transport_of(driver.device)
    transport.exchanges.clear()
    driver.prepare(target(), base, 1, NONE)
    driver.commit(0)
    assert len(transport.exchanges) <= 10


@pytest.mark.parametrize(("row", "reason"), [
    (Row(weight=1, burst=1), "burst too small"), (Row(weight=1, slots=8), "unknown port or slot"),
])
def test_bad_table_is_refused_before_anything_is_sent(driver: AllocationDriver, row: Row, reason: str) -> None:
    base = driver.read_active()
    transport = transport_of(driver.device)
    transport.exchanges.clear()
    with pytest.raises(AllocationRefused) as caught:
        driver.prepare(target().with_rows({1: row}), base, 1, NONE)
    assert (caught.value.reason, caught.value.row) == (reason, 1)
    assert transport.exchanges == []


def test_refusal_of_the_device_names_reason_and_row_and_leaves_it_idle(driver: AllocationDriver) -> None:
    # The device knows of a guarantee that this driver was not told of.
    driver.write_guarantees([Guarantee(), Guarantee(), Guarantee(65000, 0), Guarantee()])
    with pytest.raises(AllocationRefused, match="check refused: below guarantee: tenant 2") as caught:
        driver.prepare(target(), driver.read_active(), 1, NONE)
    assert (caught.value.reason, caught.value.row) == ("below guarantee", 2)
    assert driver.state().phase is Phase.IDLE
    assert driver.read_active().same_table(reset_allocation(LIMITS))


def test_stale_base_epoch_is_refused(driver: AllocationDriver) -> None:
    old = driver.read_active()
    commit(driver, target())
    driver.prepare(target(), old, 2, NONE)
    with pytest.raises(AllocationRefused, match="stale base_epoch") as caught:
        driver.commit(0)
    assert caught.value.row is None
    assert driver.state().phase is Phase.IDLE


def test_deposed_manager_is_refused_and_changes_nothing(driver: AllocationDriver) -> None:
    other = AllocationDriver(driver.device, token=9)
    other.claim()
    with pytest.raises(AllocationRefused, match="another manager owns the device") as caught:
        driver.prepare(target(), driver.read_active(), 1, NONE)
    assert caught.value.reason == "stale token"
    assert driver.read_active().same_table(reset_allocation(LIMITS))


def test_manager_deposed_while_staging_is_refused_as_such(driver: AllocationDriver) -> None:
    transport = transport_of(driver.device)
    staging = driver.device.staging[0].weight.address

    def depose(operation: Operation) -> None:
        if any(address >= staging for address in touched(operation)):
            transport.model.held["owner_token"] = 99

    transport.before = depose
    with pytest.raises(AllocationRefused) as caught:
        driver.prepare(target(), reset_allocation(LIMITS), 1, NONE)
    assert caught.value.reason == "stale token"


def test_commit_waits_for_old_packets_and_then_succeeds(driver: AllocationDriver) -> None:
    commit(driver, target())
    model = transport_of(driver.device).model
    epoch = model.epoch
    model.admit(3)
    commit(driver, reset_allocation(LIMITS))
    driver.prepare(target(), driver.read_active(), 3, NONE)

    def leave_later(operation: Operation) -> None:
        if model.cycle > start + 1000 and model.in_flight.get(epoch):
            model.leave(epoch, 3)

    start = model.cycle
    transport_of(driver.device).before = leave_later
    driver.commit(0, drain_cycles=10_000)
    assert 1000 < model.cycle - start < 2000


def test_commit_refused_while_draining_abandons_after_the_time_given(driver: AllocationDriver) -> None:
    commit(driver, target())
    model = transport_of(driver.device).model
    model.admit(3)
    commit(driver, reset_allocation(LIMITS))
    driver.prepare(target(), driver.read_active(), 3, NONE)
    start = model.cycle
    with pytest.raises(AllocationRefused, match="3 packets of an older epoch") as caught:
        driver.commit(0, drain_cycles=1000)
    assert caught.value.reason == "busy draining"
    assert model.cycle - start == 1000
    assert driver.state().phase is Phase.IDLE


def test_rollback_restores_every_row(driver: AllocationDriver) -> None:
    commit(driver, target(), confirm_within=1000)
    assert driver.state().phase is Phase.AWAITING
    assert driver.roll_back().epoch == 2
    assert driver.read_active().same_table(reset_allocation(LIMITS))


def test_confirmed_table_stays_after_the_deadline(driver: AllocationDriver) -> None:
    commit(driver, target(), confirm_within=1000)
    driver.confirm()
    driver.device.advance(5000)
    assert driver.read_active().same_table(target())


def test_unconfirmed_table_is_gone_after_the_deadline_and_confirm_says_so(driver: AllocationDriver) -> None:
    commit(driver, target(), confirm_within=1000)
    driver.device.advance(2000)
    with pytest.raises(AllocationRefused) as caught:
        driver.confirm()
    assert caught.value.reason == "wrong state"
    assert driver.read_active().same_table(reset_allocation(LIMITS))


def test_leftover_of_an_interrupted_transaction_is_dropped(driver: AllocationDriver) -> None:
    driver.prepare(target().with_rows({1: Row(weight=1)}), driver.read_active(), 1, NONE)  # and never committed
    commit(driver, target())
    assert driver.read_active().same_table(target())


def test_commit_time_stamp_is_extended_over_32_bits() -> None:
    transport = ModelTransport()
    transport.model.cycle = (5 << 32) - 100
    driver = AllocationDriver(modelled_device(transport=transport), token=7)
    driver.claim()
    driver.prepare(target(), driver.read_active(), 1, NONE)
    assert driver.commit(0).cycle == (5 << 32) - 100


def legal_and_illegal_tables() -> list[Allocation]:
    """One table for each rule of the device, and a legal one."""
    good = target()
    first = good.rows[1]
    return [good, *(good.with_rows({1: replace(first, **change)}) for change in (
        {"weight": 60000}, {"pages": 65}, {"burst": 255}, {"ports": 16}, {"slots": 4}, {"rate": 65537},
        {"host_share": 257}, {"weight": 3, "pages": 0}))]


@pytest.mark.parametrize("index", range(9))
def test_manager_and_model_agree_about_every_rule(index: int) -> None:
    table = legal_and_illegal_tables()[index]
    guarantees = [Guarantee(0, 0), Guarantee(5, 0), Guarantee(0, 0), Guarantee(0, 0)]
    rows = [{c.field: c.after for c in diff(Allocation((Row(rate=0, burst=0),)), Allocation((r,)))} for r in table.rows]
    full = [{name: r.get(name, 0) for name in golden.COLUMNS} for r in rows]
    result, _ = golden.check_table(full, [(g.weight, g.pages) for g in guarantees], DeviceConfig(tenants=4))
    try:
        check_table(table, Limits(4, 4, 2, 64), guarantees)
        mine = "ok"
    except AllocationRefused as refusal:
        mine = refusal.reason
    from offload_manager.allocation import RESULTS
    assert mine == RESULTS[result]
