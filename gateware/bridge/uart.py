"""The serialiser of the link: 8 data bits, no parity, one stop bit, at a rate that may change.

`period` is the time of one bit in eighths of a clock cycle (so that 12 M baud at 100 MHz is 0.5 % off, not 4 %), at
least `MIN_PERIOD`. Contract of the transmitter: a byte taken from `input` is on `pin` 10 bit times, least significant
bit first, each edge at the cycle after it is due; one more is taken meanwhile, and begins when the stop bit before it
is due to end, so that a run of bytes loses no time at any rate. Of the receiver: a byte whose stop bit was seen on
`level` is offered on `output` in the next cycle. If the byte before is still there it is kept, the new one is lost and
`overflow` is high for one cycle. A low level shorter than half a bit begins nothing; a missing stop bit loses the byte,
raises `framing_error` for one cycle, and the line must have been high again before the next start bit. Each bit is the
majority of three samples around its middle, so that the sender's rate may be off by 3 %.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["MIN_PERIOD", "PERIOD_BITS", "UartReceiver", "UartTransmitter", "period_of"]

_DATA_BITS = 8
_CYCLE = 8  # a clock cycle in units of `period`
MIN_PERIOD = 4 * _CYCLE  # below it the three samples of a bit do not fit
PERIOD_BITS = 20


def period_of(clock_hz: int, baud: int) -> int:
    """`period` of a rate; raises ValueError for one that the clock cannot sample."""
    period = round(_CYCLE * clock_hz / baud)
    if not MIN_PERIOD <= period < 1 << PERIOD_BITS:
        raise ValueError(f"baud must be within {_CYCLE * clock_hz / (1 << PERIOD_BITS):.0f}..{clock_hz // 4} at "
                         f"{clock_hz} Hz, not {baud!r}")
    return period


class UartReceiver(wiring.Component):
    """From a synchronised line to bytes."""

    period: In(PERIOD_BITS)
    level: In(1, init=1)
    output: Out(stream.Signature(8))
    framing_error: Out(1)
    overflow: Out(1)

    def elaborate(self, platform):
        m = Module()
        level = self.level
        phase = Signal(PERIOD_BITS)
        bit, decided = self._vote(m, level, phase)
        shift = Signal(_DATA_BITS)
        count = Signal(range(_DATA_BITS))
        received = Signal()

        m.d.sync += phase.eq(Mux(phase + _CYCLE >= self.period, phase + _CYCLE - self.period, phase + _CYCLE))
        with m.FSM():
            # The line is idle; a falling edge defines where bits begin (one cycle ago, when it is seen).
            with m.State("idle"):
                m.d.sync += [phase.eq(_CYCLE), count.eq(0)]
                with m.If(~level):
                    m.next = "start"
            # A start bit must still be low in its middle, else it was a glitch.
            with m.State("start"):
                with m.If(decided):
                    m.next = "data"
                    with m.If(bit):
                        m.next = "idle"
            with m.State("data"):
                with m.If(decided):
                    m.d.sync += [shift.eq(Cat(shift[1:], bit)), count.eq(count + 1)]
                    with m.If(count == _DATA_BITS - 1):
                        m.next = "stop"
            # Ends in the middle of the stop bit: a sender that is a little fast begins early.
            with m.State("stop"):
                with m.If(decided):
                    m.d.comb += [received.eq(bit), self.framing_error.eq(~bit)]
                    m.next = "release"
                    with m.If(bit):
                        m.next = "idle"
            # A break, or a byte cut in two: nothing begins before the line is high.
            with m.State("release"):
                with m.If(level):
                    m.next = "idle"

        with m.If(self.output.ready):
            m.d.sync += self.output.valid.eq(0)
        with m.If(received):
            with m.If(self.output.valid & ~self.output.ready):
                m.d.comb += self.overflow.eq(1)
            with m.Else():
                m.d.sync += [self.output.valid.eq(1), self.output.payload.eq(shift)]
        return m

    def _vote(self, m, level, phase):
        """The bit on the line, and the cycle in which it is decided: two samples before, one now."""
        middle, apart = Signal(PERIOD_BITS), Signal(PERIOD_BITS)
        early, centre = Signal(), Signal()
        m.d.sync += [
            middle.eq(self.period >> 1),
            apart.eq(Mux(self.period >> 3 > _CYCLE, self.period >> 3, _CYCLE)),
        ]

        def passes(moment):
            """Once a bit, in the cycle that is nearest to `moment`."""
            return (phase + _CYCLE // 2 >= moment) & (phase < moment + _CYCLE // 2)

        with m.If(passes(middle - apart)):
            m.d.sync += early.eq(level)
        with m.If(passes(middle)):
            m.d.sync += centre.eq(level)
        return (early & centre) | (early & level) | (centre & level), passes(middle + apart)


class UartTransmitter(wiring.Component):
    """From bytes to a pin."""

    period: In(PERIOD_BITS)
    input: In(stream.Signature(8))
    pin: Out(1, init=1)

    def elaborate(self, platform):
        m = Module()
        byte, waits = Signal(_DATA_BITS), Signal()  # the next one, so that no path leads from `period` to `input`
        shift = Signal(_DATA_BITS + 1, init=-1)  # what follows the bit on the pin; ones behind the stop bit
        left = Signal(range(_DATA_BITS + 3))     # bits still to be on the pin, the current one included
        phase = Signal(PERIOD_BITS)
        following = Signal(PERIOD_BITS + 1)
        over, begins = Signal(), Signal()        # the bit on the pin has had its time; the next one is a start bit

        m.d.comb += [
            self.input.ready.eq(~waits),
            following.eq(phase + _CYCLE),
            over.eq(following >= self.period),
            begins.eq(waits & ((left == 0) | (left == 1) & over)),
        ]
        with m.If(self.input.valid & ~waits):
            m.d.sync += [byte.eq(self.input.payload), waits.eq(1)]
        with m.If(left == 0):
            m.d.sync += phase.eq(0)
        with m.Elif(over):
            m.d.sync += [
                self.pin.eq(shift[0]),
                shift.eq(Cat(shift[1:], 1)),
                left.eq(left - 1),
                phase.eq(following - self.period),
            ]
        with m.Else():
            m.d.sync += phase.eq(following)
        with m.If(begins):
            m.d.sync += [self.pin.eq(0), shift.eq(Cat(byte, 1)), left.eq(_DATA_BITS + 2), waits.eq(0)]
        return m
