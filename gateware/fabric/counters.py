"""`PortCounters`: what passed each fabric port since reset, in the `port[]` registers.

Each counter is 32 bits, modulo 2**32, and counts one event of its port: `admitted` and `dropped` at the input, `left`
(cut off included) and `cut` at the output. A value read is at most one cycle behind. Registers answer as
`RegisterBlock` does; ports beyond the configuration are answered with an error.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from .events import EgressEventSignature, IngressEventSignature

__all__ = ["PortCounters"]


class PortCounters(wiring.Component):
    """Counters of all ports."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "bus": In(CsrSignature(16)),
            "ingress": In(IngressEventSignature(config)).array(config.ports),
            "egress": In(EgressEventSignature(config)).array(config.ports),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = RegisterBlock({"port": self._config.ports})
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        for port, (ingress, egress) in enumerate(zip(self.ingress, self.egress, strict=True)):
            events = {"admitted": ingress.admit, "dropped": ingress.drop, "left": egress.leave, "cut": egress.cut}
            for name, event in events.items():
                count = Signal(32, name=f"{name}_{port}")
                m.d.sync += count.eq(count + event)
                m.d.comb += getattr(registers, f"port_{port}_{name}_value").eq(count)
        return m
