"""Dispatcher: brings each request packet to a slot that its tenant may use.

Contract: packets come in on `requests` and go out whole, in their order, each to one of `slots`; index
`config.slots` is the refuser, which gets the packets of tenants for which no slot exists (they own none and all
are owned). Among the slots that a tenant may use, that are not quiesced and that have room for the whole
packet, the one with the most room is taken; if there is none the packet waits, and those behind it. The tag
counts the tenant's requests. Latency is one cycle; packets follow each other without a gap.
"""

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..manager.allocation import AllocationSignature
from ..stream.packet import PacketHeader, PacketSignature
from .ownership import SlotOwnership
from .slot import QUEUED_REQUESTS, TaggedPacketSignature, tag_width

__all__ = ["Dispatcher", "SlotChooser"]


def Chosen(config: DeviceConfig) -> data.StructLayout:
    """A header, its tag, and the index of the slot that was chosen."""
    return data.StructLayout({
        "packet": PacketHeader,
        "tag": tag_width(config),
        "slot": range(config.slots + 1),
    })


class SlotChooser(wiring.Component):
    """Chooses the slot of one header a cycle and reserves room for its packet there.

    released_beat, released_header: strobes, one a target: a beat or a header left the target's queue.
    idle: no header is reserved, queued or at work for the target.

    The account of what is reserved is kept here rather than read from the queues: a packet that was chosen but
    has not arrived yet already counts.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        targets = config.slots + 1
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "headers": In(stream.Signature(PacketHeader)),
            "chosen": Out(stream.Signature(Chosen(config))),
            "quiesce": In(config.slots),
            "released_beat": In(targets),
            "released_header": In(targets),
            "idle": Out(targets),
        })

    def _accounts(self, m, reserve, need):
        """Keep room and places of every target; return a list of (room, fits)."""
        accounts = []
        for index in range(self._config.slots + 1):
            room = Signal(range(MAX_PACKET_BEATS + 1), init=MAX_PACKET_BEATS, name=f"room_{index}")
            places = Signal(range(QUEUED_REQUESTS + 1), init=QUEUED_REQUESTS, name=f"places_{index}")
            m.d.sync += [
                room.eq(room - Mux(reserve[index], need, 0) + self.released_beat[index]),
                places.eq(places - reserve[index] + self.released_header[index]),
            ]
            m.d.comb += self.idle[index].eq(places == QUEUED_REQUESTS)
            accounts.append((room, (room >= need) & (places != 0)))
        return accounts

    def elaborate(self, platform):
        m = Module()
        config = self._config
        header = self.headers.payload
        m.submodules.ownership = ownership = SlotOwnership(config)
        wiring.connect(m, wiring.flipped(self.allocation), ownership.allocation)
        m.submodules.tags = tags = memory.Memory(shape=tag_width(config), depth=config.tenants, init=[])
        tag, next_tag = tags.read_port(domain="comb"), tags.write_port()
        m.d.comb += [
            ownership.tenants[0].eq(header.tenant),
            tag.addr.eq(header.tenant),
            next_tag.addr.eq(header.tenant),
            next_tag.data.eq(tag.data + 1),
        ]

        reserve = Signal(config.slots + 1)
        need = Signal(range(MAX_PACKET_BEATS + 1))
        beat_shift = config.beat_bytes.bit_length() - 1
        m.d.comb += need.eq((header.length + config.beat_bytes - 1) >> beat_shift)
        accounts = self._accounts(m, reserve, need)

        # The roomiest of the slots in question, the lowest index on a tie; without any slot, the refuser.
        eligible = ownership.eligible[0]
        found, choice, most = Signal(), Signal(range(config.slots + 1)), Const(0)
        m.d.comb += found.eq(0)
        for index in range(config.slots):
            room, fits = accounts[index]
            better = Signal(name=f"better_{index}")
            m.d.comb += better.eq(eligible[index] & ~self.quiesce[index] & fits & (room > most))
            with m.If(better):
                m.d.comb += [found.eq(1), choice.eq(index)]
            most = Mux(better, room, most)
        with m.If(eligible == 0):
            m.d.comb += [found.eq(accounts[config.slots][1]), choice.eq(config.slots)]

        free = ~self.chosen.valid | self.chosen.ready
        m.d.comb += [
            self.headers.ready.eq(free & found),
            next_tag.en.eq(self.headers.valid & self.headers.ready),
            reserve.eq(next_tag.en << choice),
        ]
        with m.If(free):
            m.d.sync += [
                self.chosen.valid.eq(next_tag.en),
                self.chosen.payload.packet.eq(header),
                self.chosen.payload.tag.eq(tag.data),
                self.chosen.payload.slot.eq(choice),
            ]
        return m


class Dispatcher(wiring.Component):
    """Chooser, and the beats that follow its choice. What it sends is always taken: room was reserved."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        targets = config.slots + 1
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "requests": In(PacketSignature(config)),
            "slots": Out(TaggedPacketSignature(config)).array(targets),
            "quiesce": In(config.slots),
            "released_beat": In(targets),
            "released_header": In(targets),
            "idle": Out(targets),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.chooser = chooser = SlotChooser(self._config)
        wiring.connect(m, wiring.flipped(self.allocation), chooser.allocation)
        wiring.connect(m, wiring.flipped(self.requests.header), chooser.headers)
        m.d.comb += [
            chooser.quiesce.eq(self.quiesce),
            chooser.released_beat.eq(self.released_beat),
            chooser.released_header.eq(self.released_header),
            self.idle.eq(chooser.idle),
        ]

        chosen, beats = chooser.chosen, self.requests.data
        first = Signal(init=1)
        m.d.comb += [
            beats.ready.eq(chosen.valid),
            chosen.ready.eq(beats.valid & beats.payload.last),
        ]
        with m.If(chosen.valid & beats.valid):
            m.d.sync += first.eq(beats.payload.last)
        for index, slot in enumerate(self.slots):
            here = chosen.valid & beats.valid & (chosen.payload.slot == index)
            m.d.comb += [
                slot.header.valid.eq(here & first),
                slot.header.payload.packet.eq(chosen.payload.packet),
                slot.header.payload.tag.eq(chosen.payload.tag),
                slot.data.valid.eq(here),
                slot.data.payload.eq(beats.payload),
            ]
        return m
