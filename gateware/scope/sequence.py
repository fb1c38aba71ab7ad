"""`Sequence`: the trigger, as conditions that must hold one after another.

A stage has a condition on the patterns that match (a table of 16 bits, so any function of the four) and a number of
cycles in which it must hold. The stage after it looks from the very next cycle on. The last stage's last cycle is the
trigger.

Matches of cycle *t* are looked up in the tables of all stages, decided upon in cycle *t* + 1, and are the trigger in
cycle *t* + `LATENCY`.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .matcher import PATTERNS

__all__ = ["COUNT_BITS", "LATENCY", "STAGES", "Sequence"]

LATENCY = 2
STAGES = 4
COUNT_BITS = 16


class Sequence(wiring.Component):
    """Sequence of up to `STAGES` conditions.

    matches: of each cycle. restart: begin with the first stage, whose first matches are those that are decided upon in
    the next cycle. searching: what is decided upon in this cycle counts. condition, count: of each stage; last: the
    last one in use; steady from the cycle before `restart` on. trigger: matches `LATENCY` cycles ago completed the
    sequence. stage: the one that is looked for, or the last.
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
        fulfilled = Signal(STAGES)  # the conditions that hold
        once = Signal(STAGES)       # the stages for which one cycle is enough
        count, seen = Signal(COUNT_BITS), Signal(COUNT_BITS)  # cycles in which this stage's condition must hold, did
        enough = Signal()           # one cycle more is enough
        holds, completes, following = Signal(), Signal(), Signal(range(STAGES))
        for index in range(STAGES):
            m.d.sync += [
                fulfilled[index].eq(self.condition[index].bit_select(self.matches, 1)),
                once[index].eq(self.count[index] <= 1),
            ]
        with m.Switch(self.stage):
            for index in range(STAGES):
                with m.Case(index):
                    m.d.comb += count.eq(self.count[index])
        m.d.comb += [
            holds.eq(self.searching & fulfilled.bit_select(self.stage, 1)),
            completes.eq(holds & enough & (self.stage == self.last)),
            following.eq(self.stage + 1),
        ]
        m.d.sync += self.trigger.eq(completes & ~self.restart)
        with m.If(self.restart):
            m.d.sync += [self.stage.eq(0), seen.eq(0), enough.eq(once[0])]
        with m.Elif(holds & ~enough):
            m.d.sync += [seen.eq(seen + 1), enough.eq(seen + 2 >= count)]
        with m.Elif(holds & ~completes):
            m.d.sync += [self.stage.eq(following), seen.eq(0), enough.eq(once.bit_select(following, 1))]
        return m
