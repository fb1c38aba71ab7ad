"""`StreamFork`: one stream to several consumers, each of which takes every word once, at its own pace.

A word is gone when the last consumer took it; a consumer that took it early sees no valid word until then, so none
waits longer than the slowest. Latency: none. `valid` of an output never depends on `ready` of another.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["StreamFork"]


class StreamFork(wiring.Component):
    """Copies `input` to each of `outputs` (`count` streams of `shape`)."""

    def __init__(self, shape, count: int):
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        super().__init__({
            "input": In(stream.Signature(shape)),
            "outputs": Out(stream.Signature(shape)).array(count),
        })

    def elaborate(self, platform):
        m = Module()
        taken = Signal(len(self.outputs))
        takes = Signal(len(self.outputs))
        for index, output in enumerate(self.outputs):
            m.d.comb += [
                output.payload.eq(self.input.payload),
                output.valid.eq(self.input.valid & ~taken[index]),
                takes[index].eq(taken[index] | output.ready),
            ]
        m.d.comb += self.input.ready.eq(takes.all())
        with m.If(self.input.valid):
            m.d.sync += taken.eq(Mux(takes.all(), 0, takes))
        return m
