"""The engine array: every engine slot behind the fabric's engine port, and the slots' registers.

Contract: each request packet is answered with one response packet to its source; the responses of one tenant
leave in the order of its requests. A tenant that owns slots is served by these alone, others by the slots that
nobody owns; if there are none either, the answer has status `NO_SLOT`. A packet whose slots are all quiesced or
full waits, and with it those behind it (the fabric's stall time-out then applies). `busy` reports each slot's
work.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from ..manager.allocation import AllocationSignature
from ..stream.packet import PacketSignature
from .collector import ResponseCollector
from .crc32c import Crc32cShard
from .dispatcher import Dispatcher
from .queue import RequestQueue
from .refuser import Refuser
from .slot import SlotBusy

__all__ = ["EngineArray"]


class EngineArray(wiring.Component):
    """Dispatcher, a queue and a CRC-32C shard a slot, refuser, collector, registers."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "bus": In(CsrSignature(16)),
            "requests": In(PacketSignature(config)),
            "responses": Out(PacketSignature(config)),
            "allocation": In(AllocationSignature(config)),
            "busy": Out(SlotBusy).array(config.slots),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.dispatcher = dispatcher = Dispatcher(config)
        m.submodules.collector = collector = ResponseCollector(config)
        m.submodules.registers = registers = RegisterBlock({"slot": config.slots})
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        wiring.connect(m, wiring.flipped(self.allocation), dispatcher.allocation)
        wiring.connect(m, wiring.flipped(self.requests), dispatcher.requests)
        wiring.connect(m, collector.responses, wiring.flipped(self.responses))

        for index in range(config.slots + 1):
            shard = Crc32cShard(config) if index < config.slots else Refuser(config)
            queue = RequestQueue(config)
            m.submodules[f"shard_{index}"] = shard
            m.submodules[f"queue_{index}"] = queue
            wiring.connect(m, dispatcher.slots[index], queue.source)
            wiring.connect(m, queue.sink, shard.slot.request)
            wiring.connect(m, shard.slot.response, collector.slots[index])
            m.d.comb += [
                dispatcher.released_header[index].eq(queue.sink.header.valid & queue.sink.header.ready),
                dispatcher.released_beat[index].eq(queue.sink.data.valid & queue.sink.data.ready),
            ]
            if index < config.slots:
                self._attach_registers(m, index, registers, dispatcher, queue, shard.slot)
        return m

    def _attach_registers(self, m, index, registers, dispatcher, queue, slot):
        def port(name):
            return getattr(registers, f"slot_{index}_{name}")

        quiesce = port("control_quiesce")
        m.d.comb += [
            slot.quiesce.eq(quiesce),
            dispatcher.quiesce[index].eq(quiesce),
            self.busy[index].eq(slot.busy),
            port("shard_id").eq(slot.shard),
            port("status_busy").eq(slot.busy.busy),
            # A packet on its way from the chooser into the queue is not drained either: it holds a place.
            port("status_drained").eq(slot.drained & queue.empty & dispatcher.idle[index]),
            port("requests_value").eq(slot.requests),
            port("busy_cycles_value").eq(slot.busy_cycles),
        ]
