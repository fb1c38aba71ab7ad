"""The endpoint core behind its UltraScale+ shim, with a few registers on its bus: what the PCIe benches simulate."""

from amaranth import Module
from amaranth.lib import wiring

from gateware.csr.decoder import CsrDecoder
from gateware.csr.registers import RegisterBlock
from gateware.csr.regmap import word_ranges
from gateware.pcie.endpoint import Endpoint, link_members
from gateware.pcie.ultrascale import UltraScalePcie

MAGIC = 0x46524F4D
TENANTS, VECTORS = 4, 4
#: Ports of the shim and of the core that meet inside.
INNER = [name for name in link_members(64) if name != "function_id"]


class PcieTop(wiring.Component):
    """Ports: those of the integrated block's side, and the core's towards the device."""

    def __init__(self, width):
        self.shim, self.core = UltraScalePcie(width), Endpoint(width, TENANTS, VECTORS)
        hidden = {*INNER, "bus", "registers", "function_id"}
        super().__init__({name: member for part in (self.shim, self.core)
                          for name, member in part.signature.members.items() if name not in hidden})

    def elaborate(self, platform):
        m = Module()
        m.submodules.shim, m.submodules.core = shim, core = self.shim, self.core
        m.submodules.registers = registers = RegisterBlock(["id"])
        m.submodules.decoder = decoder = CsrDecoder([word_ranges(["id"]), word_ranges(["msix", "region"])])
        wiring.connect(m, core.bus, decoder.bus)
        wiring.connect(m, decoder.targets[0], registers.bus)
        wiring.connect(m, decoder.targets[1], core.registers)
        m.d.comb += registers.id_magic_magic.eq(MAGIC)
        self._join(m, shim, core, INNER)
        for part in (shim, core):
            for name, member in part.signature.members.items():
                if name in self.signature.members:
                    self._expose(m, getattr(self, name), getattr(part, name), member)
        return m

    def _join(self, m, shim, core, names):
        for name in names:
            member = core.signature.members[name]
            if member.is_port:
                source, target = (shim, core) if member.flow == wiring.In else (core, shim)
                m.d.comb += getattr(target, name).eq(getattr(source, name))
            else:
                wiring.connect(m, getattr(core, name), getattr(shim, name))

    def _expose(self, m, outer, inner, member):
        if not member.is_port:
            wiring.connect(m, wiring.flipped(outer), inner)
        elif member.flow == wiring.In:
            m.d.comb += inner.eq(outer)
        else:
            m.d.comb += outer.eq(inner)
