"""`RuleTable`: the reflex rules: from the analyzer's figures to rows stored for the transaction, without software.

Contract: from the strobe of a figure that makes a single rule due to the first cycle under its table it takes
18 cycles when nothing holds the rules, and one more for every other rule in the same table: 33 for sixteen; one more
for each of them whose row is stored over that of the rule before; tenants + 3 more if a guarantee was written after the
change before. See
`rules.py` for when a rule is due, `reflex.py` for what several do together, `rulestore.py` for the registers,
`transaction.py` for what holds the rules back.

`pending` keeps a bit for every rule that fired until software acknowledges it by a write; a firing in the same cycle
stays. `fired` is high for one cycle when rules fired.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..analyzer.figures import AnalyzerFigures
from ..config import DeviceConfig
from ..csr import regmap
from ..csr.bus import CsrSignature
from .reflex import Reflex, RulesRowSignature
from .rules import RuleEvaluator
from .rulestore import RuleStore
from .transaction import RulesSignature

__all__ = ["RuleTable"]


class RuleTable(wiring.Component):
    """All rules of one device.

    rule, prepared: bus ports. acknowledge: bits of `pending` to clear, in the cycle of `acknowledged`.
    waiting: rules that are due. transaction, tag, table: of `Reflex`.
    """

    def __init__(self, config: DeviceConfig):
        self._config, self._rules = config, config.rules
        rules = config.rules
        super().__init__({
            "rule": In(CsrSignature(regmap.WORD_ADDRESS_WIDTH)),
            "prepared": In(CsrSignature(regmap.WORD_ADDRESS_WIDTH)),
            "figures": In(AnalyzerFigures(config)),
            "acknowledged": In(1),
            "acknowledge": In(rules),
            "pending": Out(rules),
            "waiting": Out(rules),
            "fired": Out(1),
            "firings": Out(32),
            "refused": Out(32),
            "epoch": In(8),
            "cycle": In(64),
            "transaction": Out(RulesSignature()),
            "tag": Out(32),
            "table": Out(RulesRowSignature(config)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.evaluator = evaluator = RuleEvaluator(self._config)
        m.submodules.registers = registers = RuleStore(self._config)
        m.submodules.reflex = reflex = Reflex(self._config)
        connect(m, flipped(self.rule), registers.rule)
        connect(m, flipped(self.prepared), registers.prepared)
        connect(m, flipped(self.figures), evaluator.figures)
        m.d.comb += [
            evaluator.watch.eq(registers.watch),
            evaluator.rewritten.eq(registers.rewritten),
            registers.setting_of.eq(evaluator.setting_of),
            evaluator.setting.eq(registers.setting),
            reflex.due.eq(evaluator.due),
            reflex.idle.eq(evaluator.idle),
            registers.target_of.eq(reflex.target_of),
            reflex.target.eq(registers.target),
            registers.row_of.eq(reflex.row_of),
            reflex.prepared.eq(registers.row),
            self.waiting.eq(evaluator.due),
            self.fired.eq(reflex.fired.any()),
        ]
        m.d.comb += [getattr(evaluator, name).eq(getattr(reflex, name)) for name in ("take", "again", "busy", "fired")]
        m.d.comb += [getattr(registers, name).eq(getattr(reflex, name))
                     for name in ("log", "log_rule", "log_cycle", "log_outcome")]
        m.d.comb += [getattr(reflex, name).eq(getattr(self, name))
                     for name in ("epoch", "cycle")]
        m.d.comb += [getattr(self, name).eq(getattr(reflex, name)) for name in ("firings", "refused", "tag")]
        connect(m, reflex.transaction, flipped(self.transaction))
        connect(m, reflex.table, flipped(self.table))
        m.d.sync += self.pending.eq(
            (self.pending & ~Mux(self.acknowledged, self.acknowledge, 0)) | reflex.fired)
        return m
