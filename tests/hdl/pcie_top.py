"""The endpoint core, and the host queues, behind the UltraScale+ shim: what the PCIe benches simulate."""

from amaranth import Module
from amaranth.lib import wiring

from gateware.csr.decoder import CsrDecoder
from gateware.csr.registers import RegisterBlock
from gateware.csr.regmap import word_ranges
from gateware.identity import Identity
from gateware.pcie.card import expose, join_link
from gateware.pcie.endpoint import Endpoint, link_members
from gateware.pcie.host import HostInterface, blocks
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
        join_link(m, shim, core)
        for part in (shim, core):
            expose(m, self, part)
        return m


class QueuesTop(wiring.Component):
    """The host queues of `config` with their endpoint, and nothing on the fabric's side but ports."""

    def __init__(self, config):
        self.shim, self.host, self.config = UltraScalePcie(config.pcie_width), HostInterface(config), config
        hidden = {*INNER, "bus", "registers", "link", "events"}
        super().__init__({name: member for part in (self.shim, self.host)
                          for name, member in part.signature.members.items() if name not in hidden})

    def elaborate(self, platform):
        m = Module()
        m.submodules.shim, m.submodules.host = shim, host = self.shim, self.host
        m.submodules.identity = identity = Identity(self.config, 0)
        m.submodules.decoder = decoder = CsrDecoder([word_ranges(["id", "interrupt"]),
                                                     word_ranges(blocks(self.config))])
        wiring.connect(m, host.bus, decoder.bus)
        wiring.connect(m, decoder.targets[0], identity.bus)
        wiring.connect(m, decoder.targets[1], host.registers)
        join_link(m, shim, host.link)
        for part in (shim, host):
            expose(m, self, part)
        return m
