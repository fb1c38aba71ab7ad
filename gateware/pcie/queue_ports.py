"""The fabric's side of the host queues: `QueueSender` and `QueueReceiver`, with room for several packets each.

Between a packet port, which must not wait for host memory, and DMA, which may fail half way, lie whole packets: what is
offered to the fabric is complete, and what the fabric delivers is taken while there is room. Neither is touched by a
function reset, so that a packet is never cut off.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import CREDIT_BEATS, MAX_PACKET_BEATS, DeviceConfig
from ..stream.packet import PacketHeader, PacketSignature

__all__ = ["Packet", "QueueReceiver", "QueueSender"]

#: Places of a tenant, for packets to be sent.
SLOTS = 16
#: Cycles from the transfer of a header to the credit that counts it, through the mux before the fabric.
SETTLE = 12
#: Packets in the receiver, and the beats that they may have together.
PACKETS, ROWS = 8, 2 * MAX_PACKET_BEATS


class Packet(data.Struct):
    """A packet to be sent: its beats lie at `place` of its tenant."""

    header: PacketHeader
    place: range(SLOTS)


class QueueSender(wiring.Component):
    """Sends packets from its memory, a beat a cycle, the first two cycles after a packet was taken.

    `store`: port of the memory; `address` tells the row of a beat. `settled`: the fabric's credit counts all headers
    that were taken from `next`. `busy`: a packet is being sent.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        depth = CREDIT_BEATS * SLOTS << ceil_log2(config.tenants)
        self._beats = Memory(shape=unsigned(config.data_width), depth=depth, init=[])
        self.store = self._beats.write_port()
        super().__init__({"next": In(stream.Signature(Packet)), "settled": Out(1), "busy": Out(1),
                          "packets": Out(PacketSignature(config))})

    @staticmethod
    def address(tenant, place, beat):
        """Row of a beat of the packet at `place`."""
        return Cat(beat[:ceil_log2(CREDIT_BEATS)], place[:ceil_log2(SLOTS)], tenant)

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.beats = self._beats
        fetch, beat, left = self._beats.read_port(), Signal(range(CREDIT_BEATS + 1)), Signal(13)
        offered, place, settling = Signal(), Signal(range(SLOTS)), Signal(range(SETTLE + 1))
        header, payload, goes = self.packets.header, self.packets.data.payload, Signal()
        m.d.comb += [
            # The row after the one that goes is looked up at once.
            fetch.addr.eq(self.address(header.payload.tenant, place, (beat + goes)[:len(beat)])),
            header.valid.eq(offered),
            goes.eq(self.packets.data.valid & self.packets.data.ready),
            payload.data.eq(fetch.data), payload.last.eq(left <= config.beat_bytes),
            payload.empty.eq(Mux(payload.last, config.beat_bytes - left, 0)),
            self.settled.eq(~offered & (settling == 0)),
        ]
        with m.If(settling != 0):
            m.d.sync += settling.eq(settling - 1)
        with m.If(header.valid & header.ready):
            m.d.sync += [offered.eq(0), settling.eq(SETTLE)]
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.next.ready.eq(~offered)
                m.d.sync += beat.eq(0)
                with m.If(self.next.valid & ~offered):
                    m.d.sync += [offered.eq(1), header.payload.eq(self.next.payload.header),
                                 place.eq(self.next.payload.place), left.eq(self.next.payload.header.length)]
                    m.next = "look up"
            with m.State("look up"):
                m.d.comb += self.busy.eq(1)
                m.next = "send"
            with m.State("send"):
                # The last beat waits for the header.
                m.d.comb += [self.busy.eq(1), self.packets.data.valid.eq(~payload.last | ~offered | header.ready)]
                with m.If(goes):
                    m.d.sync += [beat.eq(beat + 1), left.eq(left - config.beat_bytes)]
                    with m.If(payload.last):
                        m.next = "idle"
        return m


class Arrived(data.Struct):
    """A packet in the receiver."""

    tenant: 6
    length: 12


class QueueReceiver(wiring.Component):
    """Takes packets of tenants with a queue; those of others pass on as `others`, with one cycle more.

    A packet is seen twice, in order: `asks` tells whose the next one is, as soon as it is whole, to whoever finds a
    place for it; `beats` brings the beats of the oldest while `give`, and `skip` passes over it. `rewind`: the packets
    whose beats have not all gone are told of again, and begin anew.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "packets": In(PacketSignature(config)), "others": Out(PacketSignature(config)),
            "enabled": In(config.tenants), "rewind": In(1), "asks": Out(stream.Signature(Arrived)),
            "beats": Out(stream.Signature(data.StructLayout({"data": config.data_width, "last": 1}))),
            "give": In(1), "skip": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.beats = beats = Memory(shape=unsigned(self._config.data_width), depth=ROWS, init=[])
        m.submodules.known = known = Memory(shape=Arrived, depth=PACKETS, init=[])
        counts, store = _Counts(), beats.write_port()
        self._elaborate_arrival(m, store, known.write_port(), counts)
        self._elaborate_asks(m, known.read_port(domain="comb"), counts)
        self._elaborate_beats(m, beats.read_port(transparent_for=[store]), known.read_port(domain="comb"), counts)
        return m

    def _elaborate_arrival(self, m, store, note, counts):
        header, data, sent = self.packets.header, self.packets.data, Signal()
        wanted = (header.payload.length + (self._config.beat_bytes - 1)) // self._config.beat_bytes
        used = (counts.filled - counts.freed)[:len(counts.freed)]
        room = ((counts.arrived - counts.given)[:len(counts.given)] != PACKETS) & (used + wanted <= ROWS)
        m.d.comb += [
            store.addr.eq(counts.filled), store.data.eq(data.payload.data),
            note.addr.eq(counts.arrived), note.data.tenant.eq(header.payload.tenant),
            note.data.length.eq(header.payload.length),
            self.others.header.payload.eq(header.payload), self.others.data.payload.eq(data.payload),
        ]
        with m.FSM():
            with m.State("choose"):
                m.d.sync += sent.eq(0)
                with m.If(header.valid & ~self.enabled.bit_select(header.payload.tenant, 1)):
                    m.next = "pass"
                with m.Elif(header.valid & room):
                    m.d.comb += [header.ready.eq(1), note.en.eq(1)]
                    m.next = "fill"
            with m.State("fill"):
                m.d.comb += [data.ready.eq(1), store.en.eq(data.valid)]
                with m.If(data.valid):
                    m.d.sync += counts.filled.eq(counts.filled + 1)
                    with m.If(data.payload.last):
                        m.d.sync += counts.arrived.eq(counts.arrived + 1)
                        m.next = "choose"
            with m.State("pass"):
                held = data.payload.last & ~sent & ~self.others.header.ready
                m.d.comb += [
                    self.others.header.valid.eq(header.valid & ~sent),
                    header.ready.eq(self.others.header.ready & ~sent),
                    self.others.data.valid.eq(data.valid & ~held),
                    data.ready.eq(self.others.data.ready & ~held),
                ]
                with m.If(header.valid & header.ready):
                    m.d.sync += sent.eq(1)
                with m.If(data.valid & data.ready & data.payload.last):
                    m.next = "choose"

    def _elaborate_asks(self, m, look, counts):
        m.d.comb += [look.addr.eq(counts.asked), self.asks.payload.eq(look.data),
                     self.asks.valid.eq(counts.asked != counts.arrived)]
        with m.If(self.rewind):
            m.d.sync += counts.asked.eq(counts.given + counts.ends)
        with m.Elif(self.asks.valid & self.asks.ready):
            m.d.sync += counts.asked.eq(counts.asked + 1)

    def _elaborate_beats(self, m, fetch, look, counts):
        """Rows from `freed` on belong to the oldest packet, of which `place` went."""
        place, following, total = Signal(range(ROWS)), Signal(range(ROWS)), Signal(range(ROWS))
        seen = Signal()  # the row that is due was looked up
        beats, ends = self.beats, counts.ends
        m.d.comb += [
            look.addr.eq(counts.given),
            total.eq((look.data.length + (self._config.beat_bytes - 1)) // self._config.beat_bytes),
            beats.payload.data.eq(fetch.data), beats.payload.last.eq(place + 1 == total),
            beats.valid.eq(self.give & seen),
            ends.eq((beats.valid & beats.ready & beats.payload.last) | self.skip),
            following.eq(place + (beats.valid & beats.ready)),
            fetch.addr.eq(counts.freed + Mux(ends, total, following)),
        ]
        m.d.sync += [seen.eq(1), place.eq(Mux(ends, 0, following))]
        with m.If(ends):
            m.d.sync += [counts.given.eq(counts.given + 1), counts.freed.eq(counts.freed + total)]
        with m.If(self.rewind):
            m.d.sync += [place.eq(0), seen.eq(0)]


class _Counts:
    """Packets and rows of the receiver, modulo twice what there is room for. `ends`: one is given away whole now."""

    def __init__(self):
        self.ends = Signal()
        self.arrived, self.asked, self.given = (Signal(range(2 * PACKETS), name=name)
                                                for name in ("arrived", "asked", "given"))
        self.filled, self.freed = Signal(range(2 * ROWS), name="filled"), Signal(range(2 * ROWS), name="freed")
