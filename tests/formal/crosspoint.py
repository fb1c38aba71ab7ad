"""Contract of one crosspoint and the reader behind it: what leaves is what was admitted, once, whole and in order.

One word and one packet are followed, any, picked when they are written (the symbolic slot is the place where that was).
The writer behaves as admission is proven to (`admission.py`): a packet is booked with its first beat; its beats follow
at any pace, as many as its header says. Where it is laid down is the rule of `place` applied to the end of the queue
that the account has in that cycle. Headers, beats, tables and the sequence of grants are free. So is the other
crosspoint of the column, but for the zeros that it puts out when it was not asked, and for headers that agree with
themselves.

`CrosspointInvariant` (`lists.py`) is what makes the induction close.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateware.config import MAX_PACKET_BEATS, PAGE_BEATS
from gateware.fabric.account import BookingSignature
from gateware.fabric.chain import WriteSignature
from gateware.fabric.crosspoint import STORED, Crosspoint, ReadSignature
from gateware.fabric.place import place_layout, place_packet, placement_layout
from gateware.fabric.reader import Reader
from gateware.manager.allocation import AllocationSignature
from gateware.stream.packet import PacketHeader, beat_layout
from tests.formal.lists import CrosspointInvariant
from tests.formal.prover import AnySeq, Assume, Claims, free_inputs, internals
from tests.formal.queues import BEATS, PACKETS, beats_behind


class Lane(wiring.Component):
    """The crosspoint of input 0 and the reader of output 1; the column's other crosspoint is the environment's."""

    SOURCE, PORT = 0, 1

    def __init__(self, config):
        self.config = config
        self.crosspoint, self.reader = self.make_crosspoint(), Reader(config, self.PORT)
        grants = self.reader.signature.members
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "booking": In(BookingSignature(config)),
            "w": In(WriteSignature(config)),
            "other": Out(ReadSignature(config)),
            **{name: grants[name] for name in ("grant", "valid", "first", "header", "beat", "take")},
        })

    def make_crosspoint(self):
        """The one between writer and reader; a wrong one in a test."""
        return Crosspoint(self.config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.crosspoint, m.submodules.reader = crosspoint, reader = self.crosspoint, self.reader
        for name in ("allocation", "booking", "w"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(crosspoint, name))
        wiring.connect(m, reader.crosspoints[self.SOURCE], crosspoint.r)
        wiring.connect(m, reader.crosspoints[1 - self.SOURCE], wiring.flipped(self.other))
        wiring.connect(m, wiring.flipped(self.grant), reader.grant)
        m.d.comb += reader.take.eq(self.take)
        for name in ("valid", "first", "header", "beat"):
            m.d.comb += getattr(self, name).eq(getattr(reader, name))
        return m


class CrosspointContract(Elaboratable):
    """`dut` is a `Lane`.

    invariant: also claim what makes the induction close; part: of the claims, see `lists.PARTS`.
    """

    def __init__(self, dut, invariant=False, part=None):
        self.dut, self.config, self.invariant = dut, dut.config, invariant
        self.claims = Claims(part, assume=invariant)

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        m.submodules.dut, self.inside = internals(dut)
        tenants = range(self.config.tenants)
        self.written, self.left = ([Signal(BEATS, name=f"{name}_{t}") for t in tenants] for name in ("written", "left"))
        self.complete, self.gone = ([Signal(PACKETS, name=f"{name}_{t}") for t in tenants]
                                    for name in ("complete", "gone"))
        self._reading_side(m)
        self._write(m)
        self._count(m)
        self._follow_word(m)
        self._follow_packet(m)
        if self.invariant:
            CrosspointInvariant(m, self).claim_all()
        self.claims.finish(m)
        return m

    def _reading_side(self, m):
        """Any tables, any grants, and the other crosspoint."""
        dut, other = self.dut, self.dut.other
        self.asked = Signal(2)   # of the other crosspoint, when it moved last: (header, beat)
        free_inputs(m, dut.allocation)
        free_inputs(m, other)
        tenant, header, beat = Signal(), Signal.like(other.header), Signal.like(other.beat)
        for signal in (dut.grant.valid, tenant, header, beat):
            m.d.comb += signal.eq(AnySeq(len(Value.cast(signal))))
        m.d.comb += [
            header.several.eq(beats_behind(self.config, header) != 0),
            dut.grant.payload.mask.eq(1 << tenant), dut.grant.payload.tenant.eq(tenant),
            dut.take.eq(AnySeq(1) & dut.valid),
            other.header.eq(Mux(self.asked[0], header, 0)), other.beat.eq(Mux(self.asked[1], beat, 0)),
        ]
        with m.If(other.move):
            m.d.sync += self.asked.eq(Cat(other.header_wanted, other.beat_wanted))

    def _end_of_queue(self, m, tenant):
        """Where the queue of `tenant` ends, as the account has it now."""
        account = "crosspoint.account"
        booked, released = (self.inside.word(m, f"{account}.{name}", tenant) for name in ("booked", "released"))
        place = Signal(place_layout(), name="end_of_queue")
        m.d.comb += [place.open.eq(booked.openings ^ released.closings), place.beats.eq(booked.beats),
                     place.descriptors.eq(booked.descriptors)]
        return place

    def _write(self, m):
        """Packets of any length, one after another, booked with their first beat."""
        w, booking, config = self.dut.w, self.dut.booking, self.config
        # Of the packet under way; `to_come`: beats of it.
        self.busy, self.tenant, self.placed = Signal(), Signal(range(config.tenants)), Signal(placement_layout())
        self.to_come, self.total = Signal(range(MAX_PACKET_BEATS + 1)), Signal(range(MAX_PACKET_BEATS + 1))
        free_inputs(m, booking)
        tenant, beats, unused, put, write = (Signal(width, name=name) for name, width in (
            ("new_tenant", 1), ("new_beats", len(self.total)), ("unused", range(config.beat_bytes)), ("put", 1),
            ("write", 1)))
        for signal in (tenant, beats, unused, put, write, w.beat, w.header):
            m.d.comb += signal.eq(AnySeq(len(Value.cast(signal))))
        fresh = place_packet(m, self._end_of_queue(m, tenant), (beats - 1)[:(MAX_PACKET_BEATS - 1).bit_length()])
        m.d.comb += [
            Assume((beats != 0) & (beats <= PAGE_BEATS * config.pages)),
            booking.tenant.eq(tenant), booking.need.eq(fresh.need), booking.after.eq(fresh.after),
            booking.reserve.eq(w.write & w.first),
            w.first.eq(~self.busy), w.put.eq(put),
            w.write.eq(w.put & write & (self.busy | (booking.fits & ~booking.hold))),
            w.tenant.eq(Mux(self.busy, self.tenant, tenant)), w.placed.eq(Mux(self.busy, self.placed, fresh)),
            w.end.eq(Mux(self.busy, self.to_come == 1, beats == 1)), w.beat.last.eq(w.end),
            w.header.length.eq(Mux(self.busy, self.total, beats) * config.beat_bytes - unused),
        ]
        with m.If(w.write):
            m.d.sync += [self.busy.eq(~w.end), self.to_come.eq(Mux(self.busy, self.to_come, beats) - 1)]
        with m.If(booking.reserve):
            m.d.sync += [self.tenant.eq(tenant), self.placed.eq(fresh), self.total.eq(beats)]

    def _count(self, m):
        """How many beats and packets of each tenant were written and left, and whose packet is on offer."""
        dut, w = self.dut, self.dut.w
        key = Cat(dut.header.tenant, dut.header.source)
        self.under_way = under_way = Signal.like(key)   # of the packet whose first beat was taken last
        with m.If(dut.take & dut.first):
            m.d.sync += under_way.eq(key)
        for tenant in range(self.config.tenants):
            writes = w.write & (w.tenant == tenant)
            m.d.sync += [self.written[tenant].eq(self.written[tenant] + writes),
                         self.complete[tenant].eq(self.complete[tenant] + (writes & w.end))]
        self.leaves = [Signal(name=f"leaves_{tenant}") for tenant in range(self.config.tenants)]
        for tenant, leaves in enumerate(self.leaves):
            mine = Cat(C(tenant, len(dut.header.tenant)), C(dut.SOURCE, len(dut.header.source)))
            m.d.comb += leaves.eq(dut.valid & (Mux(dut.first, key, under_way) == mine))
            moves = leaves & dut.take
            m.d.sync += [self.left[tenant].eq(self.left[tenant] + moves),
                         self.gone[tenant].eq(self.gone[tenant] + (moves & dut.first))]
            m.d.comb += [self.claims("leaves", ~leaves | (self.left[tenant] != self.written[tenant])),
                         self.claims("leaves", ~(leaves & dut.first) | (self.gone[tenant] != self.complete[tenant]))]

    def _follow_word(self, m):
        """A word, any, that is written: when that many of its tenant have left, what leaves next is it."""
        w = self.dut.w
        pick, self.picked, self.word_tenant = Signal(), Signal(), Signal.like(w.tenant)
        self.number, self.word, self.word_gone = Signal(BEATS), Signal(beat_layout(self.config)), Signal()
        m.d.comb += pick.eq(AnySeq(1))
        self.picks_word = pick & w.write & ~self.picked
        with m.If(self.picks_word):
            m.d.sync += [self.picked.eq(1), self.word_tenant.eq(w.tenant), self.word.eq(w.beat),
                         self.number.eq(Array(self.written)[w.tenant])]
        due = (self.picked & ~self.word_gone & Array(self.leaves)[self.word_tenant]
               & (Array(self.left)[self.word_tenant] == self.number))
        m.d.comb += self.claims("leaves", ~due | (self.dut.beat == self.word))
        with m.If(due & self.dut.take):
            m.d.sync += self.word_gone.eq(1)

    def _follow_packet(self, m):
        """A packet, any: its header is its own, and with it come its words, all of them and no others."""
        dut, w = self.dut, self.dut.w
        self.since = [Signal(BEATS, name=f"since_{tenant}") for tenant in range(self.config.tenants)]
        pick, self.followed, self.packet_tenant = Signal(), Signal(), Signal.like(w.tenant)
        self.packet, self.packet_gone = Signal(PACKETS), Signal()
        self.begin, self.behind, self.header = Signal(BEATS), Signal(BEATS), Signal(PacketHeader)
        m.d.comb += pick.eq(AnySeq(1))
        self.picks_packet = pick & w.write & w.end & ~self.followed
        for tenant, since in enumerate(self.since):   # the number of the first beat of the packet under way, or next
            with m.If(w.write & w.end & (w.tenant == tenant)):
                m.d.sync += since.eq(self.written[tenant] + 1)
        with m.If(self.picks_packet):
            m.d.sync += [self.followed.eq(1), self.packet_tenant.eq(w.tenant), self.header.eq(w.header),
                         self.packet.eq(Array(self.complete)[w.tenant]), self.begin.eq(Array(self.since)[w.tenant]),
                         self.behind.eq(Array(self.written)[w.tenant] + 1)]
        mine, left = Array(self.leaves)[self.packet_tenant], Array(self.left)[self.packet_tenant]
        watched = self.followed & ~self.packet_gone
        due = watched & mine & dut.first & (Array(self.gone)[self.packet_tenant] == self.packet)
        size, place = (self.behind - self.begin)[:BEATS], (left - self.begin)[:BEATS]
        inside = watched & (place < size)   # the next of the tenant to leave is of the followed packet
        claim = self.claims
        m.d.comb += [
            claim("leaves", ~due | (place == 0)),
            claim("leaves", ~(inside & mine) | (dut.first == (place == 0))),
            claim("leaves", ~(watched & mine & (place == size)) | dut.first),
            claim("leaves", ~(inside & (place != 0) & dut.valid) | ~dut.first),   # nobody else comes between
            claim("leaves", ~(inside & (place == 0) & mine) | (Array(self.gone)[self.packet_tenant] == self.packet)),
            *(claim("leaves", ~due | (getattr(dut.header, name) == getattr(self.header, name)))
              for name in (*STORED, "length")),
            claim("leaves", ~due | (dut.header.destination == dut.PORT)),
        ]
        with m.If(watched & mine & dut.take & (place == size)):
            m.d.sync += self.packet_gone.eq(1)
