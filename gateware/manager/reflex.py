"""`Reflex`: carries the rules that are due into the allocation, by the same transaction as software's.

Contract: while `storing` is high, the prepared rows of the rules that are due are stored over those of their target
tenants, a cycle a row, two if it replaces the row stored just before; `stored` is high in the cycle in which none is
left and no figure waits to be evaluated, with `none` if all of them were withdrawn. All of these rules are one table:
one check, one change. If two of them have the same target, the row stored later holds: of rules that watch the same
figure, that of the highest number. A target that does not exist ends the transaction at once (`unknown`).

When the transaction is `done`, each of its rules has fired: it is recorded with the result, a cycle a rule, and
disarmed. A table of *several* rules that is refused is no firing yet: its rules are due again, one a transaction,
so that one bad row does not stop the others.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .allocation import AllocationRow
from .checker import Result
from .rules import lowest
from .rulestore import RuleOutcome
from .transaction import RulesSignature

__all__ = ["RULES_TAG", "Reflex", "RulesRowSignature"]

#: Tag of a table that rules committed; bits 15..0 say which.
RULES_TAG = 0xFFFF_0000


class RulesRowSignature(wiring.Signature):
    """Rows that rules store, seen from the rules.

    scan_tenant: row asked for, before it is replaced. store, store_tenant, new: see `AllocationTable`.
    """

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "scan_tenant": Out(range(config.tenants)),
            "store": Out(1),
            "store_tenant": Out(range(config.tenants)),
            "new": Out(AllocationRow),
        })


class Reflex(wiring.Component):
    """Between the rules, the transaction and the table.

    transaction: see `RulesSignature`.
    tag: of the table that these rules would commit.
    due, idle, take, again, busy, fired: see `RuleEvaluator`. row_of, prepared, target, log...: see `RuleStore`.
    table: see `RulesRowSignature`.
    epoch, cycle: of the device, for the records. firings, refused: since reset.
    """

    def __init__(self, config: DeviceConfig):
        self._config, self._rules = config, config.rules
        rules = config.rules
        super().__init__({
            "transaction": Out(RulesSignature()),
            "tag": Out(32),
            "due": In(rules),
            "idle": In(1),
            "take": Out(rules),
            "again": Out(rules),
            "busy": Out(rules),
            "fired": Out(rules),
            "row_of": Out(range(rules)),
            "prepared": In(AllocationRow),
            "target": In(6),
            "log": Out(1),
            "log_rule": Out(range(rules)),
            "log_cycle": Out(32),
            "log_outcome": Out(RuleOutcome),
            "table": Out(RulesRowSignature(config)),
            "epoch": In(8),
            "cycle": In(64),
            "firings": Out(32),
            "refused": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        taken = Signal(self._rules)      # of the table that is being made
        logging = Signal(self._rules)    # fired, and not recorded yet
        one_by_one = Signal()            # after several were refused
        m.d.comb += [
            self.transaction.due.eq(self.due.any() & ~logging.any()),
            self.transaction.none.eq(~taken.any()),
            self.busy.eq(taken),
            self.tag.eq(RULES_TAG | taken),
        ]
        self._elaborate_store(m, taken, one_by_one)
        self._elaborate_end(m, taken, logging, one_by_one)
        self._elaborate_records(m, logging)
        return m

    def _elaborate_store(self, m, taken, one_by_one):
        """Take a rule and ask for the row that it replaces; store its own in the next cycle.

        Which is next is known a cycle ahead; it is passed over if it is no longer due. A row that is being stored
        cannot be asked for: the sums need what it has become.
        """
        second = Signal()
        is_known = Signal()
        others = Signal(self._rules)
        m.d.comb += others.eq(self.due & ~self.take)
        m.d.sync += self.row_of.eq(lowest(m, others, "next_rule"))
        m.d.comb += [
            self.table.scan_tenant.eq(self.target),
            is_known.eq(self.target < self._config.tenants),
        ]
        m.d.sync += [second.eq(0), self.transaction.unknown.eq(0)]
        is_stored_now = second & (self.target == self.table.store_tenant)
        with m.If(self.transaction.storing & ~self.transaction.unknown):
            with m.If(self.due.any() & ~(one_by_one & taken.any())):
                with m.If(~is_stored_now & self.due.bit_select(self.row_of, 1)):
                    m.d.comb += self.take.eq(1 << self.row_of)
                    m.d.sync += [
                        taken.eq(taken | self.take),
                        second.eq(is_known),
                        self.transaction.unknown.eq(~is_known),
                        self.transaction.row.eq(self.target),
                        self.table.store_tenant.eq(self.target),
                        self.table.new.eq(self.prepared),
                    ]
            with m.Elif(~second):
                m.d.comb += self.transaction.stored.eq(self.idle | one_by_one)
        m.d.comb += self.table.store.eq(second)
        with m.If(self.transaction.unknown):
            m.d.comb += self.transaction.stored.eq(1)

    def _elaborate_end(self, m, taken, logging, one_by_one):
        """Every rule of the table has fired, or each is tried alone."""
        is_refused, is_several = Signal(), Signal()
        m.d.comb += [
            is_refused.eq(self.transaction.result != Result.OK),
            is_several.eq((taken & (taken - 1)).any()),
        ]
        with m.If(self.transaction.done):
            m.d.sync += taken.eq(0)
            with m.If(is_refused & is_several):
                m.d.comb += self.again.eq(taken)
                m.d.sync += one_by_one.eq(1)
            with m.Else():
                m.d.comb += self.fired.eq(taken)
                m.d.sync += [
                    logging.eq(taken),
                    self.log_outcome.result.eq(self.transaction.result),
                    self.log_outcome.row.eq(self.transaction.result_row),
                    self.log_outcome.epoch.eq(self.epoch + ~is_refused),
                    self.log_cycle.eq(self.cycle + 1),
                ]
        with m.Elif(~self.due.any() & ~self.transaction.storing & ~taken.any()):
            m.d.sync += one_by_one.eq(0)

    def _elaborate_records(self, m, logging):
        """One record a cycle."""
        m.d.comb += [self.log.eq(logging.any()), self.log_rule.eq(lowest(m, logging, "logged_rule"))]
        with m.If(self.log):
            m.d.sync += [
                logging.eq(logging & (logging - 1)),
                self.firings.eq(self.firings + 1),
                self.refused.eq(self.refused + (self.log_outcome.result != Result.OK)),
            ]
