"""`Sequence`: the trigger, as conditions that must hold one after another.

A stage has a condition on the patterns that match (a table of 16 bits, so any function of the four) and a number of
cycles in which it must hold. The stage after it looks from the very next cycle on. The last stage's last cycle is the
trigger.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .matcher import PATTERNS

__all__ = ["COUNT_BITS", "STAGES", "Sequence"]

STAGES = 4
COUNT_BITS = 16


class Sequence(wiring.Component):
    """Sequence of up to `STAGES` conditions.

    restart: begin with the first stage in the next cycle. searching: `matches` is of a sample that counts. condition,
    count: of each stage; last: the last one in use. trigger: `matches` completes the sequence, in the same cycle.
    stage: the one that is looked for, or the last.
    """

    restart: In(1)
    searching: In(1)
    matches: In(PATTERNS)
    last: In(range(STAGES))
    condition: In(1 << PATTERNS).array(STAGES)
    count: In(COUNT_BITS).array(STAGES)
    trigger: Out(1)
    stage: Out(range(STAGES))

    def elaborate(self, platform):
        m = Module()
        condition, count = Signal(1 << PATTERNS), Signal(COUNT_BITS)
        seen = Signal(COUNT_BITS)  # cycles in which the condition of this stage held
        holds, enough = Signal(), Signal()
        with m.Switch(self.stage):
            for index in range(STAGES):
                with m.Case(index):
                    m.d.comb += [condition.eq(self.condition[index]), count.eq(self.count[index])]
        m.d.comb += [
            holds.eq(self.searching & condition.bit_select(self.matches, 1)),
            enough.eq(seen + 1 >= count),
            self.trigger.eq(holds & enough & (self.stage == self.last)),
        ]
        with m.If(self.restart):
            m.d.sync += [self.stage.eq(0), seen.eq(0)]
        with m.Elif(holds & ~enough):
            m.d.sync += seen.eq(seen + 1)
        with m.Elif(holds & ~self.trigger):
            m.d.sync += [self.stage.eq(self.stage + 1), seen.eq(0)]
        return m
