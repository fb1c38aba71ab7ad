"""After a start: make device and store agree, whatever instant the manager before died at.

The store wrote every intent before its commit, with the epoch on which it was decided; the device keeps the tag of
the table in force and counts epochs up at every change. Together they tell for each unsettled decision whether it
never reached the device, is in force unconfirmed, was confirmed, or was rolled back. An unconfirmed table is rolled
back: nobody measured what it did. A table that the device's own rules committed is no foreign writer's: it is recorded
with the rules that fired, and stays.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from morphnic.errors import AllocationRefused
from offload_manager.allocation import Allocation, diff
from offload_manager.api import Decision, Outcome
from offload_manager.driver import AllocationDriver, ManagerState, Phase
from offload_manager.reflex import ReflexRules, rules_of
from offload_manager.report import row_changes
from offload_manager.store import Record, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found and done. `active` and `tag` are in force now; `known`: this store has the decision."""

    active: Allocation
    tag: int
    known: bool
    rolled_back: bool
    settled: list[Decision] = field(default_factory=list)


def reconcile(driver: AllocationDriver, store: Store) -> Reconciled:
    """Fence the manager before, then settle the device, then the store."""
    driver.claim()
    driver.abandon()
    found = driver.state()
    rolled_back = False
    if found.phase is Phase.AWAITING:
        rolled_back = _roll_back(driver)
    state, active = driver.state(), driver.read_active()
    boot_nonce = driver.device.identity.boot_nonce
    settled = [
        _settle(record, found, state, active, boot_nonce, store) for record in store.unsettled()
    ]
    known = store.record(state.active_tag) if state.active_tag else None
    is_known = (known is not None and known.boot_nonce == boot_nonce and known.after.same_table(active))
    rules = rules_of(state.active_tag)
    if rules and not _is_recorded(store, active, boot_nonce):
        record_rules(driver, store, rules, _last_known(store, active), active, 0)
    for decision in settled:
        log.warning("decision %d of the manager before: %s: %s", decision.id, decision.outcome, decision.detail)
    return Reconciled(active=active, tag=state.active_tag, known=is_known or bool(rules),
                      rolled_back=rolled_back, settled=settled)


def record_rules(driver: AllocationDriver, store: Store, rules: tuple[int, ...], before: Allocation,
                 active: Allocation, window: int) -> Decision:
    """Record a table that the device's rules committed, with what they watched; confirm it if the device waits."""
    reflex = ReflexRules(driver.device)
    firings = reflex.firings()
    texts = []
    for number in rules:
        rule = reflex.installed(number)
        texts.append(f"rule {number}: {rule if rule is not None else 'disabled since'}")
    decision = Decision.model_validate({
        "id": 0, "tag": 0, "window": window, "source": "rule", "policy": "rules", "reason": "; ".join(texts),
        "outcome": Outcome.PENDING, "base_epoch": before.epoch,
        "changes": [change.model_dump() for change in row_changes(diff(before, active))],
        "timing": {"window_cycle": 0}})
    record = store.intend(Record(decision, before, active, driver.device.identity.boot_nonce))
    if driver.state().phase is Phase.AWAITING:
        driver.confirm()
    reflex.acknowledge(firing.number for firing in firings)
    return store.conclude(record.decision.tag, Outcome.CONFIRMED, epoch=active.epoch,
                          detail="; ".join(str(firing) for firing in firings))


def _is_recorded(store: Store, active: Allocation, boot_nonce: int) -> bool:
    newest = store.records(limit=1)
    return bool(newest) and newest[0].boot_nonce == boot_nonce and newest[0].decision.source == "rule" \
        and newest[0].after.same_table(active) and newest[0].decision.epoch == active.epoch


def _last_known(store: Store, active: Allocation) -> Allocation:
    """The newest table of the store that came into force; the active one when there is none of that size."""
    for record in store.records(limit=100):
        in_force = record.decision.outcome is Outcome.CONFIRMED
        if in_force and len(record.after.rows) == len(active.rows):
            return record.after
    return active


def _roll_back(driver: AllocationDriver) -> bool:
    """Roll back, unless the deadline did it in the meantime."""
    before = driver.state()
    if before.phase is Phase.AWAITING:
        try:
            driver.roll_back()
        except AllocationRefused:
            if driver.state().phase is Phase.AWAITING:
                raise
    return True


def _settle(record: Record, found: ManagerState, state: ManagerState, active: Allocation, boot_nonce: int,
            store: Store) -> Decision:
    """Write how one decision ended."""
    tag, base = record.decision.tag, record.decision.base_epoch
    if record.boot_nonce != boot_nonce:
        outcome, detail = Outcome.ABANDONED, "the device was reset since"
    elif found.active_tag == tag and found.phase is Phase.AWAITING:
        outcome, detail = Outcome.ROLLED_BACK, "the manager ended before it was confirmed"
    elif state.active_tag == tag and active.same_table(record.after):
        outcome, detail = Outcome.CONFIRMED, "in force and confirmed when the manager started again"
    elif rules_of(state.active_tag) and record.decision.outcome is Outcome.AWAITING:
        outcome, detail = Outcome.ABANDONED, "rules changed the table since; whether it was confirmed is not known"
    elif state.epoch == base and record.decision.outcome is Outcome.PENDING:
        outcome, detail = Outcome.ABANDONED, "the manager ended before the commit reached the device"
    else:
        outcome, detail = Outcome.ROLLED_BACK, "not confirmed by its deadline while no manager ran"
    return store.conclude(tag, outcome, detail=detail, epoch=state.epoch)
