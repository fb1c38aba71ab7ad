"""Decision: what admission says to the header at the head of one input, looked up ahead.

An `answer` is a header of class `RESPONSE` at the engines' input: it needs no grant, its request had it.

Contract: in a cycle in which `now` is high (the packet's first beat is at hand, and the packet before is done with)
the oldest header is judged: at most one of `admit`, `drop` and `wait` (no pages) holds, under the table that is
active in that cycle; with none (or without `judged`) it is judged again. `admit` and `drop` are done with the header;
the next one is judged in the cycle after, so that one a cycle is sustained. `granted`: it is judged, and its tenant
exists and may send to its destination, so that `placed` is a place of that tenant's. `header` is as offered, with the
destination resolved; `beats` as announced; `placed` says where the packet goes. A header is judged from two cycles
after it was offered. After the first judgement that was not the last, and before the header behind one that had to
wait, one cycle is lost (`wait` is held in it).

A lookup reads the tenant's row, its accumulator and the end of its queue into registers for the judgement of the next
cycle. It is that of the next header while one is judged for the first time, else that of the judged header once more.
What has changed since makes the judgement void: another epoch, or that an earlier header of the same tenant was not
admitted after all.

`pending`: tenants whose headers are offered or not done with, which the page account does not know of yet.
"""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, PAGE_BEATS, DeviceConfig
from ..manager.allocation import AllocationSignature
from ..stream.packet import PROCESS, FlowClass, PacketHeader
from ..stream.skid import SkidBuffer
from .account import BookingSignature
from .place import place_layout, place_packet, placement_layout
from .rows import Rows

__all__ = ["Decision"]

class Decision(wiring.Component):
    """Judges the headers of input number `port`. Of `crosspoints` it drives what asks and books.

    drops_without_pages: a packet that finds no pages is dropped, not made to wait.
    """

    def __init__(self, config: DeviceConfig, port: int, *, drops_without_pages: bool):
        self._config = config
        self._port = port
        self._drops = drops_without_pages
        super().__init__({
            "headers": In(stream.Signature(PacketHeader)),
            "allocation": In(AllocationSignature(config)),
            "crosspoints": Out(BookingSignature(config)).array(config.ports),
            "now": In(1),
            "judged": Out(1),
            "granted": Out(1),
            "admit": Out(1),
            "drop": Out(1),
            "wait": Out(1),
            "header": Out(PacketHeader),
            "answer": Out(1),
            "beats": Out(range(MAX_PACKET_BEATS + 1)),
            "placed": Out(placement_layout()),
            "pending": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.rows = self.rows = Rows(config, ["admits", "ports", "pages", "host_share"])
        wiring.connect(m, wiring.flipped(self.allocation), self.rows.allocation)
        self.accumulators = memory.Memory(shape=8, depth=config.tenants, init=[])
        m.submodules.accumulators = self.accumulators
        m.submodules.incoming = incoming = SkidBuffer(PacketHeader)
        wiring.connect(m, wiring.flipped(self.headers), incoming.i)

        # The header that is judged, and what was looked up of it. `right`: for this very cycle.
        held, valid, right = Signal(PacketHeader, name="held"), Signal(name="valid"), Signal()
        known = Signal(_known_layout(config))
        judged, done, stuck = self.judged, Signal(), Signal()   # stuck: it has been judged before
        m.d.comb += [
            judged.eq(valid & self.now & right & (known.epoch == self.allocation.epoch)),
            done.eq(self.admit | self.drop),
            incoming.o.ready.eq(~valid | done),
        ]
        # A change of table comes too late to be regarded here: then the lookup is made once more.
        repeat, first_time = Signal(), Signal()
        next_header = Signal(PacketHeader)
        m.d.comb += [
            first_time.eq(valid & self.now & right & ~stuck),
            repeat.eq(valid & ~first_time),
            next_header.eq(Mux(repeat, held, incoming.o.payload)),
        ]
        with m.If(incoming.o.ready):
            m.d.sync += [held.eq(incoming.o.payload), valid.eq(incoming.o.valid)]
        m.d.sync += [
            known.eq(self._look_up(m, next_header, first_time, held, known)),
            # A drop voids what was looked up behind it for the same tenant, which had counted on its admission.
            right.eq((repeat ^ incoming.o.ready) & ~(self.drop & (next_header.tenant == held.tenant))),
            stuck.eq((stuck | judged) & ~done),
        ]
        self._judge(m, held, known, judged)

        full = ~self.headers.ready
        m.d.comb += self.pending.eq(full.replicate(config.tenants) | Mux(valid, 1 << held.tenant, 0)
                                    | Mux(self.headers.valid, 1 << self.headers.payload.tenant, 0)
                                    | Mux(incoming.o.valid, 1 << incoming.o.payload.tenant, 0))
        return m

    def _look_up(self, m, header, judged, held, known):
        """What concerns `header`, if the header that is `judged` in this cycle is admitted."""
        config = self._config
        row = self.rows.rows[0]
        found = Signal(known.shape(), name="found")
        accumulator = self.accumulators.read_port(domain="comb")
        same = Signal()
        process, to_host = Signal(), Signal()
        destination = Signal(4)
        m.d.comb += [
            same.eq(judged & (header.tenant == held.tenant)),
            self.rows.tenants[0].eq(header.tenant),
            accumulator.addr.eq(header.tenant),
            found.total.eq(Mux(same & known.process, known.total[:8], accumulator.data) + row.host_share),
            process.eq(header.destination == PROCESS),
            to_host.eq(found.total >= 256),
            destination.eq(header.destination),
        ]
        with m.If(process):
            m.d.comb += destination.eq(Mux(to_host, config.host_port, config.engine_port))

        # The answers are chosen without waiting for `to_host`: of the two that it chooses from, and of the others.
        answers = []
        for crosspoint in self.crosspoints:
            m.d.comb += crosspoint.ask.eq(header.tenant)
            answers.append(Cat(crosspoint.place, crosspoint.asked_used, crosspoint.asked_raced))
        plain = reduce(or_, (Mux(header.destination == number, answer, 0) for number, answer in enumerate(answers)))
        either = Mux(to_host, answers[config.host_port], answers[config.engine_port])
        place, used, raced = Signal(place_layout()), Signal(range(2 * config.pages)), Signal()
        m.d.comb += [
            Cat(place, used, raced).eq(Mux(process, either, plain)),
            found.exact.eq(~raced),
        ]
        follows = Signal()   # right behind the judged packet
        m.d.comb += follows.eq(same & (destination == known.destination))
        with m.If(follows):
            m.d.comb += place.eq(known.placed.after)

        beats = Signal(range(16 * MAX_PACKET_BEATS + 1))   # of any 12-bit length
        shift = config.beat_bytes.bit_length() - 1
        behind = Signal(range(MAX_PACKET_BEATS))   # beats behind the first, of a legal length
        legal = (beats != 0) & (beats <= MAX_PACKET_BEATS)
        m.d.comb += [
            beats.eq((header.length + config.beat_bytes - 1) >> shift),
            behind.eq((header.length - 1)[:len(header.length)] >> shift),
            found.epoch.eq(self.allocation.epoch),
            found.destination.eq(destination),
            found.process.eq(process),
            found.beats.eq(beats),
            found.used.eq(used + Mux(follows, known.placed.need, 0)),
            found.quota.eq(row.pages),
            found.spare.eq(self._spare(m, found.used, row.pages, found.placed.need)),
            found.placed.eq(place_packet(m, place, behind)),
            found.granted.eq((header.tenant < config.tenants) & (destination < config.ports) & legal
                             & (self._is_answer(header) | self._is_granted(row, destination))),
            found.hopeless.eq(((beats + PAGE_BEATS - 1) >> 4) > row.pages + self._shared_pages(m)),
        ]
        return found

    def _spare(self, m, used, quota, need):
        """How many of `need` pages are above the quota."""
        left, above = Signal(signed(len(used) + 1)), Signal(signed(len(used) + 2))
        m.d.comb += [left.eq(quota - used), above.eq(need - left)]
        return Mux(left < 0, need, Mux(above < 0, 0, above))

    def _is_answer(self, header):
        return (self._port == self._config.engine_port) & (header.flow_class == FlowClass.RESPONSE)

    def _is_granted(self, row, destination):
        """The row allows the way there; to the engines also the way back, which the answer will take."""
        there = row.ports.bit_select(destination, 1)
        back = (destination != self._config.engine_port) | row.ports[self._port]
        return row.admits & there & back

    def _shared_pages(self, m):
        """Pages of a crosspoint that the active table guarantees to nobody."""
        shared = Signal(range(self._config.pages + 1))
        with m.If(self.allocation.sum_pages <= self._config.pages):
            m.d.comb += shared.eq(self._config.pages - self.allocation.sum_pages)
        return shared

    def _judge(self, m, held, known, judged):
        """Asks the destination's page account, and books what is admitted."""
        fits, hold, waits = Signal(), Signal(), Signal()
        m.d.comb += [
            self.header.eq(held),
            self.answer.eq(self._is_answer(held)),
            self.header.destination.eq(known.destination),
            self.beats.eq(known.beats),
            self.placed.eq(known.placed),
        ]
        for number, crosspoint in enumerate(self.crosspoints):
            here = known.destination == number
            m.d.comb += [
                crosspoint.tenant.eq(held.tenant),
                crosspoint.used.eq(known.used),
                crosspoint.need.eq(known.placed.need),
                crosspoint.spare.eq(known.spare),
                crosspoint.quota.eq(known.quota),
                crosspoint.exact.eq(known.exact),
                crosspoint.after.eq(known.placed.after),
                crosspoint.reserve.eq(self.admit & here),
            ]
            with m.If(here):
                m.d.comb += [fits.eq(crosspoint.fits), hold.eq(crosspoint.hold)]
        m.d.comb += self.granted.eq(judged & known.granted)
        with m.If(judged & (~known.granted | known.hopeless)):
            m.d.comb += self.drop.eq(1)
        with m.Elif(judged & ~hold):
            m.d.comb += self.admit.eq(fits)
            if self._drops:
                m.d.comb += self.drop.eq(~fits)
            else:
                m.d.comb += self.wait.eq(~fits)
        if not self._drops:
            with m.If(judged):
                m.d.sync += waits.eq(self.wait)
            with m.Elif(waits):
                m.d.comb += self.wait.eq(1)

        write = self.accumulators.write_port()
        m.d.comb += [
            write.en.eq(self.admit & known.process),
            write.addr.eq(held.tenant),
            write.data.eq(known.total),
        ]


def _known_layout(config):
    """What a lookup finds. used: pages held, at most one too many unless `exact`. hopeless: can never be admitted."""
    return data.StructLayout({
        "epoch": 8, "destination": 4, "process": 1, "total": 10, "beats": range(MAX_PACKET_BEATS + 1),
        "used": range(2 * config.pages), "quota": range(config.pages + 1), "spare": range(32), "exact": 1,
        "granted": 1, "hopeless": 1, "placed": placement_layout(),
    })
