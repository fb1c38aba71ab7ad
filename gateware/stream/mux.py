"""`PacketMux`: several packet ports onto one, a whole packet at a time.

A source is chosen when its header is offered; its header and all beats up to `last` pass before the next choice,
so that packets never interleave. The choice is round robin: a source that always offers waits for at most one
packet of each other source. Latency: none (combinational through the chosen source) plus one cycle in which the
choice is made. Nothing is checked: a source that breaks the contract of `packet.py` stalls the mux.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .packet import PacketSignature

__all__ = ["PacketMux"]


class PacketMux(wiring.Component):
    """Merges `count` packet ports.

    inputs: the sources. output: the merged packets.
    """

    def __init__(self, config: DeviceConfig, count: int):
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        self._count = count
        super().__init__({
            "inputs": In(PacketSignature(config)).array(count),
            "output": Out(PacketSignature(config)),
        })

    @property
    def count(self) -> int:
        """Number of sources."""
        return self._count

    def elaborate(self, platform):
        m = Module()
        chosen = Signal(range(self._count))
        header_done = Signal()

        with m.FSM():
            # No packet in passage: take the next source, in turn, that offers a header.
            with m.State("CHOOSE"):
                self._choose_next(m, chosen)
                with m.If(Cat(source.header.valid for source in self.inputs).any()):
                    m.d.sync += header_done.eq(0)
                    m.next = "PASS"
            # The chosen packet passes; it is over when its last beat and its header both went.
            with m.State("PASS"):
                with m.Switch(chosen):
                    for index, source in enumerate(self.inputs):
                        with m.Case(index):
                            self._pass(m, source, header_done)
                header_goes = self.output.header.valid & self.output.header.ready
                with m.If(header_goes):
                    m.d.sync += header_done.eq(1)
                with m.If(self.output.data.valid & self.output.data.ready & self.output.data.payload.last):
                    m.next = "CHOOSE"
        return m

    def _choose_next(self, m, chosen):
        for current in range(self._count):
            with m.If(chosen == current):
                # The last assignment wins: the source right after `current` is assigned last.
                for step in range(self._count, 0, -1):
                    candidate = (current + step) % self._count
                    with m.If(self.inputs[candidate].header.valid):
                        m.d.sync += chosen.eq(candidate)

    def _pass(self, m, source, header_done):
        m.d.comb += [
            self.output.header.valid.eq(source.header.valid & ~header_done),
            self.output.header.payload.eq(source.header.payload),
            source.header.ready.eq(self.output.header.ready & ~header_done),
            self.output.data.payload.eq(source.data.payload),
        ]
        # The last beat waits for the header, so that a packet never ends before its header went.
        header_gone = header_done | self.output.header.ready
        held = source.data.payload.last & ~header_gone
        m.d.comb += [
            self.output.data.valid.eq(source.data.valid & ~held),
            source.data.ready.eq(self.output.data.ready & ~held),
        ]
