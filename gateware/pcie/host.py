"""`HostInterface`: the PCIe endpoint as a part of the device, with its registers, buffer and host queues.

    link  <-> Endpoint -> bus: an initiator of the device's register bus, beside the serial bridge
    registers: the blocks pcie, dma, msix, region, dma_buffer and queue, for every initiator of that bus
    events -> MSI-X vectors 0 to 2 (window, change of the allocation, reflex rule); vector 3: end of a DMA transfer;
              vector 4 + t: host queue of tenant t

A function-level reset ends a transfer of the buffer without a trace, as it ends those of the engines, and disables the
queues; other registers and counters stay, and so does the allocation. Register accesses answer as `RegisterBlock` does,
those of the tables as `MsixTable`, `RegionTable` and `QueueTable` do.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.decoder import CsrDecoder
from ..csr.registers import RegisterBlock
from ..csr.regmap import WORD_ADDRESS_WIDTH, word_ranges
from ..stream.packet import PacketSignature
from .buffer import DmaBuffer
from .endpoint import Endpoint, LinkSignature, link_members
from .queues import HostQueues
from .share import DmaShare

__all__ = ["EVENTS", "QUEUE_VECTOR", "HostInterface", "blocks", "vectors"]

#: Causes of `events`, which are the first vectors; then one of the buffer, then one of each queue.
EVENTS = 3
QUEUE_VECTOR = 4
_COUNTERS = {"writes_refused": "write_refused", "reads_refused": "read_refused", "poisoned": "poisoned",
             "unsupported": "unsupported", "unexpected": "unexpected", "blocked": "blocked"}


def blocks(config: DeviceConfig) -> tuple[str, ...]:
    """Blocks of the register map that are served here."""
    return ("pcie", "dma", "msix", "region", "dma_buffer", *(["queue"] if config.host_queues else []))


def vectors(config: DeviceConfig) -> int:
    """Interrupt vectors of the function."""
    return max(16, QUEUE_VECTOR + config.tenants) if config.host_queues else 16


class HostInterface(wiring.Component):
    """The endpoint of a device of `config`, whose `pcie_width` must not be 0.

    With `host_queues`, `transmit`, `receive` and `others` are those of `HostQueues`, on the host port of the fabric.
    """

    def __init__(self, config: DeviceConfig):
        self._endpoint = Endpoint(config.pcie_width, config.tenants, vectors(config))
        self._config, self._width = config, config.pcie_width
        packets = {"transmit": Out(PacketSignature(config)), "receive": In(PacketSignature(config)),
                   "others": Out(PacketSignature(config)), "credit": In(config.tenants), "cycle": In(32)}
        super().__init__((packets if config.host_queues else {}) | {
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
        m.submodules.share = share = ResetInserter(endpoint.function_reset_done)(
            DmaShare(self._width, 1 + self._config.host_queues))
        targets = {("pcie", "dma"): block.bus, ("msix", "region"): endpoint.registers, ("dma_buffer",): buffer.bus}
        raised = [self.events, buffer.ended]
        if self._config.host_queues:
            m.submodules.queues = queues = HostQueues(self._config)
            self._connect_queues(m, endpoint, queues, share.users[1])
            targets[("queue",)] = queues.registers
            raised.append(queues.raised)
        m.submodules.decoder = decoder = CsrDecoder([word_ranges(names) for names in targets])
        wiring.connect(m, wiring.flipped(self.registers), decoder.bus)
        for target, bus in zip(decoder.targets, targets.values(), strict=True):
            wiring.connect(m, target, bus)
        wiring.connect(m, endpoint.bus, wiring.flipped(self.bus))
        wiring.connect(m, buffer.dma, share.users[0])
        wiring.connect(m, share.engines, endpoint.dma)
        m.d.comb += endpoint.raised.eq(Cat(raised))
        self._connect_link(m, endpoint)
        self._connect_buffer(m, block, buffer)
        self._describe(m, endpoint, block)
        return m

    def _connect_queues(self, m, endpoint, queues, user):
        wiring.connect(m, queues.dma, user)
        wiring.connect(m, queues.transmit, wiring.flipped(self.transmit))
        wiring.connect(m, wiring.flipped(self.receive), queues.receive)
        wiring.connect(m, queues.others, wiring.flipped(self.others))
        m.d.comb += [queues.credit.eq(self.credit), queues.cycle.eq(self.cycle),
                     queues.abandon.eq(endpoint.function_reset_done)]

    def _connect_link(self, m, endpoint):
        for name, member in link_members(self._width).items():
            inner, outer = getattr(endpoint, name), getattr(self.link, name)
            if not member.is_port:
                wiring.connect(m, inner, wiring.flipped(outer))
            elif member.flow == In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)

    def _connect_buffer(self, m, block, buffer):
        transfers = block.dma_transfers_value
        m.d.sync += transfers.eq(transfers + buffer.ended)
        m.d.comb += [
            buffer.command.address.eq(Cat(block.dma_address_lo_value, block.dma_address_hi_value)),
            buffer.command.length.eq(block.dma_length_bytes),
            buffer.command.tenant.eq(block.dma_owner_tenant),
            buffer.command.generation.eq(block.dma_owner_generation),
            buffer.read.eq(block.dma_command_read), buffer.write.eq(block.dma_command_write),
            block.dma_status_busy.eq(buffer.busy), block.dma_status_outcome.eq(buffer.outcome),
        ]

    def _describe(self, m, endpoint, block):
        for name in ("bus_master", "msix_enable", "msix_mask", "max_payload", "max_read"):
            m.d.comb += getattr(block, f"pcie_link_{name}").eq(getattr(self.link, name))
        m.d.comb += [block.pcie_link_vectors.eq(vectors(self._config)), endpoint.timeout.eq(block.pcie_timeout_cycles)]
        for register, strobe in _COUNTERS.items():
            count = getattr(block, f"pcie_{register}_value")
            m.d.sync += count.eq(count + getattr(endpoint, strobe))
