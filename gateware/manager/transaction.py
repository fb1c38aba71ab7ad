"""`Transaction`: carries out the allocation transaction, for software's commands and for reflex rules.

A command is taken in the cycle of `command` and waits for what is under way; `full` says that one waits already.
A commit is in force 6 cycles after `command`, 3 if the table was checked, tenants + 9 if the check has to scan (see
`checker.py`); other commands end within that, a begin once the staging bank equals the active one (tenants + 3 cycles
after a change). Rules act only while nothing is staged, nothing awaits confirmation, no command waits and no packet of
an older epoch is in flight; their table takes the same check and the same change. A guarantee that is written before
the change is honoured: the check begins again. The token and the base epoch of a command are compared again in the
cycle of the change, so that an owner who is deposed meanwhile changes nothing.
"""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from .checker import Result

__all__ = ["Command", "Phase", "RulesSignature", "Transaction"]


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


class RulesSignature(wiring.Signature):
    """How reflex rules take part in the transaction, seen from the rules.

    due: a rule wants to act. storing: they may store rows. stored: strobe, all are stored, or there is none (`none`),
    or the target of one does not exist (`unknown`, and `row`). done: strobe a cycle after its end, with `result`,
    `result_row`.
    """

    def __init__(self):
        super().__init__({
            "due": Out(1),
            "storing": In(1),
            "stored": Out(1),
            "none": Out(1, init=1),
            "unknown": Out(1),
            "row": Out(8),
            "done": In(1),
            "result": In(Result),
            "result_row": In(8),
        })


class Transaction(wiring.Component):
    """The state machine behind `rm.command`.

    command, op: strobe and number of a command; full: another cannot be taken.
    owned: the caller's token is the owner's; current: its base epoch is that of the table in force; both a cycle late:
        not `settled`: something that they depend on was written, decide in the next cycle.
    confirm_within: register of the caller.
    changed: another table is in force. draining: packets of other epochs are in flight.
    refresh, copying: to the table: make the staging bank equal to the active one, a cycle after what is staged was
        dropped.
    check, check_done, check_result, check_row: to the checker.
    row_changed, guarantee_changed: strobes: what was checked is no longer. A row changes only while not `locked`.
    locked: staged rows must not change, because a command waits or a check is under way.
    rules: see `RulesSignature`. rules_confirm_within: as for commands.
    commit, roll_back: the change of this cycle, visible in the next one; for_rules: it is the rules'.
    commits, rollbacks, refused, expired: since reset, counted a cycle after the change or the answer.
    """

    def __init__(self):
        super().__init__({
            "command": In(1),
            "op": In(4),
            "full": Out(1),
            "owned": In(1),
            "settled": In(1),
            "current": In(1),
            "confirm_within": In(32),
            "changed": In(1),
            "draining": In(1),
            "refresh": Out(1),
            "copying": In(1),
            "check": Out(1),
            "check_done": In(1),
            "check_result": In(Result),
            "check_row": In(8),
            "row_changed": In(1),
            "guarantee_changed": In(1),
            "rules": In(RulesSignature()),
            "rules_confirm_within": In(32),
            "commit": Out(1),
            "roll_back": Out(1),
            "for_rules": Out(1),
            "staged": Out(1),
            "locked": Out(1),
            "phase": Out(Phase),
            "busy": Out(1),
            "result": Out(Result),
            "row": Out(8),
            "confirm_left": Out(32),
            **dict.fromkeys(("commits", "rollbacks", "refused", "expired"), Out(32)),
        })

    def elaborate(self, platform):
        m = Module()
        self._declare()
        m.d.comb += [
            self.full.eq(self._waiting),
            self.staged.eq((self.phase == Phase.COPYING) | (self.phase == Phase.STAGING)),
            self.busy.eq(self.command | self._waiting | (self._running & ~self.for_rules)
                         | (self.phase == Phase.COPYING)),
            self.locked.eq(self.command | self._waiting | self._running),
            self.refresh.eq(self.changed | self._restore),
        ]
        with m.If(self.command):
            m.d.sync += [self._waiting.eq(1), self._op.eq(self.op)]
        with m.If((self.phase == Phase.COPYING) & ~self.copying & ~self.refresh):
            m.d.sync += self.phase.eq(Phase.STAGING)
        with m.If(self.row_changed | self.guarantee_changed):
            m.d.sync += self._is_checked.eq(0)
        self._elaborate_deadline(m)
        m.d.sync += [self._restore.eq(0), self.rules.done.eq(0)]
        with m.FSM() as fsm:
            # Nothing is under way: take the command that waits, once the copy is complete; else rules that are due.
            with m.State("READY"):
                with m.If(self._waiting & (self.phase != Phase.COPYING) & ~self._expiring & self.settled):
                    m.d.sync += self._waiting.eq(0)
                    self._elaborate_dispatch(m)
                with m.Elif(self.rules.due & ~self._waiting & (self.phase == Phase.IDLE)
                            & ~self.refresh & ~self.copying & ~self.draining):
                    m.d.sync += [self.for_rules.eq(1), self._committing.eq(1), self._is_checked.eq(0)]
                    m.next = "STORE"
            # The rules store their rows into the staging bank.
            with m.State("STORE"):
                m.d.comb += self.rules.storing.eq(1)
                with m.If(self.rules.stored & self.rules.unknown):
                    self._answer(m, Result.UNKNOWN_TENANT, self.rules.row)
                    m.next = "READY"
                with m.Elif(self.rules.stored & self.rules.none):
                    m.d.sync += self.for_rules.eq(0)
                    m.next = "READY"
                with m.Elif(self.rules.stored):
                    m.d.comb += self.check.eq(1)
                    m.next = "CHECK"
            # The checker runs; a guarantee that changes meanwhile starts it again.
            with m.State("CHECK"):
                with m.If(self.guarantee_changed):
                    m.d.comb += self.check.eq(1)
                with m.Elif(self.check_done):
                    self._elaborate_verdict(m)
            # The staged table is checked: change to it, unless something came in between.
            with m.State("CHANGE"):
                with m.If(self.guarantee_changed | ~self._is_checked):
                    m.d.comb += self.check.eq(1)
                    m.next = "CHECK"
                with m.Elif(self.settled):
                    self._elaborate_commit(m)
                    m.next = "READY"
        m.d.comb += self._running.eq(~fsm.ongoing("READY"))
        self._elaborate_change(m)
        self._elaborate_counts(m)
        return m

    def _declare(self):
        self._waiting = Signal()
        self._op = Signal(4)
        self._running = Signal()
        self._committing = Signal()
        self._is_checked = Signal()
        self._expiring = Signal()   # a change awaits confirmation, and `confirm_left` is 0
        self._refusing = Signal()
        self._restore = Signal()   # what is staged was dropped in the cycle before

    def _answer(self, m, result, row=0):
        """How a command or the rules' transaction ends. A refused table of rules is dropped at once."""
        with m.If(self.for_rules):
            m.d.sync += [
                self.rules.done.eq(1),
                self.rules.result.eq(result),
                self.rules.result_row.eq(row),
                self._restore.eq(0 if result is Result.OK else 1),
                self.for_rules.eq(0),
            ]
        with m.Else():
            m.d.sync += [self.result.eq(result), self.row.eq(row)]
            if result is not Result.OK:
                m.d.comb += self._refusing.eq(1)

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
        m.d.sync += [self.phase.eq(Phase.COPYING), self._is_checked.eq(0)]
        self._answer(m, Result.OK)

    def _elaborate_check(self, m):
        """Check, or the part of a commit before the change; a checked table needs no second scan."""
        is_commit = self._op == Command.COMMIT
        m.d.sync += self._committing.eq(is_commit)
        with m.If(is_commit & ~self.current):
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
        with m.If(~self.for_rules & ~self.owned):
            self._answer(m, Result.STALE_TOKEN)
        with m.Elif(~self.for_rules & ~self.current):
            self._answer(m, Result.STALE_EPOCH)
        with m.Elif(self.draining):
            self._answer(m, Result.BUSY_DRAINING)
        with m.Else():
            m.d.comb += self.commit.eq(1)
            self._answer(m, Result.OK)

    def _elaborate_confirm(self, m):
        m.d.sync += [self.phase.eq(Phase.IDLE), self.confirm_left.eq(0), self._expiring.eq(0)]
        self._answer(m, Result.OK)

    def _elaborate_roll_back(self, m):
        m.d.comb += self.roll_back.eq(1)
        self._answer(m, Result.OK)

    def _elaborate_abandon(self, m):
        m.d.sync += [self._restore.eq(1), self.phase.eq(Phase.IDLE)]
        self._answer(m, Result.OK)

    def _elaborate_deadline(self, m):
        """Count down to the deadline; the cycle after the last one restores the previous table."""
        with m.If(self._expiring):
            m.d.comb += self.roll_back.eq(1)
        with m.Elif(self.phase == Phase.AWAITING):
            m.d.sync += [self.confirm_left.eq(self.confirm_left - 1), self._expiring.eq(self.confirm_left == 1)]

    def _elaborate_change(self, m):
        """The phase that a change leads to."""
        confirm_within = Signal.like(self.confirm_within)
        m.d.comb += confirm_within.eq(Mux(self.for_rules, self.rules_confirm_within, self.confirm_within))
        with m.If(self.commit):
            m.d.sync += [
                self.confirm_left.eq(confirm_within),
                self.phase.eq(Mux(confirm_within == 0, Phase.IDLE, Phase.AWAITING)),
            ]
        with m.If(self.roll_back):
            m.d.sync += [self.confirm_left.eq(0), self._expiring.eq(0), self.phase.eq(Phase.IDLE)]

    def _elaborate_counts(self, m):
        """Counted a cycle later, by strobes of their own: the one of a change reaches far enough."""
        counts = {"commits": self.commit, "rollbacks": self.roll_back, "expired": self._expiring,
                  "refused": self._refusing}
        for name, event in counts.items():
            happened, count = Signal(name=f"{name}_happened"), getattr(self, name)
            m.d.sync += happened.eq(event)
            with m.If(happened):
                m.d.sync += count.eq(count + 1)
