"""`BaudDetector`: the rate of the line, from what a host sends: a break, then the byte 0x55.

Contract: `period` is the bit time (eighths of a cycle, as `uart` takes it), at first `initial`. Once `level` has been
low for `BREAK_BITS` bit times or more (no byte does that) and high again, the next byte is measured: from its first to
its fifth falling edge are eight bits, so that the cycles between them are the new `period`, in the cycle after which
`changed` is high for one cycle. Anything else than 0x55 at a rate that can be received changes nothing: the four
two-bit times must be alike within a quarter. (A break that is followed by a pause of its own length could itself be the
first of them: the pause must be shorter than half of it.) A host that is slower sends zeros that look like a break;
what follows them is measured too, and only taken if it is 0x55: then the rate is that of the host.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .uart import MIN_PERIOD, PERIOD_BITS

__all__ = ["BREAK_BITS", "BaudDetector"]

BREAK_BITS = 12
_CYCLE_BITS = 3
_PAIRS = 4  # two-bit times in the byte


class BaudDetector(wiring.Component):
    """Measures rates. initial: period before the first one is measured."""

    def __init__(self, initial: int):
        if not MIN_PERIOD <= initial < 1 << PERIOD_BITS:
            raise ValueError(f"initial must be in {MIN_PERIOD}..{(1 << PERIOD_BITS) - 1}, not {initial!r}")
        self._initial = initial
        super().__init__({
            "level": In(1, init=1),
            "period": Out(PERIOD_BITS, init=initial),
            "changed": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        before = Signal(init=1)
        fell = Signal()
        low = Signal(PERIOD_BITS + 4)  # cycles that the line has been low
        # From a register, since the period stands and the product takes long.
        least = Signal(PERIOD_BITS + 4, init=self._initial * BREAK_BITS)
        broken = Signal()
        m.d.sync += [before.eq(self.level), self.changed.eq(0), least.eq(self.period * BREAK_BITS)]
        m.d.comb += [
            fell.eq(before & ~self.level),
            broken.eq((low << _CYCLE_BITS) >= least),
        ]
        with m.If(self.level):
            m.d.sync += low.eq(0)
        with m.Elif(~broken):
            m.d.sync += low.eq(low + 1)

        total, pair = Signal(PERIOD_BITS), Signal(PERIOD_BITS)
        first = Signal(PERIOD_BITS + 1)  # what the two-bit time under way must be: at first, twice its low half
        pairs, alike, paused = Signal(range(_PAIRS)), Signal(), Signal()
        m.d.sync += [total.eq(total + 1), pair.eq(pair + 1), paused.eq(paused | broken)]
        m.d.comb += alike.eq(Mux(pair >= first, pair - first, first - pair) << 2 <= pair)
        with m.FSM():
            # Bytes come and go; only a break makes the next one special.
            with m.State("idle"):
                with m.If(broken & self.level):
                    m.next = "armed"
            # The line is high behind the break; the start bit begins the measurement.
            with m.State("armed"):
                m.d.sync += [total.eq(1), pair.eq(1), pairs.eq(0), first.eq(2), paused.eq(0)]
                with m.If(fell):
                    m.next = "measure"
            # Every falling edge ends a two-bit time. What was taken for a start bit may have been another break (one
            # of a slow host looks like one, until the line was high): then this edge is that of the start bit.
            with m.State("measure"):
                with m.If((pairs == 0) & ~self.level):
                    m.d.sync += first.eq(first + 2)
                with m.If(total == (1 << PERIOD_BITS) - 1):
                    m.next = "idle"
                with m.Elif(fell):
                    m.d.sync += [pair.eq(1), pairs.eq(pairs + 1)]
                    with m.If(pairs == 0):
                        m.d.sync += first.eq(pair)
                    with m.If(~alike & (pairs == 0) & paused):
                        m.d.sync += [total.eq(1), pairs.eq(0), first.eq(2), paused.eq(0)]
                    with m.Elif(~alike):
                        m.next = "idle"
                    with m.Elif(pairs == _PAIRS - 1):
                        m.next = "idle"
                        with m.If(total >= MIN_PERIOD):
                            m.d.sync += [self.period.eq(total), self.changed.eq(1)]
        return m
