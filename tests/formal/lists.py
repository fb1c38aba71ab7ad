"""What a crosspoint keeps true of its lists, its books and the packet that is being read: `CrosspointInvariant`.

Beats and packets of a tenant are numbered as they are written. A page that a queue holds has a number in its order, the
number of its first beat, and how many packets ended before it and in it. In words, part by part:

- *pages*: a page is in the free list or in one queue, never in two; the pool counts those that are neither taken nor
  booked; a queue is open while it has a page, and closed only when everything was read.
- *order*, *neighbours*, *borders*: pages of a queue are linked in their order, and each begins where the one before it
  ended: full, or with eight packets in it.
- *ends*, *heads*: `ends`, `slots`, `tails`, `firsts`, `starts` and `heads` point to where the numbers say.
- *writer*, *reader*, *counts*: all stand where their counts of beats and packets say.
- *packets*: a descriptor holds the length of the packet whose number it has; a later packet begins at a later beat.
- *word*, *packet*, *passing*: what is followed lies where it was written until it is read, then in the registers on the
  way out; of its packet, nothing else comes between.
- *leaves*: the contract itself.
"""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import memory

from gateware.config import PAGE_BEATS
from gateware.fabric.crosspoint import STORED, stored_header
from tests.formal.prover import AnyConst
from tests.formal.queues import BEATS, OFFSET, ORDER, PACKETS, SLOT, Page, Queue, beats_behind, implies, minus

#: In how many shares each part is decided: the solver may need far longer to find that none of a dozen claims breaks
#: than for one after the other.
PARTS = {"pages": 1, "order": 8, "neighbours": 1, "borders": 3, "ends": 1, "heads": 4, "writer": 1, "reader": 1,
         "counts": 1, "packets": 1, "word": 5, "packet": 10, "passing": 1, "leaves": 1}
STEPS = [f"{part} {share}/{shares}" for part, shares in PARTS.items() for share in range(shares)]


class CrosspointInvariant:
    """Of a `CrosspointContract`, whose counts it uses; two tenants, four pages."""

    def __init__(self, m, contract):
        self.m, self.c, self.claims = m, contract, contract.claims
        self.config, self.inside, self.lane = contract.config, contract.inside, contract.dut
        self.reader, self.r, self.w = self.lane.reader, self.lane.crosspoint.r, self.lane.w
        self.numbers = range(self.config.pages)
        self.tenants = range(self.config.tenants)
        self.pages = [Page(m, number) for number in self.numbers]
        self.words, self.begins, self.nexts = {}, {}, {}
        self.count, self.first = ([Signal(ORDER, name=f"{name}_{t}") for t in self.tenants]
                                  for name in ("count", "first"))
        self.read = [Signal(BEATS, name=f"read_{t}") for t in self.tenants]
        self.claimed = [Signal(PACKETS, name=f"claimed_{t}") for t in self.tenants]
        self.descriptor = Signal(stored_header(self.config), name="descriptor_read")
        m.d.comb += self.descriptor.eq(self.inside["crosspoint.descriptor"])
        # Where each packet begins; that of the next one, too, when the one before is complete.
        self.starts = memory.Memory(shape=BEATS, depth=self.config.tenants << PACKETS, init=[])
        m.submodules.starts = self.starts

    def chain(self, name):
        return self.inside[f"crosspoint.chain.{name}"]

    def word(self, path, address):
        """What a memory holds; a constant address (an int) is looked up once."""
        if not isinstance(address, int):
            return self.inside.word(self.m, path, address)
        if (path, address) not in self.words:
            self.words[path, address] = self.inside.word(self.m, path, address)
        return self.words[path, address]

    def start(self, tenant, packet):
        """Number of the beat with which the packet of the number in the signal `packet` begins; looked up once each."""
        place = tenant if isinstance(tenant, int) else id(tenant), id(packet)
        if place not in self.begins:
            port = self.starts.read_port(domain="comb")
            self.m.d.comb += port.addr.eq(Cat(packet, C(tenant, 1) if isinstance(tenant, int) else tenant))
            self.begins[place] = port.data, packet, tenant   # kept, so that nothing else gets their identity
        return self.begins[place][0]

    def next(self, packet):
        """Signal with the number of the packet behind."""
        if id(packet) not in self.nexts:
            following = Signal(PACKETS, name="following")
            self.m.d.comb += following.eq(packet + 1)
            self.nexts[id(packet)] = following, packet
        return self.nexts[id(packet)][0]

    def any_page(self, claim):
        """`claim(page)` is true of one page."""
        return reduce(or_, (claim(page) for page in self.pages))

    def claim_all(self):
        self._follow()
        self._free()
        self._current()
        self.states = [Queue(self, tenant) for tenant in self.tenants]
        for state in self.states:
            state.claim_all()
        self._symbolic()

    def _follow(self):
        """Keeps the books of pages, beats and packets."""
        m, w, r = self.m, self.w, self.r
        here, tail, takes = self.chain("here"), self.chain("tail"), w.write & self.chain("begins")
        home, home_page, closed, walked = (self.inside[f"crosspoint.account.{name}"]
                                           for name in ("home", "home_page", "closed", "home_tenant"))
        for page in self.pages:
            mine, ends = here == page.number, w.write & w.end
            with m.If(home & (home_page == page.number)):
                m.d.sync += [page.owned.eq(0), page.leaving.eq(0), page.ring.eq(tail)]
            with m.If(r.free & (r.freed_page == page.number)):
                m.d.sync += page.leaving.eq(1)
            with m.If(takes & mine):
                m.d.sync += [
                    page.owned.eq(1), page.tenant.eq(w.tenant), page.base.eq(Array(self.c.written)[w.tenant]),
                    page.order.eq(Array(self.first)[w.tenant] + Array(self.count)[w.tenant]),
                    page.before.eq(Array(self.c.complete)[w.tenant]), page.ended.eq(ends)]
            with m.Elif(ends & mine):
                m.d.sync += page.ended.eq(page.ended + 1)
        following, current, reads = self.reader.next.key, self.reader.current.key, r.read
        of = Mux(self.reader.more, current.tenant, following.tenant)
        for tenant in self.tenants:
            gives = (r.free & (r.freed_tenant == tenant)) + (closed & (walked == tenant))
            m.d.sync += [
                self.count[tenant].eq(self.count[tenant] + (takes & (w.tenant == tenant)) - gives),
                self.first[tenant].eq(self.first[tenant] + gives),
                self.read[tenant].eq(self.read[tenant] + (reads & (of == tenant))),
                self.claimed[tenant].eq(self.claimed[tenant] + (r.claim & (r.tenant == tenant))),
            ]
        port = self.starts.write_port()
        m.d.comb += [port.en.eq(w.write & w.end),
                     port.addr.eq(Cat((Array(self.c.complete)[w.tenant] + 1)[:PACKETS], w.tenant)),
                     port.data.eq(Array(self.c.written)[w.tenant] + 1)]

    def _free(self):
        """The free list holds the pages that nobody has; the pool counts those of them that nobody booked."""
        m, c = self.m, self.c
        head, tail = self.chain("head"), self.chain("tail")
        free = minus(ORDER, tail, head)
        claims = [free <= len(self.pages)]
        for page in self.pages:
            listed = self.word("crosspoint.chain.free", page.ring[:2]) == page.number
            listed &= minus(ORDER, page.ring, head) < free
            claims += [implies(~page.owned, listed), implies(page.leaving, page.owned)]
        for place in self.numbers:
            page = self.word("crosspoint.chain.free", place)
            ring = minus(2, C(place, 2), head)
            claims.append(implies(ring < free, ~Array(p.owned for p in self.pages)[page]))
            claims.append(implies(ring < free, Array(p.ring for p in self.pages)[page][:2] == place))
        claims.append(free == sum(~page.owned for page in self.pages))
        freed, freed_page, freed_tenant, home, home_page, home_tenant, closed = (
            self.inside[f"crosspoint.account.{name}"] for name in (
                "freed", "freed_page", "freed_tenant", "home", "home_page", "home_tenant", "closed"))
        claims.append(implies(closed, home))
        for page in self.pages:
            stages = freed & (freed_page == page.number), home & ~closed & (home_page == page.number)
            claims += [page.leaving == (stages[0] | stages[1]), ~(stages[0] & stages[1])]
            claims += [implies(stage, page.tenant == tenant)
                       for stage, tenant in zip(stages, (freed_tenant, home_tenant), strict=True)]
        offset = self.chain("offset")
        self.owed = Mux(c.busy, ((offset + c.to_come - 1) >> OFFSET) + (offset == 0), 0)   # booked and not taken yet
        claims.append(self.inside["crosspoint.account.pool.vacant"] + self.owed == free)
        claims.append(self.inside["crosspoint.writing"] == c.busy)
        claims.append(implies(c.busy, (c.to_come != 0) & (c.to_come < c.total)))
        claims.append(implies(c.busy, c.total <= PAGE_BEATS * len(self.pages)))
        m.d.comb += [self.claims("pages", claim) for claim in claims]

    def _current(self):
        """What the reader has on the way, of whichever tenant and source."""
        m, lane, crosspoint = self.m, self.lane, "crosspoint"
        out = self.inside[f"{crosspoint}.beat_out"], self.inside[f"{crosspoint}.header_out"]
        wanted = Signal(2, name="wanted")   # of this crosspoint, when it moved last
        with m.If(self.r.move):
            m.d.sync += wanted.eq(Cat(self.r.header_wanted, self.r.beat_wanted))
        read, current = self.reader.read, self.reader.current
        from_here = current.key.source == lane.SOURCE
        claims = [wanted[0] | (out[1] == 0), wanted[1] | (out[0] == 0),
                  implies(read.valid & read.first, (wanted[0] == from_here) & (self.c.asked[0] != from_here))]
        # What is in the last stage, and the port's own account of whose packet is under way.
        self.out = Signal.like(current.key, name="out")
        with m.If(self.r.move):
            m.d.sync += self.out.eq(current.key)
        valid, first = self.reader.valid, self.reader.first
        out_here = self.out.source == lane.SOURCE
        claims += [
            implies(valid, (wanted[1] == out_here) & (self.c.asked[1] != out_here)),
            implies(valid & first, self._same(self.reader.header.tenant, self.reader.header.source, self.out)),
            implies(valid & first, self.reader.header.destination == lane.PORT),
            implies(valid & ~first, self._under_way(self.out)),
            implies(read.valid & ~read.first,
                    Mux(valid & first, self.out == current.key, self._under_way(current.key))),
            implies(self.inside["reader.left"] != 0, read.valid),
            self.inside["reader.some_left"] == (self.inside["reader.left"] != 0),
        ]
        m.d.comb += [self.claims("reader", claim) for claim in claims]

    @staticmethod
    def _same(tenant, source, key):
        return (tenant == key.tenant) & (source == key.source)

    def _under_way(self, key):
        taken = self.c.under_way
        return self._same(taken[:6], taken[6:], key)

    def _symbolic(self):
        """Claims about any descriptor, any two packets, and what is followed."""
        m = self.m
        place, first, second = Signal(SLOT + 2), Signal(PACKETS), Signal(PACKETS)
        m.d.comb += [place.eq(AnyConst(SLOT + 2)), first.eq(AnyConst(PACKETS)), second.eq(AnyConst(PACKETS))]
        # Of any descriptor, written for a packet or on trial, and of what was read of one.
        stored, found = (self.word("crosspoint.descriptors", at) for at in (place, self.chain("r_descriptor")))
        m.d.comb += [self.claims("packets", self._agrees(stored)), self.claims.instance(self._agrees(found)),
                     self.claims("packets", self._agrees(self.descriptor)),
                     self.claims("packets", self._agrees(self.r.header))]
        for state in self.states:
            m.d.comb += [self.claims("packets", state.descriptor(place)),
                         self.claims("packets", state.ordered(first, second))]
            also = [state.begun, self.next(state.begun), state.complete, *(page.after for page in self.pages)]
            pairs = [(also[0], b) for b in also[1:]] + [(also[1], b) for b in also[2:]]
            pairs += [(a, state.complete) for a in (*also[3:], first)]
            pairs += [(a, b) for a in also[:2] for b in (first, second)]
            m.d.comb += [self.claims.instance(state.ordered(a, b)) for a, b in pairs]
            m.d.comb += self.claims.instance(state.descriptor(self.chain("r_descriptor")))
        self._followed_word()
        self._followed_packet()

    def _counts(self, tenant):
        """(first beat not written yet, not addressed yet, not left yet) of a tenant that is a signal."""
        return (Array(numbers)[tenant] for numbers in (self.c.written, self.read, self.c.left))

    def _page(self, number, tenant, claim):
        """The page of that number is in the queue of `tenant`, and `claim(page)`."""
        return self.any_page(lambda page: (number == page.number) & page.of(tenant) & claim(page))

    def _stages(self, tenant):
        """(a word of `tenant` comes out of the memory, is on offer)."""
        reader, here = self.reader, self.lane.SOURCE
        return (reader.read.valid & (reader.current.key.tenant == tenant) & (reader.current.key.source == here),
                reader.valid & (self.out.tenant == tenant) & (self.out.source == here))

    def _followed_word(self):
        m, c = self.m, self.c
        place, tenant = Signal(OFFSET + 2, name="place"), c.word_tenant
        with m.If(c.picks_word):
            m.d.sync += place.eq(self.chain("beat_place"))
        written, read, left = self._counts(tenant)
        coming, offered = self._stages(tenant)
        here = c.picked & ~c.word_gone
        stored = here & (minus(BEATS, c.number, read) < minus(BEATS, written, read))
        claims = [
            implies(here, minus(BEATS, c.number, left) < minus(BEATS, written, left)),
            implies(stored, self.word("crosspoint.beats", place).as_value() == c.word.as_value()),
            implies(stored, self._page(place[OFFSET:], tenant,
                                       lambda page: (page.base + place[:OFFSET])[:BEATS] == c.number)),
            implies(here & coming & (c.number == minus(BEATS, read, 1)),
                    self.inside["crosspoint.beat"] == c.word.as_value()),
            implies(here & offered & (c.number == left), self.reader.beat.as_value() == c.word.as_value()),
        ]
        first = Array(self.first)[tenant]
        for page in self.pages:
            for later in self.pages:
                follows = (page.of(tenant) & later.of(tenant) & (place[OFFSET:] == page.number)
                           & (minus(ORDER, page.order, first) < minus(ORDER, later.order, first)))
                distance = minus(BEATS, later.base, c.number)
                claims.append(implies(stored & follows, (distance != 0) & (distance <= 4 * PAGE_BEATS)))
        m.d.comb += [self.claims("word", claim) for claim in claims]

    def _followed_packet(self):
        m, c = self.m, self.c
        place, tenant, number = Signal(SLOT + 2, name="descriptor_at"), c.packet_tenant, c.packet
        with m.If(c.picks_packet):
            m.d.sync += place.eq(self.chain("descriptor_place"))
        written, read, left = self._counts(tenant)
        complete, claimed, begun = (Array(values)[tenant] for values in (
            c.complete, self.claimed, [state.begun for state in self.states]))
        coming, offered = self._stages(tenant)
        reader, next_is = self.reader, Array(state.is_next for state in self.states)[tenant]
        size = minus(BEATS, c.behind, c.begin)
        here = c.followed & ~c.packet_gone
        unclaimed = here & (minus(PACKETS, number, claimed) < minus(PACKETS, complete, claimed))
        waits = here & (minus(PACKETS, number, begun) < minus(PACKETS, complete, begun))
        current = here & ~waits & (number == minus(PACKETS, begun, 1))
        done = here & ~waits & ~current
        word = minus(BEATS, read, 1)      # that comes out of the memory
        leaving = minus(BEATS, left, c.begin)
        claims = [
            implies(here, (size != 0) & (size <= 4 * PAGE_BEATS)),
            implies(unclaimed, self._is_header(self.word("crosspoint.descriptors", place))),
            implies(unclaimed, self._page(place[SLOT:], tenant, lambda page: (place[:SLOT] < page.ended)
                                          & ((page.before + place[:SLOT])[:PACKETS] == number))),
            implies(waits & next_is & (number == begun), self._is_header(self.descriptor)),
            implies(current & coming & reader.read.first, self._is_header(self.r.header)),
            implies(here & offered & reader.first & (Array(c.gone)[tenant] == number), self._is_offered()),
            implies(waits, (self.start(tenant, number) == c.begin)
                    & (self.start(tenant, self.next(number)) == c.behind)),
            implies(waits, (minus(BEATS, c.begin, read) < minus(BEATS, c.behind, read))
                    & (minus(BEATS, c.behind, read) <= minus(BEATS, written, read))),
            implies(current, Array(state.next_start for state in self.states)[tenant] == c.behind),
            implies(current, minus(BEATS, word, c.begin) < size),
        ]
        passing = [
            implies(done, (minus(BEATS, word, c.behind) < 2) & (minus(PACKETS, begun, number)[1:] == 1)),
            implies(done & (minus(PACKETS, begun, number) == 3), word == (c.behind + 1)[:BEATS]),
            implies(here & ~waits, minus(BEATS, c.behind, left) <= 4 * PAGE_BEATS + 2),
            implies(done & coming, implies(word == c.behind, reader.read.first)),
            implies(current & coming, reader.read.first == (word == c.begin)),
            implies(here & offered & (leaving < size - 1), coming & ~reader.read.first),
            implies(here & offered & (leaving < size), reader.first == (leaving == 0)),
            implies(here & offered & (leaving == size), reader.first),
            implies(here & offered & (leaving == 0), Array(c.gone)[tenant] == number),
            implies(here & (leaving < size) & (leaving != 0),
                    Mux(reader.valid, offered & ~reader.first, coming & ~reader.read.first)),
        ]
        m.d.comb += [self.claims("packet", claim) for claim in claims]
        m.d.comb += [self.claims("passing", claim) for claim in passing]
        for state in self.states:
            m.d.comb += [self.claims.instance(state.ordered(a, number))
                         for a in (state.begun, self.next(state.begun))]

    def _agrees(self, descriptor):
        return descriptor.several == (beats_behind(self.config, descriptor) != 0)

    def _is_header(self, descriptor):
        header = self.c.header
        return (descriptor.extent == (header.length - 1)[:12]) & self._agrees(descriptor) & Cat(
            getattr(descriptor, name) == getattr(header, name) for name in STORED).all()

    def _is_offered(self):
        offered, header = self.reader.header, self.c.header
        return Cat(getattr(offered, name) == getattr(header, name) for name in (*STORED, "length")).all()
