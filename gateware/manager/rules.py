"""`RuleEvaluator`: compares the analyzer's figures with the rules that watch them, and says which rules are due.

Contract, in windows, since each rule's figure comes once a window:

- A rule is due after its figure was beyond the threshold (strictly) in `hold` windows in a row, while it is armed and
  at least `interval` windows after it fired last. `due[r]` rises 9 cycles after the strobe of the figure, one later
  for every other match that is not evaluated yet, and one for every other figure.
- It stays due until it is taken (`take`), or until a later figure of it is not beyond the threshold any more: what
  had to wait is not carried out on old evidence.
- When it fired (`fired[r]`, a strobe) it is disarmed, until its figure has come back to the threshold by the
  hysteresis: a figure above must fall to threshold - hysteresis, one below must rise to threshold + hysteresis.
- `rewritten[r]` forgets all this: the rule is armed, and counts from the next figure that comes when `idle`.

No figure is lost: a match waits in a queue that holds one for each rule, and a rule has one figure a window.
"""

from amaranth import *
from amaranth.lib import data, enum, fifo, memory, wiring
from amaranth.lib.wiring import In, Out

from ..analyzer.figures import AnalyzerFigures, FigureId
from ..config import DeviceConfig

__all__ = ["Comparison", "RuleEvaluator", "RuleSetting", "RuleWatch", "lowest"]


class Comparison(enum.Enum, shape=unsigned(1)):
    """On which side of the threshold a figure makes a rule due."""

    ABOVE = 0
    BELOW = 1


class RuleWatch(data.Struct):
    """Which figure a rule watches, and whether it acts."""

    figure: FigureId
    tenant: 6
    comparison: Comparison
    enable: 1


class RuleSetting(data.Struct):
    """When a rule is due. `hold` and `interval` are in windows."""

    threshold: 32
    hysteresis: 32
    hold: 8
    interval: 16


class _State(data.Struct):
    """What a rule remembers from window to window."""

    is_armed: 1
    streak: 8    # windows in a row beyond the threshold, saturating
    left: 16     # windows until it may be due again


def lowest(m, bits, name):
    """Index of the lowest bit of `bits` that is set, as a signal; 0 if none is."""
    index = Signal(range(len(bits)), name=name)
    first = Signal(len(bits), name=f"{name}_alone")
    m.d.comb += [
        first.eq(bits & -bits),
        index.eq(Cat(Cat(first[number] for number in range(len(bits)) if number >> bit & 1).any()
                     for bit in range(len(index)))),
    ]
    return index


class RuleEvaluator(wiring.Component):
    """All rules of one device.

    watch: of every rule. setting_of, setting: the setting of one rule, combinationally.
    take: rules that are carried out now; due falls with it. busy: rules that are being carried out.
    again: rules that were taken, and are due as before.
    idle: nothing is queued or under way, so that `due` tells all that figures so far have led to.
    """

    def __init__(self, config: DeviceConfig):
        self._rules = rules = config.rules
        super().__init__({
            "figures": In(AnalyzerFigures(config)),
            "watch": In(data.ArrayLayout(RuleWatch, rules)),
            "rewritten": In(rules),
            "setting_of": Out(range(rules)),
            "setting": In(RuleSetting),
            "take": In(rules),
            "again": In(rules),
            "busy": In(rules),
            "fired": In(rules),
            "due": Out(rules),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        # A rule that is rewritten is left out until what was matched before has passed.
        self._left_out = left_out = Signal(self._rules)
        queue = self._elaborate_match(m)
        picked = self._elaborate_pick(m, queue)
        compared = self._elaborate_compare(m, picked)
        judged = self._elaborate_judge(m, compared[-1])
        under_way = Cat(step.valid for step in (picked, *compared, judged))
        m.d.comb += self.idle.eq(~(queue.r_rdy | self._matched.any() | self._hits.any() | under_way.any()))
        m.d.sync += left_out.eq(Mux(self.idle, 0, left_out | self.rewritten))
        return m

    def _elaborate_match(self, m):
        """Queue every figure that a rule watches, with the rules that do."""
        hits = Signal(self._rules)
        for rule in range(self._rules):
            watch = self.watch[rule]
            m.d.comb += hits[rule].eq(
                watch.enable & ~self._left_out[rule] & ~self.rewritten[rule]
                & (watch.figure == self.figures.figure) & (watch.tenant == self.figures.tenant))
        self._matched = matched = Signal(self._rules)
        value = Signal(32)
        m.d.sync += [matched.eq(Mux(self.figures.valid, hits, 0)), value.eq(self.figures.value)]
        m.submodules.queue = queue = fifo.SyncFIFO(width=32 + self._rules, depth=self._rules)
        m.d.comb += [queue.w_en.eq(matched.any()), queue.w_data.eq(Cat(value, matched))]
        return queue

    def _elaborate_pick(self, m, queue):
        """Take one rule a cycle of those that the figure at hand concerns, then the next figure from the queue.

        So a rule is not taken in two cycles running, which judging relies on.
        """
        self._hits = hits = Signal(self._rules)
        figure = Signal(32)
        picked = Signal(data.StructLayout({"valid": 1, "rule": range(self._rules), "value": 32}))
        m.d.comb += queue.r_en.eq(~hits.any())
        m.d.sync += [
            picked.valid.eq(hits.any()), picked.rule.eq(lowest(m, hits, "lowest_rule")), picked.value.eq(figure),
            hits.eq(hits & (hits - 1)),
        ]
        with m.If(queue.r_en & queue.r_rdy):
            m.d.sync += Cat(figure, hits).eq(queue.r_data)
        return picked

    def _elaborate_compare(self, m, picked):
        """The rule picked: its setting is fetched; how far the figure is from the threshold; what follows from that.

        Returns the three steps.
        """
        rule = range(self._rules)
        common = {"valid": 1, "rule": rule, "hold": 8, "interval": 16}
        distance = signed(33)
        fetched = Signal(data.StructLayout({**common, "is_below": 1, "value": 32, "threshold": 32, "hysteresis": 32}))
        measured = Signal(data.StructLayout(
            {**common, "is_below": 1, "hysteresis": 32, "above": distance, "below": distance}))
        compared = Signal(data.StructLayout({**common, "is_beyond": 1, "is_back": 1}))
        m.d.comb += self.setting_of.eq(picked.rule)
        setting = self.setting
        m.d.sync += [
            fetched.valid.eq(picked.valid), fetched.rule.eq(picked.rule), fetched.value.eq(picked.value),
            fetched.is_below.eq(self.watch[picked.rule].comparison == Comparison.BELOW),
            *(fetched[name].eq(getattr(setting, name)) for name in ("hold", "interval", "threshold", "hysteresis")),
            *(measured[name].eq(fetched[name]) for name in (*common, "is_below", "hysteresis")),
            measured.above.eq(fetched.value - fetched.threshold),
            measured.below.eq(fetched.threshold - fetched.value),
            *(compared[name].eq(measured[name]) for name in common),
        ]
        # On the side of the threshold where the figure is harmless: how far it is away.
        margin = Signal(distance)
        m.d.comb += margin.eq(Mux(measured.is_below, measured.above, measured.below))
        m.d.sync += [compared.is_beyond.eq(margin < 0), compared.is_back.eq(margin >= measured.hysteresis)]
        return fetched, measured, compared

    def _elaborate_judge(self, m, compared):
        """State of the rule; in the next cycle what becomes of it, and with it whether the rule is due."""
        m.submodules.states = states = memory.Memory(shape=_State, depth=self._rules, init=[])
        read, write = states.read_port(domain="comb"), states.write_port()
        is_new = Signal(self._rules, init=(1 << self._rules) - 1)   # its state means nothing yet
        has_fired = Signal(self._rules)                             # since its state was read
        rule = compared.rule
        state, following = Signal(_State), Signal(_State)
        judged = Signal(compared.shape(), name="judged")
        m.d.comb += read.addr.eq(rule)
        m.d.sync += [judged.eq(compared), state.eq(read.data)]
        with m.If(is_new.bit_select(rule, 1)):
            m.d.sync += [state.is_armed.eq(1), state.streak.eq(0), state.left.eq(0)]
        with m.Elif(has_fired.bit_select(rule, 1)):
            m.d.sync += [state.is_armed.eq(0), state.left.eq(compared.interval)]

        is_due = Signal()
        m.d.comb += [
            write.addr.eq(judged.rule), write.en.eq(judged.valid), write.data.eq(following),
            following.is_armed.eq(state.is_armed | judged.is_back),
            following.left.eq(Mux(state.left == 0, 0, state.left - 1)),
            is_due.eq(following.is_armed & judged.is_beyond & (following.streak >= judged.hold) & (state.left <= 1)),
        ]
        with m.If(judged.is_beyond):
            m.d.comb += following.streak.eq(Mux(state.streak == 255, 255, state.streak + 1))

        seen, here = Signal(self._rules), Signal(self._rules)
        fired = Signal(self._rules)   # in the cycle before: what is judged now did not know of it
        withheld = self.take | self.busy | fired
        m.d.comb += [seen.eq(compared.valid << rule), here.eq(judged.valid << judged.rule)]
        m.d.sync += [
            fired.eq(self.fired),
            self.due.eq((((self.due & ~here) | Mux(is_due, here, 0)) & ~withheld | self.again)
                        & ~self._left_out & ~self.rewritten),
            is_new.eq((is_new & ~seen) | self._left_out | self.rewritten),
            has_fired.eq(((has_fired & ~seen) | self.fired) & ~self.rewritten),
        ]
        return judged
