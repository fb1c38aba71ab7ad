"""Dispatcher: brings each request packet to a slot that its tenant may use.

Contract: packets come in on `requests` and go out whole, in their order, each to one of `slots`; index `config.slots`
is the refuser, which gets the packets of tenants for which no slot exists (they own none and all are owned). Among
the slots that a tenant may use: one that is not quiesced before one that is; an idle one before one with one request,
that before one where others wait, and all of these before one that is `far` from its end; the lowest of equals. A
packet waits, and those behind it, only if all its slots' header queues are full or its tenant has no ticket: the
array's feedback lets neither happen. Latency is one cycle; packets follow each other without a gap.

`assigned` strobes, with `tenant` and `target`, when a packet is given to a slot, which is before its first beat.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import PacketHeader, PacketSignature
from .shard import COST_BITS, TaggedPacketSignature, tag_shape
from .slot import QUEUED_REQUESTS

__all__ = ["Dispatcher"]


class Dispatcher(wiring.Component):
    """Chooses for one header a cycle; the beats follow its choice.

    usable, full: the slots that `tenant` may use, and whether it has no ticket, in the same cycle. load: requests of
    each slot. tag, price: what the header takes with it. word, word_enable: the first eight bytes of the packet on
    its way, for the ticket of `word_tenant` and `word_tag`.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "requests": In(PacketSignature(config)),
            "slots": Out(TaggedPacketSignature(config)).array(config.slots + 1),
            "tenant": Out(range(config.tenants)),
            "usable": In(config.slots),
            "full": In(1),
            "quiesce": In(config.slots),
            "load": In(range(QUEUED_REQUESTS + 1)).array(config.slots),
            "far": In(config.slots),
            "tag": In(tag_shape(config)),
            "price": In(COST_BITS),
            "assigned": Out(1),
            "target": Out(range(config.slots + 1)),
            "word": Out(64),
            "word_enable": Out(2),
            "word_tenant": Out(range(config.tenants)),
            "word_tag": Out(tag_shape(config)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        header = self.requests.header
        found = self._choose(m)
        valid, chosen = Signal(name="valid"), Signal(data.StructLayout({
            "packet": PacketHeader, "tag": tag_shape(config), "price": COST_BITS,
            "target": range(config.slots + 1)}), name="chosen")
        moves, ends = self._pass(m, valid, chosen)
        free = ~valid | ends
        m.d.comb += [
            self.tenant.eq(header.payload.tenant),
            header.ready.eq(free & found & ~self.full),
            self.assigned.eq(header.valid & header.ready),
        ]
        with m.If(free):
            m.d.sync += [
                valid.eq(self.assigned),
                chosen.packet.eq(header.payload),
                chosen.tag.eq(self.tag),
                chosen.price.eq(self.price),
                chosen.target.eq(self.target),
            ]
        self._copy_word(m, chosen, moves)
        return m

    def _choose(self, m):
        """The best slot for the header that is offered; returns "there is one"."""
        slots = self._config.slots
        found = Signal()
        places = Cat(load < QUEUED_REQUESTS for load in self.load)
        idle = Cat(load == 0 for load in self.load)
        single = Cat(load == 1 for load in self.load)
        usable = self.usable & places
        with m.If(self.usable == 0):
            m.d.comb += [self.target.eq(slots), found.eq(1)]
        with m.Else():
            taking = usable & ~self.quiesce
            soon = taking & ~self.far
            for mask in (usable, taking, taking & single, soon, soon & single, taking & idle):
                for index in reversed(range(slots)):
                    with m.If(mask[index]):
                        m.d.comb += [self.target.eq(index), found.eq(1)]
        return found

    def _pass(self, m, valid, chosen):
        """Sends the beats of the chosen packet, the header with the first; returns (a beat goes, it is the last).

        The header stands until it is taken: a queue takes it at once, the refuser with the last beat.
        """
        beats = self.requests.data
        header_sent = Signal()
        moves, ends = Signal(), Signal()
        for index, slot in enumerate(self.slots):
            here = valid & beats.valid & (chosen.target == index)
            m.d.comb += [
                slot.header.valid.eq(here & ~header_sent),
                slot.header.payload.packet.eq(chosen.packet),
                slot.header.payload.tag.eq(chosen.tag),
                slot.header.payload.price.eq(chosen.price),
                slot.data.valid.eq(here),
                slot.data.payload.eq(beats.payload),
            ]
            with m.If(chosen.target == index):
                m.d.comb += beats.ready.eq(valid & slot.data.ready)
            with m.If(slot.header.valid & slot.header.ready):
                m.d.sync += header_sent.eq(1)
        m.d.comb += [
            moves.eq(beats.valid & beats.ready),
            ends.eq(moves & beats.payload.last),
        ]
        with m.If(ends):
            m.d.sync += header_sent.eq(0)
        return moves, ends

    def _copy_word(self, m, chosen, moves):
        """The request word, from the first beat, or the first two of 32 bits; zero beyond the end of the packet."""
        config, beat = self._config, self.requests.data.payload
        masked = Signal(config.data_width)
        for byte in range(config.beat_bytes):
            m.d.comb += masked.word_select(byte, 8).eq(
                Mux(beat.last & (beat.empty >= config.beat_bytes - byte), 0, beat.data.word_select(byte, 8)))
        place = Signal(2)  # beats of this packet that went, saturating
        with m.If(moves):
            m.d.sync += place.eq(Mux(beat.last, 0, Mux(place == 2, 2, place + 1)))
        m.d.comb += [
            self.word_tenant.eq(chosen.packet.tenant),
            self.word_tag.eq(chosen.tag),
            self.word.eq(masked),
        ]
        with m.If(moves & (place == 0)):
            m.d.comb += self.word_enable.eq(0b11)
        if config.data_width < 64:
            with m.Elif(moves & (place == 1)):
                m.d.comb += [self.word.eq(masked << 32), self.word_enable.eq(0b10)]
