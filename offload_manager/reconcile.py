"""After a start: make device and store agree, whatever instant the manager before died at.

The store wrote every intent before its commit, with the epoch on which it was decided; the device keeps the tag of
the table in force and counts epochs up at every change. Together they tell for each unsettled decision whether it
never reached the device, is in force unconfirmed, was confirmed, or was rolled back. An unconfirmed table is rolled
back: nobody measured what it did.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from morphnic.errors import AllocationRefused
from offload_manager.allocation import Allocation
from offload_manager.api import Decision, Outcome
from offload_manager.driver import AllocationDriver, ManagerState, Phase
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
    for decision in settled:
        log.warning("decision %d of the manager before: %s: %s", decision.id, decision.outcome, decision.detail)
    return Reconciled(active=active, tag=state.active_tag, known=is_known, rolled_back=rolled_back,
                      settled=settled)


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
    elif state.epoch == base and record.decision.outcome is Outcome.PENDING:
        outcome, detail = Outcome.ABANDONED, "the manager ended before the commit reached the device"
    else:
        outcome, detail = Outcome.ROLLED_BACK, "not confirmed by its deadline while no manager ran"
    return store.conclude(tag, outcome, detail=detail, epoch=state.epoch)
