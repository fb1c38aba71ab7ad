"""`RuleEvaluator`: compares the analyzer's figures with the rules that watch them, and says which rules are due.

Contract, in windows, since each rule's figure comes once a window:

- A rule is due after its figure was beyond the threshold (strictly) in `hold` windows in a row, while it is armed and
  at least `interval` windows after it fired last. `due[r]` rises 5 cycles after the strobe of the figure, one later
  for every other match that is not evaluated yet.
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
    """Index of the lowest bit of `bits` that is set, as a signal."""
    index = Signal(range(len(bits)), name=name)
    for number in reversed(range(len(bits))):
        with m.If(bits[number]):
            m.d.comb += index.eq(number)
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
        picked, rule, value = self._elaborate_pick(m, queue)
        judging, comparing = self._elaborate_compare(m, picked, rule, value)
        m.d.comb += self.idle.eq(~queue.r_rdy & ~self._hits.any() & ~picked & ~judging)
        m.d.sync += left_out.eq(Mux(self.idle, 0, left_out | self.rewritten))
        self._elaborate_judge(m, judging, comparing)
        return m

    def _elaborate_match(self, m):
        """Queue every figure that a rule watches, with the rules that do."""
        hits = Signal(self._rules)
        for rule in range(self._rules):
            watch = self.watch[rule]
            m.d.comb += hits[rule].eq(
                watch.enable & ~self._left_out[rule] & ~self.rewritten[rule]
                & (watch.figure == self.figures.figure) & (watch.tenant == self.figures.tenant))
        m.submodules.queue = queue = fifo.SyncFIFO(width=32 + self._rules, depth=self._rules)
        m.d.comb += [
            queue.w_en.eq(self.figures.valid & hits.any()),
            queue.w_data.eq(Cat(self.figures.value, hits)),
        ]
        return queue

    def _elaborate_pick(self, m, queue):
        """Take one rule a cycle of those that the figure at hand concerns, then the next figure from the queue."""
        self._hits = hits = Signal(self._rules)
        figure, others = Signal(32), Signal(self._rules)
        picked, rule, value = Signal(), Signal(range(self._rules)), Signal(32)
        m.d.comb += [others.eq(hits & (hits - 1)), queue.r_en.eq(~others.any())]
        m.d.sync += [picked.eq(hits.any()), rule.eq(lowest(m, hits, "lowest_rule")), value.eq(figure), hits.eq(others)]
        with m.If(queue.r_en & queue.r_rdy):
            m.d.sync += Cat(figure, hits).eq(queue.r_data)
        return picked, rule, value

    def _elaborate_compare(self, m, picked, rule, value):
        """What the rule picked compares is in registers in the next cycle."""
        judging, comparing = Signal(), _Comparing(self._rules)
        is_below = self.watch[rule].comparison == Comparison.BELOW
        threshold, hysteresis = self.setting.threshold, self.setting.hysteresis
        m.d.comb += self.setting_of.eq(rule)
        m.d.sync += [
            judging.eq(picked),
            comparing.rule.eq(rule),
            comparing.is_below.eq(is_below),
            comparing.is_beyond.eq(Mux(is_below, value < threshold, value > threshold)),
            comparing.value.eq(value + Mux(is_below, 0, hysteresis)),
            comparing.limit.eq(threshold + Mux(is_below, hysteresis, 0)),
            comparing.hold.eq(self.setting.hold),
            comparing.interval.eq(self.setting.interval),
        ]
        return judging, comparing

    def _elaborate_judge(self, m, judging, comparing):
        """State of the rule from what was compared, and with it whether it is due."""
        m.submodules.states = states = memory.Memory(shape=_State, depth=self._rules, init=[])
        read, write = states.read_port(domain="comb"), states.write_port()
        is_new = Signal(self._rules, init=(1 << self._rules) - 1)   # its state means nothing yet
        has_fired = Signal(self._rules)                             # since its state was written
        rule = comparing.rule
        state, following = Signal(_State), Signal(_State)
        m.d.comb += [
            read.addr.eq(rule), write.addr.eq(rule), write.en.eq(judging), write.data.eq(following),
            state.eq(read.data),
        ]
        with m.If(is_new.bit_select(rule, 1)):
            m.d.comb += [state.is_armed.eq(1), state.streak.eq(0), state.left.eq(0)]
        with m.Elif(has_fired.bit_select(rule, 1)):
            m.d.comb += [state.is_armed.eq(0), state.left.eq(comparing.interval)]

        is_back = Mux(comparing.is_below, comparing.value >= comparing.limit, comparing.value <= comparing.limit)
        is_due = Signal()
        m.d.comb += [
            following.is_armed.eq(state.is_armed | is_back),
            following.left.eq(Mux(state.left == 0, 0, state.left - 1)),
            is_due.eq(following.is_armed & comparing.is_beyond & (following.streak >= comparing.hold)
                      & (following.left == 0)),
        ]
        with m.If(comparing.is_beyond):
            m.d.comb += following.streak.eq(Mux(state.streak == 255, 255, state.streak + 1))

        judged = Signal(self._rules)
        m.d.comb += judged.eq(judging << rule)
        withheld = self.take | self.busy
        m.d.sync += [
            self.due.eq((((self.due & ~judged) | Mux(is_due, judged, 0)) & ~withheld | self.again)
                        & ~self._left_out & ~self.rewritten),
            is_new.eq((is_new & ~judged) | self._left_out | self.rewritten),
            has_fired.eq(((has_fired & ~judged) | self.fired) & ~self.rewritten),
        ]
        return m


class _Comparing:
    """Registers between the two steps of an evaluation."""

    def __init__(self, rules):
        self.rule = Signal(range(rules), name="comparing_rule")
        self.is_below = Signal(name="comparing_is_below")
        self.is_beyond = Signal(name="comparing_is_beyond")
        self.value = Signal(33, name="comparing_value")
        self.limit = Signal(33, name="comparing_limit")
        self.hold = Signal(8, name="comparing_hold")
        self.interval = Signal(16, name="comparing_interval")
