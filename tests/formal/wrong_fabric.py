"""Fabrics that a contract of the fabric must refute."""

from amaranth import *

from gateware.fabric.fabric import Fabric
from tests.formal.prover import pass_through


class WrongFabric(Fabric):
    """Grants every tenant everything (`generous`), or whoever may send to the engines (`one_way`); reads the table of
    the cycle before (`stale`); shows headers at the other output (`crosses`); takes the words of one input for those of
    the other (`mixes`); loses what a stalled sink does not take (`loses`)."""

    def __init__(self, config, fault):
        self.fault = fault
        super().__init__(config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Fabric(self.config)
        pass_through(m, self, inner)
        row, bus = inner.allocation.row, self.allocation
        if self.fault == "generous":
            m.d.comb += row.ports.eq(~0)
        elif self.fault == "one_way":
            m.d.comb += row.ports.eq(Mux(bus.row.ports[self.config.engine_port], ~0, bus.row.ports))
        elif self.fault == "stale":
            late = Signal.like(bus.active_bank)
            m.d.sync += late.eq(bus.active_bank)
            m.d.comb += inner.allocation.active_bank.eq(late)
        elif self.fault == "crosses":
            m.d.comb += [mine.header.payload.eq(other.header.payload)
                         for mine, other in zip(self.outputs, reversed(inner.outputs), strict=True)]
        elif self.fault == "mixes":
            m.d.comb += [mine.data.payload.eq(other.data.payload)
                         for mine, other in zip(inner.inputs, reversed(self.inputs), strict=True)]
        elif self.fault == "loses":
            m.d.comb += inner.outputs[0].data.ready.eq(1)
        else:
            raise ValueError(f"fault must be one of those in the docstring, not {self.fault!r}")
        return m
