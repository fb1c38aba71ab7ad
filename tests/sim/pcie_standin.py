"""`PcieStandIn`: the stand-in with the PCIe endpoint of the device in it, and registers as the device has them.

Of the register map there are the identity, the interrupts and what the endpoint serves. The window of the stand-in is
the event of vector 0. Where the host queues have the fabric, they have a loop: what is sent comes back.
"""

from amaranth.lib.wiring import Out, connect, flipped

from gateware.config import DeviceConfig
from gateware.csr.arbiter import CsrArbiter
from gateware.csr.decoder import CsrDecoder
from gateware.csr.regmap import word_ranges
from gateware.identity import Identity
from gateware.pcie.endpoint import LinkSignature
from gateware.pcie.host import HostInterface, blocks
from tests.sim.standin import LoopPort, StandIn

#: As options of the process that runs it.
SETTINGS = ("--set", "pcie_width=64", "--set", "host_queues=1", "--set", "ports=2", "--set", "tenants=2")
CONFIG = DeviceConfig(ports=2, tenants=2, pcie_width=64, host_queues=True)


class PcieStandIn(StandIn):
    """See the module's docstring."""

    def __init__(self, config: DeviceConfig = CONFIG):
        super().__init__(config, {"pcie": Out(LinkSignature(config.pcie_width))})

    def _registers(self, m, settings):
        m.submodules.identity = identity = Identity(self.config, 0)
        m.submodules.interface = interface = HostInterface(self.config)
        m.submodules.arbiter = arbiter = CsrArbiter(2)
        m.submodules.decoder = decoder = CsrDecoder([
            word_ranges(["id", "interrupt"]), word_ranges(blocks(self.config))])
        connect(m, flipped(self.mmio), arbiter.initiators[0])
        connect(m, interface.bus, arbiter.initiators[1])
        connect(m, arbiter.bus, decoder.bus)
        connect(m, decoder.targets[0], identity.bus)
        connect(m, decoder.targets[1], interface.registers)
        connect(m, interface.link, flipped(self.pcie))
        m.d.comb += [identity.boot_nonce.eq(self.boot_nonce), identity.uid.eq(self.uid),
                     identity.window.eq(self.interrupt), interface.events.eq(identity.events)]
        if self.config.host_queues:
            m.submodules.loop = loop = LoopPort(self.config, port=0, framed=True)
            connect(m, interface.transmit.header, loop.header)
            connect(m, interface.transmit.data, loop.rx)
            connect(m, loop.tx, interface.receive)
            m.d.comb += [interface.credit.eq(~0), interface.cycle.eq(self.cycle), interface.others.header.ready.eq(1),
                         interface.others.data.ready.eq(1)]
