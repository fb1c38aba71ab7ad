"""`HostInterface`: the PCIe endpoint as a part of the device, with its registers, its interrupts and its test buffer.

    link  <-> Endpoint -> bus: an initiator of the device's register bus, beside the serial bridge
    registers: the blocks pcie, dma, msix, region and dma_buffer, for every initiator of that bus
    events -> MSI-X vectors 0 to 2 (window, change of the allocation, reflex rule); vector 3: end of a DMA transfer

A function-level reset ends a transfer of the buffer without a trace, as it ends those of the engines; registers and
counters stay, and so does the allocation. Register accesses answer as `RegisterBlock` does, those of the tables as
`MsixTable` and `RegionTable` do.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.decoder import CsrDecoder
from ..csr.registers import RegisterBlock
from ..csr.regmap import WORD_ADDRESS_WIDTH, word_ranges
from .buffer import DmaBuffer
from .endpoint import Endpoint, LinkSignature, link_members

__all__ = ["BLOCKS", "EVENTS", "VECTORS", "HostInterface"]

#: Blocks of the register map that are served here.
BLOCKS = ("pcie", "dma", "msix", "region", "dma_buffer")
VECTORS = 16
#: Causes of `events`, which are the first vectors.
EVENTS = 3
_COUNTERS = {"writes_refused": "write_refused", "reads_refused": "read_refused", "poisoned": "poisoned",
             "unsupported": "unsupported", "unexpected": "unexpected", "blocked": "blocked"}


class HostInterface(wiring.Component):
    """The endpoint of a device of `config`, whose `pcie_width` must not be 0."""

    def __init__(self, config: DeviceConfig):
        self._endpoint = Endpoint(config.pcie_width, config.tenants, VECTORS)
        self._width = config.pcie_width
        super().__init__({
            "link": Out(LinkSignature(config.pcie_width)),
            "bus": Out(CsrSignature(WORD_ADDRESS_WIDTH)),
            "registers": In(CsrSignature(WORD_ADDRESS_WIDTH)),
            "events": In(EVENTS),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.endpoint = endpoint = self._endpoint
        m.submodules.block = block = RegisterBlock(["pcie", "dma"])
        m.submodules.buffer = buffer = ResetInserter(endpoint.function_reset_done)(DmaBuffer(self._width))
        m.submodules.decoder = decoder = CsrDecoder([
            word_ranges(["pcie", "dma"]), word_ranges(["msix", "region"]), word_ranges(["dma_buffer"])])
        wiring.connect(m, wiring.flipped(self.registers), decoder.bus)
        for target, bus in zip(decoder.targets, (block.bus, endpoint.registers, buffer.bus), strict=True):
            wiring.connect(m, target, bus)
        wiring.connect(m, endpoint.bus, wiring.flipped(self.bus))
        self._connect_link(m, endpoint)
        self._connect_buffer(m, endpoint, block, buffer)
        self._describe(m, endpoint, block)
        return m

    def _connect_link(self, m, endpoint):
        for name, member in link_members(self._width).items():
            inner, outer = getattr(endpoint, name), getattr(self.link, name)
            if not member.is_port:
                wiring.connect(m, inner, wiring.flipped(outer))
            elif member.flow == In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)

    def _connect_buffer(self, m, endpoint, block, buffer):
        for name in ("read_commands", "read_data", "read_reports", "write_commands", "write_data", "write_reports"):
            wiring.connect(m, getattr(buffer, name), getattr(endpoint, name))
        transfers = block.dma_transfers_value
        m.d.sync += transfers.eq(transfers + buffer.ended)
        m.d.comb += [
            buffer.command.address.eq(Cat(block.dma_address_lo_value, block.dma_address_hi_value)),
            buffer.command.length.eq(block.dma_length_bytes),
            buffer.command.tenant.eq(block.dma_owner_tenant),
            buffer.command.generation.eq(block.dma_owner_generation),
            buffer.read.eq(block.dma_command_read), buffer.write.eq(block.dma_command_write),
            block.dma_status_busy.eq(buffer.busy), block.dma_status_outcome.eq(buffer.outcome),
            endpoint.raised.eq(Cat(self.events, buffer.ended)),
        ]

    def _describe(self, m, endpoint, block):
        for name in ("bus_master", "msix_enable", "msix_mask", "max_payload", "max_read"):
            m.d.comb += getattr(block, f"pcie_link_{name}").eq(getattr(self.link, name))
        m.d.comb += [block.pcie_link_vectors.eq(VECTORS), endpoint.timeout.eq(block.pcie_timeout_cycles)]
        for register, strobe in _COUNTERS.items():
            count = getattr(block, f"pcie_{register}_value")
            m.d.sync += count.eq(count + getattr(endpoint, strobe))
