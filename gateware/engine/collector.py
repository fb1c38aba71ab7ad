"""Response collector: one packet port from the responses of all slots.

Contract: a slot's response is taken only when its tag is the next one of its tenant, so the responses of one
tenant leave in the order of its requests, whichever slots worked on them; responses of different tenants pass
each other. Among slots that may go: round robin. This cannot lock up: the oldest request of all is always the
first in its slot and the next one of its tenant. Latency is one cycle, and one cycle lies between packets.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import PacketSignature
from .slot import TaggedPacketSignature, tag_width

__all__ = ["ResponseCollector"]


class ResponseCollector(wiring.Component):
    """Merges `config.slots` slots and the refuser."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "slots": In(TaggedPacketSignature(config)).array(config.slots + 1),
            "responses": Out(PacketSignature(config)),
        })

    def _may_go(self, m):
        """Bit mask of the slots whose response is the next one of its tenant; writes the counters."""
        config = self._config
        m.submodules.expected = expected = memory.Memory(
            shape=tag_width(config), depth=config.tenants, init=[])
        ready = Signal(config.slots + 1)
        for index, slot in enumerate(self.slots):
            port = expected.read_port(domain="comb")
            m.d.comb += [
                port.addr.eq(slot.header.payload.packet.tenant),
                ready[index].eq(slot.header.valid & (slot.header.payload.tag == port.data)),
            ]
        count = expected.write_port()
        header = self.responses.header
        tag = Signal(tag_width(config))
        m.d.comb += [
            count.addr.eq(header.payload.tenant),
            count.data.eq(tag + 1),
            count.en.eq(header.valid & header.ready),
        ]
        return ready, tag

    def elaborate(self, platform):
        m = Module()
        ready, tag = self._may_go(m)
        targets = len(self.slots)
        chosen = Signal(range(targets))
        header_sent = Signal()

        with m.FSM():
            # Nothing in transfer: choose, beginning behind the slot chosen last.
            with m.State("CHOOSE"):
                m.d.sync += header_sent.eq(0)
                with m.Switch(chosen):
                    for last in range(targets):
                        with m.Case(last):
                            for step in reversed(range(1, targets + 1)):
                                index = (last + step) % targets
                                with m.If(ready[index]):
                                    m.d.sync += chosen.eq(index)
                with m.If(ready.any()):
                    m.next = "TRANSFER"
            # Header and beats of the chosen response pass through, up to its last beat.
            with m.State("TRANSFER"):
                with m.Switch(chosen):
                    for index, slot in enumerate(self.slots):
                        with m.Case(index):
                            self._pass(m, slot, tag, header_sent)
                header, beats = self.responses.header, self.responses.data
                with m.If(header.valid & header.ready):
                    m.d.sync += header_sent.eq(1)
                with m.If(beats.valid & beats.ready & beats.payload.last):
                    m.next = "CHOOSE"
        return m

    def _pass(self, m, slot, tag, header_sent):
        """Connect one slot to the output; its next header has to wait for a new choice."""
        header, beats = self.responses.header, self.responses.data
        m.d.comb += [
            header.valid.eq(slot.header.valid & ~header_sent),
            header.payload.eq(slot.header.payload.packet),
            tag.eq(slot.header.payload.tag),
            slot.header.ready.eq(header.ready & ~header_sent),
            beats.valid.eq(slot.data.valid & header_sent),
            beats.payload.eq(slot.data.payload),
            slot.data.ready.eq(beats.ready & header_sent),
        ]
