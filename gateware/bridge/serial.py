"""`SerialPort`: both directions of the line, at a rate that follows the host's.

Contract: bytes from `rx_pin` come out at `rx`, bytes taken at `tx` leave by `tx_pin`, as `uart` says. The rate is that
of `period` at first, and that of the last break and 0x55 from then on (see `autobaud`): in both directions, and a byte
that was being received is forgotten.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from .autobaud import BaudDetector
from .uart import UartReceiver, UartTransmitter

__all__ = ["SerialPort"]


class SerialPort(wiring.Component):
    """The line of one device. period: of a bit after reset, in eighths of a cycle (`uart.period_of`)."""

    def __init__(self, period: int):
        self._detector = BaudDetector(period)  # refuses what cannot be received
        super().__init__({
            "rx_pin": In(1, init=1),
            "tx_pin": Out(1, init=1),
            "rx": Out(stream.Signature(8)),
            "tx": In(stream.Signature(8)),
            "framing_error": Out(1),
            "overflow": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        level = Signal(init=1)
        m.submodules.synchroniser = FFSynchronizer(self.rx_pin, level, init=1)
        m.submodules.detector = detector = self._detector
        receiver, transmitter = UartReceiver(), UartTransmitter()
        m.submodules.receiver = ResetInserter(detector.changed)(receiver)
        m.submodules.transmitter = transmitter
        m.d.comb += [
            detector.level.eq(level),
            receiver.level.eq(level),
            receiver.period.eq(detector.period),
            transmitter.period.eq(detector.period),
            self.tx_pin.eq(transmitter.pin),
            self.framing_error.eq(receiver.framing_error),
            self.overflow.eq(receiver.overflow),
        ]
        wiring.connect(m, receiver.output, wiring.flipped(self.rx))
        wiring.connect(m, wiring.flipped(self.tx), transmitter.input)
        return m
