"""`Reflex`: carries the rules that are due into the allocation, by the same transaction as software's.

Contract: while `storing` is high, the prepared rows of the rules that are due are stored over those of their target
tenants, one in two cycles; `stored` is high in the cycle in which none is
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
        """Fetch a rule's row and target; take it and ask for the row that it replaces; store its own while the next one
        is fetched.

        Which is next is known a cycle ahead; it is passed over if it is no longer due.
        """
        fetches, asks, second = Signal(), Signal(), Signal()
        others, target = Signal(self._rules), Signal.like(self.target, name="fetched_target")
        is_known = Signal()
        goes_on = Signal()
        m.d.comb += [
            others.eq(self.due & ~Mux(asks, 1 << self.row_of, 0)),
            self.table.scan_tenant.eq(target),
            self.table.store.eq(second),
            goes_on.eq(self.transaction.storing & ~self.transaction.unknown & ~(one_by_one & ~self.transaction.none)),
        ]
        m.d.sync += [
            fetches.eq(goes_on & ~fetches & self.due.any()),
            asks.eq(fetches),
            second.eq(0),
            self.transaction.unknown.eq(0),
        ]
        with m.If(fetches):
            m.d.sync += [
                target.eq(self.target),
                is_known.eq(self.target < self._config.tenants),
                self.table.new.eq(self.prepared),
            ]
        with m.Else():
            m.d.sync += self.row_of.eq(lowest(m, others, "next_rule"))
        with m.If(asks & goes_on & self.due.bit_select(self.row_of, 1)):
            m.d.comb += self.take.eq(1 << self.row_of)
            m.d.sync += [
                taken.eq(taken | self.take),
                self.transaction.none.eq(0),
                is_several.eq(~self.transaction.none),
                second.eq(is_known),
                self.transaction.unknown.eq(~is_known),
                self.transaction.row.eq(target),
                self.table.store_tenant.eq(target),
            ]
        with m.If(self.transaction.unknown):
            m.d.comb += self.transaction.stored.eq(1)
        with m.Elif(self.transaction.storing & ~fetches & ~asks & ~second & (~goes_on | ~self.due.any())):
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
