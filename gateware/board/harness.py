"""`Harness`: any component between registers, so that its own paths and no pins limit its clock.

Contract: three pins whatever the component has. Bits that come in on `serial_in` pass a shift register, one stage of
which is each input bit of the component; each output bit is caught in a register, and those are folded into a
signature register whose end is `serial_out`. Nothing of the component can be optimised away, because every input can
be anything and every output reaches a pin. The harness costs two registers an output bit, one an input bit, and one
LUT4 an output bit, which reports count as `harness`; the component is the submodule `dut`.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DUT", "Harness"]

DUT = "dut"


class Harness(wiring.Component):
    """component: what is measured; it must have one clock domain, `sync`."""

    serial_in: In(1)
    serial_out: Out(1)

    def __init__(self, component: wiring.Component):
        self._component = component
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules[DUT] = component = self._component
        inputs, outputs = [], []
        for _, member, value in component.signature.flatten(component):
            (inputs if member.flow is In else outputs).append(Value.cast(value))
        width = sum(len(value) for value in inputs)
        shift = Signal(max(width, 1), name="harness_shift")
        m.d.sync += shift.eq(Cat(self.serial_in, shift))
        offset = 0
        for value in inputs:
            m.d.comb += value.eq(shift[offset:offset + len(value)])
            offset += len(value)
        caught = Signal(sum(len(value) for value in outputs), name="harness_caught")
        folded = Signal(len(caught), name="harness_folded")
        m.d.sync += [caught.eq(Cat(*outputs)), folded.eq(Cat(shift[-1], folded) ^ caught)]
        m.d.comb += self.serial_out.eq(folded[-1])
        return m
