"""The serialiser of the link: 8 data bits, no parity, one stop bit, at a fixed divisor.

Contract: a byte taken from `tx` is on `tx_pin` 10 bit times, least significant bit first; `tx.ready` is low
meanwhile. A byte whose stop bit was seen on `rx_pin` is offered on `rx` in the next cycle. If the byte before is
still there it is kept, the new one is lost and `overflow` is high for one cycle. A low level shorter than half a
bit begins nothing; a missing stop bit loses the byte, raises `framing_error` for one cycle, and the line must
have been high again before the next start bit. Each bit is the majority of three samples around its middle, so
that the sender's rate may be off by 3 %.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["Uart", "UartReceiver", "UartTransmitter"]

_DATA_BITS = 8
MIN_DIVISOR = 4  # below it the three samples of a bit do not fit


def _checked_divisor(divisor: int) -> int:
    if not isinstance(divisor, int) or divisor < MIN_DIVISOR:
        raise ValueError(f"divisor must be an integer of at least {MIN_DIVISOR}, not {divisor!r}")
    return divisor


class UartReceiver(wiring.Component):
    """From a pin to bytes. divisor: clock cycles of one bit."""

    def __init__(self, divisor: int):
        self._divisor = _checked_divisor(divisor)
        super().__init__({
            "pin": In(1, init=1),
            "output": Out(stream.Signature(8)),
            "framing_error": Out(1),
            "overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        level = Signal(init=1)
        m.submodules.synchroniser = FFSynchronizer(self.pin, level, init=1)

        phase = Signal(range(self._divisor))
        bit, decided = self._vote(m, level, phase)
        shift = Signal(_DATA_BITS)
        count = Signal(range(_DATA_BITS))
        received = Signal()

        m.d.sync += phase.eq(Mux(phase == self._divisor - 1, 0, phase + 1))
        with m.FSM():
            # The line is idle; a falling edge defines where bits begin (one cycle ago, when it is seen).
            with m.State("idle"):
                m.d.sync += [phase.eq(1), count.eq(0)]
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
        middle, apart = self._divisor // 2, max(1, self._divisor // 8)
        early, centre = Signal(), Signal()
        with m.If(phase == middle - apart):
            m.d.sync += early.eq(level)
        with m.If(phase == middle):
            m.d.sync += centre.eq(level)
        return (early & centre) | (early & level) | (centre & level), phase == middle + apart


class UartTransmitter(wiring.Component):
    """From bytes to a pin. divisor: clock cycles of one bit."""

    def __init__(self, divisor: int):
        self._divisor = _checked_divisor(divisor)
        super().__init__({
            "input": In(stream.Signature(8)),
            "pin": Out(1, init=1),
        })

    def elaborate(self, platform):
        m = Module()
        shift = Signal(_DATA_BITS + 1, init=-1)  # what follows the bit on the pin; ones behind the stop bit
        left = Signal(range(_DATA_BITS + 3))     # bits still to be on the pin, the current one included
        phase = Signal(range(self._divisor))

        m.d.comb += self.input.ready.eq(left == 0)
        with m.If(self.input.ready):
            with m.If(self.input.valid):
                m.d.sync += [
                    self.pin.eq(0),
                    shift.eq(Cat(self.input.payload, 1)),
                    left.eq(_DATA_BITS + 2),
                    phase.eq(0),
                ]
        with m.Elif(phase == self._divisor - 1):
            m.d.sync += [
                self.pin.eq(shift[0]),
                shift.eq(Cat(shift[1:], 1)),
                left.eq(left - 1),
                phase.eq(0),
            ]
        with m.Else():
            m.d.sync += phase.eq(phase + 1)
        return m


class Uart(wiring.Component):
    """Both directions of the line: `rx_pin` to `rx`, `tx` to `tx_pin`. divisor: clock cycles of one bit."""

    def __init__(self, divisor: int):
        self._divisor = _checked_divisor(divisor)
        super().__init__({
            "rx_pin": In(1, init=1),
            "tx_pin": Out(1, init=1),
            "rx": Out(stream.Signature(8)),
            "tx": In(stream.Signature(8)),
            "framing_error": Out(1),
            "overflow": Out(1),
        })

    @property
    def divisor(self) -> int:
        """Clock cycles of one bit."""
        return self._divisor

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self._divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(self._divisor)
        m.d.comb += [
            receiver.pin.eq(self.rx_pin),
            self.tx_pin.eq(transmitter.pin),
            self.framing_error.eq(receiver.framing_error),
            self.overflow.eq(receiver.overflow),
        ]
        wiring.connect(m, receiver.output, wiring.flipped(self.rx))
        wiring.connect(m, wiring.flipped(self.tx), transmitter.input)
        return m
