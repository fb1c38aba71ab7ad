"""The claims about one tenant's queue in a crosspoint, and what is known of one page; see `lists.py`."""

from amaranth import *

from gateware.config import PAGE_BEATS
from gateware.fabric.place import PAGE_DESCRIPTORS

OFFSET = (PAGE_BEATS - 1).bit_length()         # bits of a beat's number in its page
SLOT = (PAGE_DESCRIPTORS - 1).bit_length()     # bits of a descriptor's number in its page
BEATS, PACKETS = OFFSET + 3, SLOT + 3          # bits of a number in the queue: twice as many as fit into four pages
ORDER = 3                                      # bits of a page's number: twice as many as there are pages


def implies(condition, claim):
    return ~condition | claim


def minus(bits, a, b):
    """The distance from `b` to `a` of numbers that wrap."""
    return (a - b)[:bits]


def beats_behind(config, descriptor):
    """Beats behind the first one, of a packet with that descriptor."""
    return descriptor.extent >> (config.beat_bytes.bit_length() - 1)


class Page:
    """What is known of one page."""

    def __init__(self, m, number):
        name = f"page_{number}"
        self.number = number
        self.owned, self.leaving = Signal(name=f"{name}_owned"), Signal(name=f"{name}_leaving")
        self.tenant = Signal(name=f"{name}_tenant")
        self.ring = Signal(ORDER, init=number, name=f"{name}_ring")   # place in the free list
        self.order = Signal(ORDER, name=f"{name}_order")
        self.base = Signal(BEATS, name=f"{name}_base")                # number of its first beat
        self.before = Signal(PACKETS, name=f"{name}_before")          # packets that ended before it
        self.ended = Signal(range(PAGE_DESCRIPTORS + 1), name=f"{name}_ended")
        self.after = Signal(PACKETS, name=f"{name}_after")            # packets that ended before it or in it
        m.d.comb += self.after.eq(self.before + self.ended)

    def of(self, tenant):
        """It is in the queue of `tenant`."""
        return self.owned & ~self.leaving & (self.tenant == tenant)


class Queue:
    """The claims about one tenant's queue."""

    def __init__(self, invariant, tenant):
        self.i, self.tenant, self.m = invariant, tenant, invariant.m
        c, reader = invariant.c, invariant.reader
        self.pages, self.count, self.first = invariant.pages, invariant.count[tenant], invariant.first[tenant]
        self.written, self.complete, self.read, self.claimed = (
            c.written[tenant], c.complete[tenant], invariant.read[tenant], invariant.claimed[tenant])
        key = reader.next.key
        self.is_next = reader.next.valid & (key.tenant == tenant) & (key.source == invariant.lane.SOURCE)
        self.begun = Signal(PACKETS, name=f"begun_{tenant}")
        self.m.d.comb += self.begun.eq(self.claimed - self.is_next)
        word = invariant.word
        booked, released = (word(f"crosspoint.account.{name}", tenant) for name in ("booked", "released"))
        self.booked, self.is_open = booked, booked.openings ^ released.closings
        self.tails, self.starts, self.firsts, self.heads = (
            word(f"crosspoint.chain.{name}", tenant) for name in ("tails", "starts", "firsts", "heads"))
        self.fresh = self.heads.anew == released.closings   # nothing was claimed since it was opened
        self.under_way = c.busy & (c.tenant == tenant)
        self.end = self.start(self.complete)                # where the packet under way, or the next, begins
        self.next_start = self.start(self.begun)

    def start(self, packet):
        return self.i.start(self.tenant, packet)

    def index(self, page):
        return minus(ORDER, page.order, self.first)

    def mine(self, page):
        return page.of(self.tenant)

    def is_first(self, page):
        return self.mine(page) & (page.order == self.first)

    def claim_all(self):
        for part, claims in (
                ("pages", self._pages), ("order", self._order), ("neighbours", self._neighbours),
                ("borders", self._borders), ("ends", self._ends), ("heads", self._heads), ("writer", self._writer),
                ("reader", self._reader), ("counts", self._counts)):
            self.m.d.comb += [self.i.claims(part, claim) for claim in claims()]

    def _pages(self):
        yield self.is_open == (self.count != 0)
        yield self.count == sum(self.mine(page) for page in self.pages)
        for page in self.pages:
            yield implies(self.mine(page), self.index(page) < self.count)
            for other in self.pages[:page.number]:
                yield implies(self.mine(page) & self.mine(other), page.order != other.order)

        # Closed in this cycle: nothing is left of it but the page that comes home.
        account = "crosspoint.account"
        closed, of, home = (self.i.inside[f"{account}.{name}"] for name in ("closed", "home_tenant", "home_page"))
        closes = closed & (of == self.tenant)
        yield implies(closes, (self.count == 1) & (self.read == self.written) & (self.claimed == self.complete)
                      & ~self.is_next & ~self.under_way & ~self.fresh)
        yield implies(closes, self.i.any_page(lambda page: self.mine(page) & (home == page.number)))

    def pending(self, packet):
        """It was not begun, and it or the one before it is complete: `start` knows it."""
        return minus(PACKETS, packet, self.begun) <= minus(PACKETS, self.complete, self.begun)

    def _order(self):
        full = PAGE_DESCRIPTORS
        for page in self.pages:
            mine, index = self.mine(page), self.index(page)
            beats = minus(BEATS, self.written, page.base)
            yield implies(mine, (beats != 0) & (beats <= PAGE_BEATS * (self.count - index)))
            yield implies(mine, minus(PACKETS, self.complete, page.after) <= full * (self.count - 1 - index))
            yield implies(mine & (index == self.count - 1), page.after == self.complete)
            yield implies(mine & (page.ended == full), self.pending(page.after))
            yield implies(mine, page.ended <= full)
            yield implies(mine & (index != 0), minus(BEATS, page.base, self.read) <= 3 * PAGE_BEATS)
            yield implies(mine & (index == 0), minus(BEATS, self.read, page.base) <= PAGE_BEATS)
            yield implies(mine & (index == 0), minus(PACKETS, self.begun, page.before) <= page.ended + 1)

    def _pairs(self):
        """(a page, one that is later if `later`, and the next one if `adjacent`; from base to base), of any two."""
        for page in self.pages:
            for other in self.pages[:page.number] + self.pages[page.number + 1:]:
                later = self.mine(page) & self.mine(other) & (self.index(other) > self.index(page))
                adjacent = later & (self.index(other) == self.index(page) + 1)
                yield page, other, later, adjacent, minus(BEATS, other.base, page.base)

    def _neighbours(self):
        for page, other, later, adjacent, distance in self._pairs():
            yield implies(later, (distance != 0) & (distance <= 3 * PAGE_BEATS))
            yield implies(later, minus(PACKETS, other.before, page.after) <= 4 * PAGE_DESCRIPTORS)
            yield implies(adjacent, (distance == PAGE_BEATS)
                          | ((distance <= PAGE_BEATS) & (page.ended == PAGE_DESCRIPTORS)))
            yield implies(adjacent, self.i.word("crosspoint.chain.links", page.number) == other.number)
            yield implies(adjacent, other.before == page.after)

    def _borders(self):
        for page, other, _, adjacent, _ in self._pairs():
            end, behind = self.start(page.after), self.start(self.i.next(page.after))
            yield implies(adjacent & self.pending(page.after), minus(BEATS, other.base, end) <= 4 * PAGE_BEATS)
            yield implies(adjacent & (page.ended == PAGE_DESCRIPTORS), other.base == end)
            passes = minus(BEATS, behind, other.base)   # the packet that did not end here ends behind
            yield implies(adjacent & self.pending(self.i.next(page.after)) & (page.after != self.complete),
                          (passes != 0) & (passes <= 4 * PAGE_BEATS))

    def _ends(self):
        for page in self.pages:
            ends = self.mine(page) & (page.ended != 0)
            yield implies(ends, self.i.word("crosspoint.chain.slots", page.number) == (page.ended - 1)[:SLOT])
            following, after = self.i.word("crosspoint.chain.ends", page.number), page.after
            yield implies(ends & (after != self.complete), self.i.any_page(
                lambda other, following=following, after=after: self.mine(other) & (other.ended != 0)
                & (other.before == after) & (following == other.number)))

    def _heads(self):
        unread = self.claimed != self.complete
        opened = self.count != 0
        yield implies(opened & self.fresh, self.i.any_page(
            lambda page: self.is_first(page) & (page.base == self.read) & (page.before == self.claimed)
            & (self.starts == page.number)))
        yield implies(opened & self.fresh & unread, self.i.any_page(
            lambda page: self.mine(page) & (page.ended != 0) & (page.before == self.claimed)
            & (self.firsts == page.number)))
        yield implies(~self.fresh, self.i.any_page(
            lambda page: self.mine(page) & (self.heads.at.page == page.number) & (self.heads.at.slot < page.ended)
            & ((page.before + self.heads.at.slot + 1)[:PACKETS] == self.claimed)))
        yield implies(opened & ~(self.fresh & ~unread), self.i.any_page(
            lambda page: self.mine(page) & (page.ended != 0) & (page.after == self.complete)
            & (self.tails.page == page.number) & (self.tails.slot == (page.ended - 1)[:SLOT])))

    def _writer(self):
        i, c, under_way = self.i, self.i.c, self.under_way
        yield c.since[self.tenant] == self.end
        yield implies(~under_way, self.end == self.written)
        yield implies(under_way, minus(BEATS, self.written, self.end) == c.total - c.to_come)
        yield implies(under_way, (self.count != 0) & (c.placed.open == ~(self.fresh & (self.claimed == self.complete))))
        yield implies(under_way & c.placed.open, i.chain("held_tail") == self.tails.page)
        offset, owed = i.chain("offset"), i.owed
        for page in self.pages:
            last = self.mine(page) & (self.index(page) == self.count - 1)
            beats = minus(BEATS, self.written, page.base)
            yield implies(last & ~under_way, (page.ended != 0) & (self.booked.beats == beats[:OFFSET])
                          & (self.booked.descriptors == page.ended[:SLOT]) & (self.tails.page == page.number))
            yield implies(last & under_way, (i.chain("held_page") == page.number) & (offset == beats[:OFFSET]))
            yield implies(last & under_way, page.ended != PAGE_DESCRIPTORS)
            yield implies(last & under_way, (self.booked.beats == (offset + c.to_come)[:OFFSET])
                          & (self.booked.descriptors == (c.placed.slot + 1)[:SLOT]))
            yield implies(last & under_way, Mux(owed == 0, c.placed.slot == page.ended, c.placed.slot == 0))

    def _reader(self):
        i, reader, following = self.i, self.i.reader, self.i.reader.next
        current = (reader.current.key.tenant == self.tenant) & (reader.current.key.source == i.lane.SOURCE)
        first = reader.read.valid & reader.read.first
        behind = beats_behind(i.config, i.r.header)
        remaining = Mux(current, Mux(first, behind, i.inside["reader.left"]), 0)
        yield remaining == minus(BEATS, self.next_start, self.read)
        size = minus(BEATS, self.start(self.i.next(self.begun)), self.next_start + 1)
        descriptor = i.descriptor
        yield implies(self.is_next, beats_behind(i.config, descriptor) == size)
        yield implies(self.is_next | (remaining != 0), self.count != 0)
        yield implies(self.is_next, ~self.fresh)
        yield implies(self.is_next & following.fresh, i.any_page(
            lambda page: self.is_first(page) & (page.base == self.read) & (following.first == page.number)))
        yield implies(self.is_next & ~following.fresh, following.skip == i.any_page(
            lambda page: self.mine(page) & (page.ended == PAGE_DESCRIPTORS) & (page.after == self.begun)))
        begins_anew = self.is_next & following.fresh
        kept = i.word("reader.ends", self.tenant + 2 * i.lane.SOURCE)
        at = Signal.like(reader.current.at, name=f"at_{self.tenant}")
        self.m.d.comb += at.eq(Mux(current, reader.current.at, kept))
        yield implies(~self.fresh & ~begins_anew, i.any_page(
            lambda page: self.is_first(page) & (at.page == page.number)
            & ((page.base + Mux(at.full, PAGE_BEATS, at.offset))[:BEATS] == self.read)))
        yield implies(~self.fresh & ~begins_anew, at.full == (at.offset == 0))
        yield implies(remaining != 0, ~self.fresh & ~begins_anew)
        yield implies(self.count == 0, self.fresh & ~self.is_next & (self.read == self.written)
                      & (self.claimed == self.complete) & ~self.under_way)

    def _counts(self):
        i, c = self.i, self.i.c
        yield i.r.ready[self.tenant] == (self.claimed != self.complete)
        arrivals, claims = (i.word(f"crosspoint.waiting.{name}", self.tenant) for name in ("arrivals", "claims"))
        yield minus(PACKETS, arrivals, claims) == minus(PACKETS, self.complete, self.claimed)
        yield minus(PACKETS, self.complete, self.claimed) <= 4 * PAGE_DESCRIPTORS
        yield minus(PACKETS, self.complete, self.begun) <= 4 * PAGE_DESCRIPTORS
        yield minus(BEATS, self.written, self.read) <= 4 * PAGE_BEATS
        yield minus(BEATS, self.next_start, self.read) <= minus(BEATS, self.written, self.read)
        yield minus(BEATS, self.written, self.next_start) <= 4 * PAGE_BEATS
        coming, offered = i._stages(self.tenant)
        yield (c.left[self.tenant] + offered + coming)[:BEATS] == self.read
        begun = c.gone[self.tenant] + (offered & i.reader.first) + (coming & i.reader.read.first)
        yield begun[:PACKETS] == self.begun

    def ordered(self, first, second):
        """Of two packets that were not begun (or what comes next), the later one begins at a later beat."""
        here, there, last = (minus(PACKETS, packet, self.begun) for packet in (first, second, self.complete))
        begin, behind, end = (minus(BEATS, beat, self.read) for beat in (
            self.start(first), self.start(second), self.written))
        return implies((here < there) & (there <= last), (begin < behind) & (behind <= end))

    def descriptor(self, place):
        """A descriptor whose packet was not claimed has that packet's length."""
        slot, page, packet = place[:SLOT], Array(self.pages)[place[SLOT:]], Signal(PACKETS, name="described")
        self.m.d.comb += packet.eq(page.before + slot)
        live = page.owned & ~page.leaving & (page.tenant == self.tenant) & (slot < page.ended) & (
            minus(PACKETS, packet, self.claimed) < minus(PACKETS, self.complete, self.claimed))
        size = minus(BEATS, self.start(self.i.next(packet)), self.start(packet) + 1)
        return implies(live, beats_behind(self.i.config, self.i.word("crosspoint.descriptors", place)) == size)
