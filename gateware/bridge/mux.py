"""`MessageMux`: several sources of messages share one line, whole messages at a time.

Contract: combinational while a message passes. The choice is registered: an idle line takes up a message in the
cycle after it is offered, and changes between sources in turn, so that a source waits for at most one message of
each of the others. `valid` does not fall before its transfer.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .cobs import FRAME_BYTE

__all__ = ["MessageMux"]


class MessageMux(wiring.Component):
    """`inputs[i]` to `output`, for `count` inputs."""

    def __init__(self, count: int):
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        super().__init__({
            "inputs": In(stream.Signature(FRAME_BYTE)).array(count),
            "output": Out(stream.Signature(FRAME_BYTE)),
        })

    def elaborate(self, platform):
        m = Module()
        count = len(self.inputs)
        owner = Signal(range(count))
        granted = Signal()
        with m.If(~granted):
            with m.Switch(owner):
                for last in range(count):
                    with m.Case(last):
                        self._choose_after(m, last, owner, granted)
        with m.Else():
            with m.Switch(owner):
                for index, source in enumerate(self.inputs):
                    with m.Case(index):
                        wiring.connect(m, wiring.flipped(source), wiring.flipped(self.output))
            with m.If(self.output.valid & self.output.ready & self.output.payload.last):
                m.d.sync += granted.eq(0)
        return m

    def _choose_after(self, m, last, owner, granted):
        """The next source with a message, beginning behind `last`."""
        for distance in range(len(self.inputs), 0, -1):  # a later statement wins: the nearest is the last
            index = (last + distance) % len(self.inputs)
            with m.If(self.inputs[index].valid):
                m.d.sync += [owner.eq(index), granted.eq(1)]
