"""`Transaction`: carries out the commands of the allocation transaction, and swaps the banks.

A command is taken in the cycle of `command` and waits for the one before it; `full` says that one waits already.
Begin ends with the copy; a commit is in force tenants + 6 cycles after `command`, 3 if the table was checked; other
commands end within that. A change of the allocation is one cycle: `active_bank`, `epoch`, `sum_pages` and
`active_tag` change together, `changed` is high in the first cycle under the new table. A guarantee that is
written before that is honoured: the check begins again. The token and the base epoch are compared again in
the cycle of the change, so that an owner who is deposed meanwhile changes nothing.
"""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .allocation import BANKS
from .checker import Result
from .table import SUM_WIDTH

__all__ = ["Command", "Phase", "Transaction"]


class Command(enum.Enum, shape=unsigned(4)):
    """`rm.command.op` of the register map."""

    BEGIN = 1
    CHECK = 2
    COMMIT = 3
    CONFIRM = 4
    ROLL_BACK = 5
    ABANDON = 6


class Phase(enum.Enum, shape=unsigned(3)):
    """`rm.status.state` of the register map."""

    IDLE = 0
    COPYING = 1
    STAGING = 2
    AWAITING = 3


class Transaction(wiring.Component):
    """The state machine behind `rm.command`.

    command, op: strobe and number of a command; full: another cannot be taken.
    owned: the caller's token is the owner's. base_epoch, confirm_within, staged_tag: registers of the caller.
    copy, copying: to the table. check, checked, check_result, check_row: to the checker.
    invalidate: strobe: a staged row or a guarantee changes; what was checked is no longer.
    locked: staged rows must not change, because a command waits or a check is under way.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "command": In(1),
            "op": In(4),
            "full": Out(1),
            "owned": In(1),
            "base_epoch": In(8),
            "confirm_within": In(32),
            "staged_tag": In(32),
            "draining": In(1),
            "cycle": In(64),
            "copy": Out(1),
            "copying": In(1),
            "check": Out(1),
            "check_done": In(1),
            "check_result": In(Result),
            "check_row": In(8),
            "invalidate": In(1),
            "staged_pages": In(SUM_WIDTH),
            "staged": Out(1),
            "locked": Out(1),
            "staging_bank": Out(range(BANKS), init=2),
            "active_bank": Out(range(BANKS), init=0),
            "epoch": Out(8),
            "sum_pages": Out(range(config.pages + 1), init=config.pages),
            "active_tag": Out(32),
            "changed": Out(1),
            "phase": Out(Phase),
            "busy": Out(1),
            "result": Out(Result),
            "row": Out(8),
            "confirm_left": Out(32),
            "changed_at": Out(32),
            "commits": Out(32),
            "rollbacks": Out(32),
            "refused": Out(32),
            "expired": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        self._declare()
        m.d.comb += [
            self.full.eq(self._waiting & ~self._taking),
            self.staged.eq((self.phase == Phase.COPYING) | (self.phase == Phase.STAGING)),
            self.busy.eq(self.command | self._waiting | self._running | (self.phase == Phase.COPYING)),
            self.locked.eq(self.command | self._waiting | self._running),
        ]
        with m.If(self.command):
            m.d.sync += [self._waiting.eq(1), self._op.eq(self.op)]
        with m.If((self.phase == Phase.COPYING) & ~self.copying):
            m.d.sync += self.phase.eq(Phase.STAGING)
        with m.If(self.invalidate):
            m.d.sync += self._is_checked.eq(0)
        self._elaborate_deadline(m)
        with m.FSM() as fsm:
            # Nothing is under way: take the command that waits, once the copy is complete.
            with m.State("READY"):
                with m.If(self._waiting & (self.phase != Phase.COPYING) & ~self._expiring):
                    m.d.comb += self._taking.eq(1)
                    m.d.sync += self._waiting.eq(0)
                    self._elaborate_dispatch(m)
            # The checker runs; a guarantee that changes meanwhile starts it again.
            with m.State("CHECK"):
                with m.If(self.invalidate):
                    m.d.comb += self.check.eq(1)
                with m.Elif(self.check_done):
                    self._elaborate_verdict(m)
            # The staged table is checked: change to it, unless something came in between.
            with m.State("CHANGE"):
                with m.If(self.invalidate | ~self._is_checked):
                    m.d.comb += self.check.eq(1)
                    m.next = "CHECK"
                with m.Else():
                    self._elaborate_commit(m)
                    m.next = "READY"
        m.d.comb += self._running.eq(~fsm.ongoing("READY"))
        self._elaborate_change(m)
        return m

    def _declare(self):
        self._waiting = Signal()
        self._taking = Signal()
        self._op = Signal(4)
        self._running = Signal()
        self._committing = Signal()
        self._is_checked = Signal()
        self._expiring = Signal()
        # The change of this cycle, visible in the next one.
        self._commit = Signal()
        self._roll_back = Signal()
        self._previous_bank = Signal(range(BANKS), init=1)
        self._previous_pages = Signal.like(self.sum_pages)
        self._previous_tag = Signal(32)

    def _answer(self, m, result, row=0):
        m.d.sync += [self.result.eq(result), self.row.eq(row)]
        if result is not Result.OK:
            m.d.sync += self.refused.eq(self.refused + 1)

    def _elaborate_dispatch(self, m):
        """Refuse the command that waits, or start on it."""
        allowed = {
            Command.BEGIN: (Phase.IDLE, self._elaborate_begin),
            Command.CHECK: (Phase.STAGING, self._elaborate_check),
            Command.COMMIT: (Phase.STAGING, self._elaborate_check),
            Command.CONFIRM: (Phase.AWAITING, self._elaborate_confirm),
            Command.ROLL_BACK: (Phase.AWAITING, self._elaborate_roll_back),
            Command.ABANDON: (Phase.STAGING, self._elaborate_abandon),
        }
        with m.Switch(self._op):
            for command, (phase, start) in allowed.items():
                with m.Case(command):
                    with m.If(~self.owned):
                        self._answer(m, Result.STALE_TOKEN)
                    with m.Elif(self.phase != phase):
                        self._answer(m, Result.WRONG_STATE)
                    with m.Else():
                        start(m)
            with m.Default():
                self._answer(m, Result.UNKNOWN_COMMAND)

    def _elaborate_begin(self, m):
        m.d.comb += self.copy.eq(1)
        m.d.sync += [self.phase.eq(Phase.COPYING), self._is_checked.eq(0)]
        self._answer(m, Result.OK)

    def _elaborate_check(self, m):
        """Check, or the part of a commit before the change; a checked table needs no second scan."""
        is_commit = self._op == Command.COMMIT
        m.d.sync += self._committing.eq(is_commit)
        with m.If(is_commit & (self.base_epoch != self.epoch)):
            self._answer(m, Result.STALE_EPOCH)
        with m.Elif(is_commit & self._is_checked):
            m.next = "CHANGE"
        with m.Else():
            m.d.comb += self.check.eq(1)
            m.next = "CHECK"

    def _elaborate_verdict(self, m):
        m.next = "READY"
        with m.If(self.check_result != Result.OK):
            self._answer(m, self.check_result, self.check_row)
        with m.Else():
            m.d.sync += self._is_checked.eq(1)
            with m.If(self._committing):
                m.next = "CHANGE"
            with m.Else():
                self._answer(m, Result.OK)

    def _elaborate_commit(self, m):
        """The cycle that decides."""
        with m.If(~self.owned):
            self._answer(m, Result.STALE_TOKEN)
        with m.Elif(self.base_epoch != self.epoch):
            self._answer(m, Result.STALE_EPOCH)
        with m.Elif(self.draining):
            self._answer(m, Result.BUSY_DRAINING)
        with m.Else():
            m.d.comb += self._commit.eq(1)
            m.d.sync += self.commits.eq(self.commits + 1)
            self._answer(m, Result.OK)

    def _elaborate_confirm(self, m):
        m.d.sync += [self.phase.eq(Phase.IDLE), self.confirm_left.eq(0)]
        self._answer(m, Result.OK)

    def _elaborate_roll_back(self, m):
        m.d.comb += self._roll_back.eq(1)
        self._answer(m, Result.OK)

    def _elaborate_abandon(self, m):
        m.d.sync += self.phase.eq(Phase.IDLE)
        self._answer(m, Result.OK)

    def _elaborate_deadline(self, m):
        """Count down to the deadline; the cycle after the last one restores the previous table."""
        m.d.comb += self._expiring.eq((self.phase == Phase.AWAITING) & (self.confirm_left == 0))
        with m.If(self._expiring):
            m.d.comb += self._roll_back.eq(1)
            m.d.sync += self.expired.eq(self.expired + 1)
        with m.Elif(self.phase == Phase.AWAITING):
            m.d.sync += self.confirm_left.eq(self.confirm_left - 1)

    def _elaborate_change(self, m):
        """Swap the roles of the banks, and with them all that belongs to a table."""
        m.d.sync += self.changed.eq(self._commit | self._roll_back)
        with m.If(self._commit | self._roll_back):
            m.d.sync += [
                self.epoch.eq(self.epoch + 1),
                self.changed_at.eq(self.cycle + 1),
                self._previous_bank.eq(self.active_bank),
                self._previous_pages.eq(self.sum_pages),
                self._previous_tag.eq(self.active_tag),
            ]
        with m.If(self._commit):
            m.d.sync += [
                self.active_bank.eq(self.staging_bank),
                self.staging_bank.eq(self._previous_bank),
                self.sum_pages.eq(self.staged_pages),
                self.active_tag.eq(self.staged_tag),
                self.confirm_left.eq(self.confirm_within),
                self.phase.eq(Mux(self.confirm_within == 0, Phase.IDLE, Phase.AWAITING)),
            ]
        with m.If(self._roll_back):
            m.d.sync += [
                self.active_bank.eq(self._previous_bank),
                self.sum_pages.eq(self._previous_pages),
                self.active_tag.eq(self._previous_tag),
                self.confirm_left.eq(0),
                self.phase.eq(Phase.IDLE),
                self.rollbacks.eq(self.rollbacks + 1),
            ]
