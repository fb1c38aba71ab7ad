"""A manager that died at any point of a transaction, and what the next one makes of it, on a modelled device.

The process is not really killed here (see test_kill): an exception leaves the transaction at every exchange with
the device and at every write of the store in turn, and a new loop starts on what is left.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from device_link.operations import Operation
from offload_manager.api import Outcome
from offload_manager.driver import Phase
from offload_manager.loop import ControlLoop, LoopSettings
from offload_manager.policy_file import PolicySource
from offload_manager.store import MemoryStore, SqliteStore, Store
from offload_manager.timing import DecisionLatency
from tests.offload_manager.modelled import ModelTransport, modelled_device
from tests.offload_manager.test_loop import busy, policy
from tests.offload_manager.views import LIMITS


class Death(BaseException):
    """The process ends here."""


def loop_on(transport: ModelTransport, store: Store, token: int) -> ControlLoop:
    """A loop on this device and store."""
    transport._closed = False
    return ControlLoop(modelled_device(transport=transport), PolicySource(LIMITS, policy=policy()), store,
                       LoopSettings(decision_latency=DecisionLatency.parse("50us"), token=token))


def consistent(control: ControlLoop) -> None:
    """Device and store agree, and nothing is left open."""
    state = control.driver.state()
    assert state.phase in (Phase.IDLE, Phase.AWAITING)
    assert state.owner_token == control.driver.token
    record = control.store.record(state.active_tag)
    assert record is not None
    assert record.after.same_table(control.driver.read_active())
    settled = Outcome.AWAITING if state.phase is Phase.AWAITING else Outcome.CONFIRMED
    assert record.decision.outcome is settled
    for other in control.store.unsettled():
        assert other.decision.tag == state.active_tag
    assert control.active.same_table(control.driver.read_active())


def run(control: ControlLoop, windows: int) -> None:
    """Start, and take that many windows."""
    control.start()
    for _ in range(windows):
        control.step()


def run_until_death(control: ControlLoop, transport: ModelTransport, operations: int) -> bool:
    """Run; die at the given operation with the device. False when the run ended before it."""
    left = operations

    def count(operation: Operation) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Death

    transport.exchanges.clear()
    transport.before = count
    try:
        run(control, 9)
    except Death:
        return True
    finally:
        transport.before = None
    return False


def exchanges_of_a_run() -> int:
    """How many operations a run of that length takes."""
    transport = ModelTransport(busy)
    assert not run_until_death(loop_on(transport, MemoryStore(), 7), transport, 1 << 30)
    return sum(len(exchange) for exchange in transport.exchanges)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("waited", [0, 2_000_000])
def test_restart_after_death_at_every_exchange(part: int, waited: int) -> None:
    total = exchanges_of_a_run()
    assert total > 40
    for point in range(part, total, 8):
        transport, store = ModelTransport(busy), MemoryStore()
        assert run_until_death(loop_on(transport, store, 7), transport, point)
        if waited:  # the deadline passes while no manager runs
            transport.model.tick(waited)
        successor = loop_on(transport, store, 8)
        successor.start()
        consistent(successor)
        for _ in range(8):
            successor.step()
        consistent(successor)


class DyingStore(MemoryStore):
    """A store whose process ends before or after its n-th write."""

    def __init__(self, writes: int, *, after: bool) -> None:
        super().__init__()
        self.left, self.after = writes, after

    def intend(self, record):  # type: ignore[no-untyped-def]
        self._die(before=True)
        written = super().intend(record)
        self._die(before=False)
        return written

    def conclude(self, tag, outcome, **more):  # type: ignore[no-untyped-def]
        self._die(before=True)
        decision = super().conclude(tag, outcome, **more)
        self._die(before=False)
        return decision

    def _die(self, *, before: bool) -> None:
        if before:
            self.left -= 1
        if self.left < 0 and before != self.after:
            raise Death


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("writes", range(5))
def test_restart_after_death_at_every_store_write(writes: int, after: bool) -> None:
    transport, store = ModelTransport(busy), DyingStore(writes, after=after)
    control = loop_on(transport, store, 7)
    with pytest.raises(Death):
        run(control, 12)
    store.left = 1 << 30
    successor = loop_on(transport, store, 8)
    successor.start()
    consistent(successor)


def awaiting_loop(transport: ModelTransport, store: Store) -> ControlLoop:
    """A loop whose commit awaits confirmation."""
    control = loop_on(transport, store, 7)
    control.start()
    while not control.awaiting:
        control.step()
    return control


def test_unconfirmed_table_is_rolled_back_and_its_record_says_why() -> None:
    transport, store = ModelTransport(busy), MemoryStore()
    control = awaiting_loop(transport, store)
    tag, before = control.tag, control.store.records()[0].before
    found = loop_on(transport, store, 8).start()
    assert found.rolled_back
    assert found.active.same_table(before)
    record = store.record(tag)
    assert record is not None
    assert record.decision.outcome is Outcome.ROLLED_BACK
    assert "before it was confirmed" in record.decision.detail


def test_table_confirmed_on_the_device_only_is_confirmed_in_the_store() -> None:
    transport, store = ModelTransport(busy), MemoryStore()
    control = awaiting_loop(transport, store)
    control.driver.confirm()
    found = loop_on(transport, store, 8).start()
    assert not found.rolled_back
    assert found.tag == control.tag
    assert [d.outcome for d in found.settled] == [Outcome.CONFIRMED]


def test_table_rolled_back_by_the_deadline_is_recorded_so() -> None:
    transport, store = ModelTransport(busy), MemoryStore()
    control = awaiting_loop(transport, store)
    transport.model.tick(10_000_000)
    found = loop_on(transport, store, 8).start()
    assert [(d.tag, d.outcome) for d in found.settled] == [(control.tag, Outcome.ROLLED_BACK)]
    assert "deadline" in found.settled[0].detail


def test_device_reset_meanwhile_gets_the_configured_table_again() -> None:
    transport, store = ModelTransport(busy), MemoryStore()
    awaiting_loop(transport, store)
    transport.reset()
    successor = loop_on(transport, store, 8)
    found = successor.start()
    assert [d.outcome for d in found.settled] == [Outcome.ABANDONED]
    assert not found.known
    consistent(successor)
    assert {r.weight for r in successor.active.rows} == {LIMITS.weight_capacity // 4}


def test_table_of_another_store_is_replaced_and_never_taken_for_ones_own() -> None:
    transport = ModelTransport(busy)
    loop_on(transport, MemoryStore(), 7).start()
    transport.model.active_table[1]["weight"] = 1234
    successor = loop_on(transport, MemoryStore(), 8)
    successor.start()
    consistent(successor)
    assert "not of this store" in successor.store.records()[0].decision.reason


@pytest.mark.parametrize("confirmed", [False, True])
def test_tag_that_two_stores_gave_is_told_apart_by_the_table(confirmed: bool) -> None:
    # Both stores count from 1, and the decision with the tag in force is another one in each.
    mine, foreign = MemoryStore(), MemoryStore()
    elsewhere = awaiting_loop(ModelTransport(busy), mine)
    if confirmed:
        elsewhere.settle_early("done")
    transport = ModelTransport(busy)
    control = awaiting_loop(transport, foreign)
    control.settle_early("done")
    transport.model.active_table[2]["weight"] += 1
    successor = loop_on(transport, mine, 8)
    assert elsewhere.tag == control.tag
    found = successor.start()
    assert not found.known
    assert [d.outcome for d in found.settled] == ([] if confirmed else [Outcome.ROLLED_BACK])
    consistent(successor)


def test_old_manager_can_do_nothing_after_the_new_one_started() -> None:
    transport, store = ModelTransport(busy), MemoryStore()
    old = awaiting_loop(transport, store)
    new = loop_on(transport, store, 8)
    new.start()
    transport.model.held["token"] = 7  # what the old one would write
    assert transport.model.command("confirm") == (3, 0)
    assert new.driver.read_active().same_table(new.active)
    assert not old.active.same_table(new.active)


def test_requests_survive_a_restart(tmp_path: Path) -> None:
    from offload_manager.api import ResourceRequest
    from offload_manager.requests import handle
    transport, store = ModelTransport(busy), SqliteStore(tmp_path / "store.db")
    control = loop_on(transport, store, 7)
    control.start()
    answer = handle(control, ResourceRequest.model_validate(
        {"tenant": 3, "resource": "pages", "direction": "more", "amount": 5}))
    assert answer.granted
    store.close()
    successor = loop_on(transport, SqliteStore(tmp_path / "store.db"), 8)
    successor.start()
    assert successor.profiles[3].guarantee.pages == 5
    assert successor.driver.read_guarantees()[3].pages == 5
