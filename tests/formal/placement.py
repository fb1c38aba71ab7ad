"""Contract between a decision and the account of one crosspoint: packets are laid down behind the true end of a queue.

A decision asks for the end of a queue two cycles ahead, and counts what it has decided on since itself; meanwhile
packets are booked and empty queues closed. What it then books, and what is stored on trial, lies where the rule of
`place` puts it behind the end that the account has in that very cycle. Everything but the bookings is free: headers,
tables, pages that come home, queues that look empty, the other crosspoints.
"""

from amaranth import *
from amaranth.lib import wiring

from gateware.config import MAX_PACKET_BEATS
from gateware.fabric.place import place_layout, place_packet
from tests.formal.prover import Assert, free_inputs, internals

LENGTH = (MAX_PACKET_BEATS - 1).bit_length()


class PlacementContract(Elaboratable):
    """Ports of `decision` and `account` are those of `Decision(config, port)` and of its account at output 0.

    invariant: also assert it of what was looked up, which makes the induction close.
    """

    def __init__(self, decision, account, config, invariant=False):
        self.decision, self.account, self.config, self.invariant = decision, account, config, invariant

    def elaborate(self, platform):
        m = Module()
        decision, account = self.decision, self.account
        m.submodules.decision, inside = internals(decision)
        m.submodules.account, books = internals(account)
        free_inputs(m, decision)
        free_inputs(m, account)
        wiring.connect(m, decision.crosspoints[0], account.booking)
        tenant = decision.header.tenant
        booked, released = (books.word(m, name, tenant[:1]) for name in ("booked", "released"))
        end = Signal(place_layout())
        m.d.comb += [end.open.eq(booked.openings ^ released.closings), end.beats.eq(booked.beats),
                     end.descriptors.eq(booked.descriptors)]
        behind = self._behind(decision.header.length)
        right = place_packet(m, end, behind)
        here = (decision.header.destination == 0) & (tenant < self.config.tenants)
        same = decision.placed.as_value() == right.as_value()
        m.d.comb += [
            Assert(~(decision.granted & here) | (same & (decision.behind == behind))),   # what is stored on trial
            Assert(~account.booking.reserve | (here & same)),
        ]
        if self.invariant:
            m.d.comb += Assert(~(inside["valid"] & inside["right"] & here) | same)
            self._reads(m, inside, books)
        return m

    def _behind(self, length):
        """Beats behind the first, of a legal length."""
        return ((length - 1)[:len(length)] >> (self.config.beat_bytes.bit_length() - 1))[:LENGTH]

    def _reads(self, m, inside, books):
        """What was read of a header's queue is its end, but for what was booked since; one being closed is closed."""
        answer, read, recent = self.account.booking.place, self.decision.read, self.decision.recent
        closed, closed_tenant = books["closed"], books["home_tenant"]

        def end_of(tenant):
            booked, released = (books.word(m, name, tenant[:1]) for name in ("booked", "released"))
            return booked, booked.openings ^ released.closings

        m.d.comb += Assert(~closed | (books["home"] & end_of(closed_tenant)[1]))
        recent_tenant = Signal.like(self.decision.held.tenant)
        m.d.sync += recent_tenant.eq(self.decision.held.tenant)
        booked, is_open = end_of(recent_tenant)
        as_booked = is_open & (booked.beats == recent.after.beats) & (booked.descriptors == recent.after.descriptors)
        mine = recent.valid & recent.here[0]
        m.d.comb += [Assert(~mine | (as_booked & (recent_tenant < self.config.tenants) & recent.after.open)),
                     Assert(~(mine & closed) | (closed_tenant != recent_tenant))]
        for flag, header in ((read.of_held & inside["valid"], self.decision.held),
                             (read.of_next & inside["next_valid"], self.decision.next)):
            tenant = header.tenant
            booked, is_open = end_of(tenant)
            closes = closed & (closed_tenant == tenant)
            as_read = ((answer.open == (is_open & ~closes)) & (answer.beats == booked.beats)
                       & (answer.descriptors == booked.descriptors))
            unknown = (tenant >= self.config.tenants) | (mine & (recent_tenant == tenant))
            m.d.comb += Assert(~flag | ((unknown | as_read) & (read.succeeds == (tenant == recent_tenant))))
        for valid, header, size in ((inside["valid"], self.decision.held, self.decision.size),
                                    (inside["next_valid"], self.decision.next, self.decision.next_size)):
            m.d.comb += Assert(~valid | (size.behind == self._behind(header.length)))
        both = read.of_next & inside["next_valid"] & inside["valid"]
        m.d.comb += Assert(~both | (read.follows == (self.decision.next.tenant == self.decision.held.tenant)))
