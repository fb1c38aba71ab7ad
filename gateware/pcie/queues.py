"""`HostQueues`: a queue pair for each tenant, between rings in host memory and the host port of the fabric.

    rings -> dma -> QueueReads -> QueueSender -> transmit     receive -> QueueReceiver -> QueueWrites -> dma -> rings
                          ^----- QueueEngine, QueueTable <- registers -----^    '-> others (tenants without a queue)

The queue of a tenant is its row: what it sends carries that tenant's number, waits for that tenant's credit under the
allocation in force, and is admitted as the allocation says; what it reads and writes are DMA commands of that tenant.
`abandon`, when the DMA engines are reset: all queues are disabled, and descriptors that were being worked on stay as
they are. Formats and contract are those of `QueueEngine` and `QueueTable`.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.regmap import WORD_ADDRESS_WIDTH
from ..stream.packet import PacketSignature
from .queue_engine import QueueEngine
from .queue_ports import QueueReceiver, QueueSender
from .queue_table import QueueTable
from .share import DmaSignature

__all__ = ["HostQueues"]


class HostQueues(wiring.Component):
    """Queues of `config`; the engines have its `data_width`. `raised`: a bit a tenant, high for a cycle."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "registers": In(CsrSignature(WORD_ADDRESS_WIDTH)), "dma": Out(DmaSignature(config.data_width)),
            "transmit": Out(PacketSignature(config)), "credit": In(config.tenants), "cycle": In(32),
            "receive": In(PacketSignature(config)), "others": Out(PacketSignature(config)),
            "raised": Out(config.tenants), "abandon": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.table = table = QueueTable(config.tenants)
        m.submodules.sender = sender = QueueSender(config)
        m.submodules.receiver = receiver = QueueReceiver(config)
        engine = QueueEngine(config, sender, receiver)
        m.submodules.engine = ResetInserter(self.abandon)(engine)
        wiring.connect(m, wiring.flipped(self.registers), table.bus)
        wiring.connect(m, engine.table, table.engine)
        wiring.connect(m, engine.dma, wiring.flipped(self.dma))
        wiring.connect(m, sender.packets, wiring.flipped(self.transmit))
        wiring.connect(m, wiring.flipped(self.receive), receiver.packets)
        wiring.connect(m, receiver.others, wiring.flipped(self.others))
        m.d.comb += [
            table.stop_all.eq(self.abandon), receiver.enabled.eq(table.engine.enabled),
            receiver.rewind.eq(self.abandon),
            engine.credit.eq(self.credit), engine.cycle.eq(self.cycle), self.raised.eq(engine.raised),
        ]
        # Packets that were being sent leave whole; until then their places are not filled anew.
        with m.If(self.abandon):
            m.d.sync += engine.hold.eq(1)
        with m.Elif(~sender.busy):
            m.d.sync += engine.hold.eq(0)
        return m
