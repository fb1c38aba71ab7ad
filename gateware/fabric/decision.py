"""Decision: what admission says to the header at the head of one input, looked up ahead.

An `answer` is a header of class `RESPONSE` at the engines' input: it needs no grant, its request had it.

Contract: in a cycle in which `now` is high (the packet's first beat is at hand, and the packet before is done with)
the oldest header is judged: at most one of `admit`, `drop` and `wait` (no pages) holds, under the table that is
active in that cycle; with none (or without `judged`) it is judged again. `admit` and `drop` are done with the header;
the next one is judged in the cycle after, so that one a cycle is sustained. `granted`: it is judged, and its tenant
exists and may send to its destination, so that `placed` is a place of that tenant's. `header` is as offered, with the
destination resolved (`here[n]`: to output n); `behind` is how many beats are announced behind the first (`single`:
none); `placed` says where the packet goes. A header is judged from two cycles after it was offered.

soon: `now` may be high in the next cycle, because the packet under way ends in this one. A wrong guess, a first
judgement that was not the last, and a first beat that came later than its header cost up to two cycles before the
header behind is judged (`wait` is held in them).

A lookup takes two cycles. The first reads the tenant's row, its accumulator and what the crosspoints know of it
(`read`); the second finds what the judgement of the cycle after has to know (`known`). It is that of the header that
is expected to be judged then. Both count on it that headers judged meanwhile are admitted, which else makes the
lookup void, as another epoch does.

`pending`: tenants whose headers are offered or not done with, which the page account does not know of yet.
"""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..manager.allocation import AllocationSignature
from ..stream.packet import PROCESS, FlowClass, PacketHeader
from ..stream.skid import ReadyBuffer
from .account import BookingSignature
from .lookup import known_layout, left_of, number_of, read_layout, recent_layout, resolve, size_layout, size_of
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
            "soon": In(1),
            "judged": Out(1),
            "granted": Out(1),
            "admit": Out(1),
            "drop": Out(1),
            "wait": Out(1),
            "header": Out(PacketHeader),
            "here": Out(config.ports),
            "answer": Out(1),
            "behind": Out(range(MAX_PACKET_BEATS)),
            "single": Out(1),
            "placed": Out(placement_layout()),
            "pending": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        # The header that is judged, and the one behind it; what was read for one of them, and found of the judged one.
        self.held, self.valid = Signal(PacketHeader, name="held"), Signal(name="valid")
        self.next, self.next_valid = Signal(PacketHeader, name="next"), Signal(name="next_valid")
        self.size, self.next_size = Signal(size_layout(), name="size"), Signal(size_layout(), name="next_size")
        self.read = Signal(read_layout(config), name="read")
        self.known = Signal(known_layout(config), name="known")
        self.right = Signal(name="right")                     # `known` is, for this very cycle
        self.recent = Signal(recent_layout(config), name="recent")   # what was booked in the cycle before
        self.done = Signal(name="done")
        self.near = Signal(name="near")                       # who is looked up is judged next
        # The judged header is expected to stay; the header behind the one that is judged next is read.
        self.stay, self.ahead = Signal(name="stay"), Signal(name="ahead")
        self.read_same = Signal(name="read_same")             # what is read now is of the judged header's tenant
        m.submodules.incoming = self.incoming = ReadyBuffer(PacketHeader)
        wiring.connect(m, wiring.flipped(self.headers), self.incoming.i)
        self._advance(m)
        self._read(m)
        self._look_up(m)
        self._judge(m)
        offered, full = self.headers, ~self.headers.ready
        m.d.comb += self.pending.eq(full.replicate(config.tenants) | Mux(self.valid, 1 << self.held.tenant, 0)
                                    | Mux(self.next_valid, 1 << self.next.tenant, 0)
                                    | Mux(offered.valid, 1 << offered.payload.tenant, 0))
        return m

    def _advance(self, m):
        """Moves headers up, and chooses who is looked up."""
        config, incoming, known, read = self._config, self.incoming.o, self.known, self.read
        stuck, moves = Signal(), Signal()   # stuck: it has been judged before
        m.d.comb += [
            self.judged.eq(self.valid & self.now & self.right & (known.epoch == self.allocation.epoch[:2])),
            self.done.eq(self.admit | self.drop),
            moves.eq(~self.valid | self.done),
            incoming.ready.eq(~self.next_valid | moves),
        ]
        with m.If(moves):
            m.d.sync += [self.held.eq(self.next), self.size.eq(self.next_size), self.valid.eq(self.next_valid)]
        with m.If(incoming.ready):
            m.d.sync += [self.next.eq(incoming.payload), self.next_size.eq(size_of(config, incoming.payload.length)),
                         self.next_valid.eq(incoming.valid)]

        # Who is expected to be judged in the next cycle is looked up in this one. Is there one who will be, then the
        # header behind is read, else the same one once more.
        leaves, looked_up, right, kept = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            self.stay.eq(self.valid & ~leaves),
            self.ahead.eq(~self.valid | Mux(leaves, known.single | ~self.next_valid,
                                            read.of_held & ~stuck & (self.soon | self.now))),
            looked_up.eq(Mux(self.stay, read.of_held, read.of_next & self.next_valid)),
            # It was counted on it that who is judged in this cycle is admitted.
            right.eq(looked_up & Mux(self.stay, ~self.done, moves)
                     & ~(self.drop & (self.next.tenant == self.held.tenant) & (known.welcome | known.process))),
            kept.eq(~(self.drop & self.read_same & known.process)),
        ]
        # One that has waited does not keep a queue open: it may wait for the page.
        m.d.comb += self.near.eq(looked_up & ~stuck)
        m.d.sync += [
            self.right.eq(right),
            leaves.eq(right & self.ahead),
            stuck.eq((stuck | self.judged) & ~self.done),
            read.of_held.eq(kept & Mux(self.ahead, self.stay & self.next_valid & self.done,
                                       Mux(self.stay, ~self.done, moves))),
            read.of_next.eq(kept & self.ahead & Mux(self.stay, ~(self.next_valid & self.done), moves)),
        ]

    def _read(self, m):
        """First cycle of a lookup: of the header that is judged next, or of the one behind it."""
        config, read = self._config, self.read
        m.submodules.rows = self.rows = Rows(config, ["admits", "ports", "pages", "host_share"])
        m.submodules.accumulators = self.accumulators = memory.Memory(shape=8, depth=config.tenants, init=[])
        wiring.connect(m, wiring.flipped(self.allocation), self.rows.allocation)
        header, row = Signal(PacketHeader, name="reading"), self.rows.rows[0]
        accumulator = self.accumulators.read_port(domain="comb")
        with m.If(~self.ahead):
            m.d.comb += header.eq(Mux(self.stay, self.held, self.next))
        with m.Elif(self.stay & self.next_valid):
            m.d.comb += header.eq(self.next)
        with m.Else():
            m.d.comb += header.eq(self.incoming.o.payload)
        # Packets for processing of that tenant that are judged before this one, and are not in its accumulator yet.
        judged, between, next_same = Signal(), Signal(), Signal()
        m.d.comb += [
            self.rows.tenants[0].eq(header.tenant),
            accumulator.addr.eq(header.tenant),
            *(crosspoint.ask.eq(header.tenant) for crosspoint in self.crosspoints),
            self.read_same.eq(header.tenant == self.held.tenant),
            # Not what is `known`: after another epoch that is of no header while the judged one is looked up anew.
            judged.eq(self.valid & (~self.stay | self.ahead) & self.read_same & (self.held.destination == PROCESS)),
            next_same.eq(header.tenant == self.next.tenant),
            between.eq(self.ahead & ~self.stay & self.next_valid & next_same & (self.next.destination == PROCESS)),
        ]
        share = row.host_share
        m.d.sync += [
            read.epoch.eq(self.allocation.epoch),
            *(read[name].eq(row[name]) for name in ("admits", "ports", "pages")),
            read.total[0].eq(accumulator.data),
            read.total[1].eq(accumulator.data + share),
            read.total[2].eq(accumulator.data + (share << 1)),
            # If there are two, the later one was read in the cycle before: of the same tenant.
            read.total[3].eq(accumulator.data + (read.share + (read.share << 1))),
            read.share.eq(share),
            read.follows.eq(Mux(self.stay, self.read_same, next_same)),
            read.succeeds.eq(self.read_same),
            read.judged.eq(judged),
            read.between.eq(between),
            read.process.eq(header.destination == PROCESS),
            read.here.eq(Cat(header.destination == number for number in range(config.ports))),
        ]

    def _look_up(self, m):
        """Second cycle: what the judgement has to know, if the header that is judged meanwhile is admitted."""
        config, read, known, recent = self._config, self.read, self.known, self.recent
        header, found = Signal(PacketHeader, name="looked_up"), Signal(known.shape(), name="found")
        size, shared = Signal.like(self.size), Signal(range(config.pages + 1))
        m.d.comb += [
            header.eq(Mux(self.stay, self.held, self.next)),
            size.eq(Mux(self.stay, self.size, self.next_size)),
        ]
        # Pages of a crosspoint that the table which was read guarantees to nobody.
        m.d.sync += shared.eq(Mux(self.allocation.sum_pages <= config.pages,
                                  config.pages - self.allocation.sum_pages, 0))
        resolve(m, config, read, found)
        answers = (Cat(crosspoint.place, crosspoint.asked_used, crosspoint.asked_raced)
                   for crosspoint in self.crosspoints)
        place, used, raced = Signal(place_layout()), Signal(range(2 * config.pages)), Signal()
        follows, succeeds = self._find_before(m, found.here)
        m.d.comb += Cat(place, used, raced).eq(reduce(or_, (Mux(here, answer, 0) for here, answer
                                                            in zip(found.here, answers, strict=True))))
        end = Signal(place_layout())
        with m.If(follows):
            m.d.comb += end.eq(known.placed.after)
        with m.Elif(succeeds):
            m.d.comb += end.eq(recent.after)
        with m.Else():
            m.d.comb += end.eq(place)

        granted, welcome = Signal(), Signal()
        m.d.comb += [
            granted.eq((header.tenant < config.tenants) & found.here.any() & size.legal
                       & (self._is_answer(header) | self._is_granted(read, found.here))),
            # Else it can never be admitted.
            welcome.eq((size.behind >> 4) < read.pages + shared),
            found.epoch.eq(read.epoch),
            found.destination.eq(header.destination),
            found.behind.eq(size.behind),
            found.single.eq(size.behind == 0),
            found.quota.eq(read.pages),
            found.exact.eq(~raced),
            found.placed.eq(place_packet(m, end, size.behind)),
            found.granted.eq(granted),
            found.welcome.eq(granted & welcome),
        ]
        left, booked = left_of(m, read.pages, used, (follows, known.placed.need), (succeeds, recent.need))
        m.d.comb += [found.left.eq(left), found.used.eq(used + booked)]
        for here, crosspoint in zip(found.here, self.crosspoints, strict=True):
            m.d.comb += [crosspoint.near.eq(self.near & here), crosspoint.near_tenant.eq(header.tenant)]
        m.d.sync += known.eq(found)

    def _find_before(self, m, here):
        """Whether the queue gets a packet in this cycle, and got one in the last, that was not read of."""
        known, recent, read = self.known, self.recent, self.read
        follows, succeeds = Signal(), Signal()
        m.d.comb += [
            follows.eq(self.valid & ~self.stay & known.welcome & read.follows & (here & known.here).any()),
            succeeds.eq(recent.valid & read.succeeds & (here & recent.here).any()),
        ]
        m.d.sync += [
            recent.valid.eq(self.admit),
            recent.here.eq(known.here),
            recent.need.eq(known.placed.need),
            recent.after.eq(known.placed.after),
        ]
        return follows, succeeds

    def _is_answer(self, header):
        return (self._port == self._config.engine_port) & (header.flow_class == FlowClass.RESPONSE)

    def _is_granted(self, row, here):
        """The row allows the way there; to the engines also the way back, which the answer will take."""
        back = ~here[self._config.engine_port] | row.ports[self._port]
        return row.admits & (row.ports & here).any() & back

    def _judge(self, m):
        """Asks the destination's page account, and books what is admitted."""
        held, known, judged = self.held, self.known, self.judged
        fits, lacks, waits = Signal(), Signal(), Signal()
        m.d.comb += [
            self.header.eq(held),
            self.answer.eq(self._is_answer(held)),
            self.header.destination.eq(number_of(known)),
            self.here.eq(known.here),
            self.behind.eq(known.behind),
            self.single.eq(known.single),
            self.placed.eq(known.placed),
        ]
        for here, crosspoint in zip(known.here, self.crosspoints, strict=True):
            m.d.comb += [
                crosspoint.tenant.eq(held.tenant),
                crosspoint.used.eq(known.used),
                crosspoint.need.eq(known.placed.need),
                crosspoint.left.eq(known.left),
                crosspoint.above.eq(known.placed.need > known.left),
                crosspoint.quota.eq(known.quota),
                crosspoint.exact.eq(known.exact),
                crosspoint.after.eq(known.placed.after),
                crosspoint.reserve.eq(self.admit & here),
            ]
        points = list(zip(known.here, self.crosspoints, strict=True))
        m.d.comb += [
            fits.eq(Cat(here & point.fits & ~point.hold for here, point in points).any()),
            lacks.eq(Cat(here & ~point.fits & ~point.hold for here, point in points).any()),
            self.granted.eq(judged & known.granted),
            self.admit.eq(judged & known.welcome & fits),
            self.drop.eq(judged & (~known.welcome | (lacks & self._drops))),
        ]
        if not self._drops:
            m.d.comb += self.wait.eq(Mux(judged, known.welcome & lacks, waits))
            m.d.sync += waits.eq(self.wait)

        write = self.accumulators.write_port()
        m.d.comb += [
            write.en.eq(self.admit & known.process),
            write.addr.eq(held.tenant),
            write.data.eq(known.total),
        ]
