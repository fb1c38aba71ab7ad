"""Skid buffers: they cut combinational paths of a stream, at full throughput.

Contract of `SkidBuffer`, two entries: a transfer at `i` appears at `o` one cycle later; one transfer a cycle is
sustained; order is kept and nothing is lost or repeated. `i.ready`, `o.valid` and `o.payload` come from registers.

Contract of `ReadyBuffer`, one entry: the same, but what comes at `i` is offered at `o` in the same cycle. Only
`i.ready` comes from a register. There are no errors.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ReadyBuffer", "SkidBuffer"]


class _Buffer(wiring.Component):
    """Ports of a buffer for a stream of `shape`."""

    def __init__(self, shape):
        self._shape = shape
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
        })

    @property
    def shape(self):
        """Shape of the payload."""
        return self._shape


class SkidBuffer(_Buffer):
    """Two-entry buffer for a stream of `shape`."""

    def elaborate(self, platform):
        m = Module()

        # The second entry catches the transfer that is under way in the cycle in which the sink stops: only then
        # is `i.ready` taken back, one cycle late, from a register.
        caught = Signal(self._shape)
        full = Signal()
        m.d.comb += self.i.ready.eq(~full)

        moves = self.o.ready | ~self.o.valid
        with m.If(moves):
            m.d.sync += [
                self.o.valid.eq(self.i.valid | full),
                full.eq(0),
            ]
            with m.If(full):
                m.d.sync += self.o.payload.eq(caught)
            with m.Else():
                m.d.sync += self.o.payload.eq(self.i.payload)
        with m.Elif(self.i.valid & ~full):
            m.d.sync += [caught.eq(self.i.payload), full.eq(1)]
        return m


class ReadyBuffer(_Buffer):
    """One-entry buffer for a stream of `shape`, which keeps what `o` does not take in the cycle in which it comes."""

    def elaborate(self, platform):
        m = Module()
        caught = Signal(self._shape)
        full = Signal()
        m.d.comb += [
            self.i.ready.eq(~full),
            self.o.valid.eq(self.i.valid | full),
        ]
        with m.If(full):
            m.d.comb += self.o.payload.eq(caught)
        with m.Else():
            m.d.comb += self.o.payload.eq(self.i.payload)
            m.d.sync += caught.eq(self.i.payload)
        m.d.sync += full.eq(self.o.valid & ~self.o.ready)
        return m
