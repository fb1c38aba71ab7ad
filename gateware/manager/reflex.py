"""`Reflex`: carries the rules that are due into the allocation, by the same transaction as software's.

Contract: while `storing` is high, the prepared rows of the rules that are due are stored over those of their target
tenants, one a cycle from the third cycle on, and a cycle later if the one before has the same target; `stored` is high
in the cycle in which none is left and no figure waits to be evaluated, with `none` if all of them were withdrawn. All
of these rules are one table: one check, one change. If two of them have the same target, the row stored later holds: of
rules that watch the same figure, that of the highest number. A target that does not exist ends the transaction at once
(`unknown`).

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
    due, idle, take, again, busy, fired: see `RuleEvaluator`. target_of, target, row_of, log...: see `RuleStore`.
    prepared: row of the rule `row_of`.
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
            "target_of": Out(range(rules)),
            "target": In(6),
            "row_of": Out(range(rules)),
            "prepared": In(AllocationRow),
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
        is_several = Signal()            # of them were taken
        m.d.comb += [
            self.transaction.due.eq(self.due.any() & ~logging.any() & ~self.log & self.transaction.none),
            self.busy.eq(taken),
            self.tag.eq(RULES_TAG | taken),
        ]
        self._elaborate_store(m, taken, is_several, one_by_one)
        self._elaborate_records(m, logging)
        self._elaborate_end(m, taken, is_several, logging, one_by_one)
        return m

    def _elaborate_store(self, m, taken, is_several, one_by_one):
        """A rule is picked; its target is fetched; it is taken, and its own row and the one that it replaces are asked
        for; its row is stored. A cycle each, of one rule after the other.

        A rule that is no longer due when it would be taken is passed over. The row that the table is storing cannot be
        read in the same cycle: the next rule waits if it has that target, and all behind it.
        """
        picked, asked, others = (Signal(self._rules, name=name) for name in ("picked", "asked", "others"))   # bits
        is_known, second, goes_on, waits = (Signal(name=name) for name in ("is_known", "second", "goes_on", "waits"))
        target = Signal.like(self.target, name="fetched_target")
        m.d.comb += [
            goes_on.eq(self.transaction.storing & ~self.transaction.unknown & ~(one_by_one & ~self.transaction.none)),
            waits.eq(second & asked.any() & (target == self.table.store_tenant)),
            self.take.eq(asked & self.due & (goes_on & ~waits).replicate(self._rules)),
            self.table.scan_tenant.eq(target),
            self.table.store.eq(second),
            self.table.store_tenant.eq(self.transaction.row),
            # What stands in the pipeline while nothing may be stored is picked again.
            others.eq(self.due & ~Mux(goes_on, picked | asked, 0)),
        ]
        m.d.sync += [
            second.eq(self.take.any() & is_known),
            self.transaction.unknown.eq(self.take.any() & ~is_known),
            self.transaction.row.eq(target),
            self.table.new.eq(self.prepared),
        ]
        with m.If(~goes_on):
            m.d.sync += asked.eq(0)
        with m.Elif(~waits):
            m.d.sync += [
                asked.eq(picked), self.row_of.eq(self.target_of),
                target.eq(self.target), is_known.eq(self.target < self._config.tenants),
            ]
        with m.If(~goes_on | ~waits):
            m.d.sync += [picked.eq(others & -others), self.target_of.eq(lowest(m, others, "next_rule"))]
        with m.If(self.take.any()):
            m.d.sync += [
                taken.eq(taken | self.take),
                self.transaction.none.eq(0),
                is_several.eq(~self.transaction.none),
            ]
        with m.If(self.transaction.unknown):
            m.d.comb += self.transaction.stored.eq(1)
        with m.Elif(self.transaction.storing & ~second & (~goes_on | ~self.due.any())):
            m.d.comb += self.transaction.stored.eq(self.idle | one_by_one)

    def _elaborate_end(self, m, taken, is_several, logging, one_by_one):
        """Every rule of the table has fired, or each is tried alone."""
        is_refused = Signal()
        m.d.comb += is_refused.eq(self.transaction.result != Result.OK)
        with m.If(self.transaction.done):
            m.d.sync += [taken.eq(0), self.transaction.none.eq(1), is_several.eq(0)]
            with m.If(is_refused & is_several):
                m.d.comb += self.again.eq(taken)
                m.d.sync += one_by_one.eq(1)
            with m.Else():
                m.d.comb += self.fired.eq(taken)
                m.d.sync += [
                    logging.eq(taken),
                    self.log_outcome.result.eq(self.transaction.result),
                    self.log_outcome.row.eq(self.transaction.result_row),
                    self.log_outcome.epoch.eq(self.epoch),
                    self.log_cycle.eq(self.cycle),
                ]
        with m.Elif(~self.due.any() & ~self.transaction.storing & self.transaction.none):
            m.d.sync += one_by_one.eq(0)

    def _elaborate_records(self, m, logging):
        """One record a cycle; which rule's is known a cycle ahead."""
        m.d.sync += [
            self.log.eq(logging.any()), self.log_rule.eq(lowest(m, logging, "logged_rule")),
            logging.eq(logging & (logging - 1)),
        ]
        with m.If(self.log):
            m.d.sync += [
                self.firings.eq(self.firings + 1),
                self.refused.eq(self.refused + (self.log_outcome.result != Result.OK)),
            ]
