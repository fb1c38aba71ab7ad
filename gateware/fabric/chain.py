"""Chain: how the packets and pages of each tenant's queue in one crosspoint hang together.

Contract: the writing side says of each beat that counts whether it is a packet's first or last and where the packet
lies (`w`, see `place`); `beat_place` and `descriptor_place` are, in the same cycle, where beat and descriptor
belong (for a first beat that does not count: would belong, while `vacant` or it shares a page), and a new page is
taken from the free list when one is needed (admission has booked it). The reading side asks for the oldest unclaimed
packet of `r_tenant`, of which there must be one, and gets its descriptor's place, whether its queue began anew with it
(`r_fresh`, then at page `r_first`) or it begins on a new page (`r_skip`); `r_claim` goes on to the next. `r_closings`
is how often the queue of `r_tenant` was closed, modulo 2. `home` gives a page back. All lookups are combinational.

Every memory here has one writer. The next descriptor of a queue is in the same page if more packets end there than
were claimed (`slots`), else in the page where the next packet ends (`ends`). A queue began anew if it was closed as
often as such a beginning was claimed (`anew`).
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import PAGE_BEATS, DeviceConfig
from ..stream.packet import PacketHeader, beat_layout
from .place import PAGE_DESCRIPTORS, placement_layout

__all__ = ["Chain", "WriteSignature"]


class WriteSignature(wiring.Signature):
    """An input's side of a crosspoint, seen from admission; the bookings are beside it (`account`).

    put: `beat` is written where the packet's next beat belongs, and with `end` `header` where its descriptor does. It
    counts only with `write`, and `write` only with `put`; a first beat that does not count must be placed all the
    same as if it did. `first` and `end` mark a packet's first and last beat;
    `tenant` and `placed` are the packet's in all of them.
    """

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "put": Out(1),
            "write": Out(1),
            "first": Out(1),
            "end": Out(1),
            "tenant": Out(range(config.tenants)),
            "placed": Out(placement_layout()),
            "beat": Out(beat_layout(config)),
            "header": Out(PacketHeader),
        })


class Chain(wiring.Component):
    """Lists of one crosspoint."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        tenant, page = range(config.tenants), range(config.pages)
        super().__init__({
            "w": In(WriteSignature(config)),
            "vacant": Out(1),
            "beat_place": Out(range(config.pages * PAGE_BEATS)),
            "descriptor_place": Out(range(config.pages * PAGE_DESCRIPTORS)),
            "r_tenant": In(tenant),
            "r_claim": In(1),
            "r_closings": In(1),
            "r_fresh": Out(1),
            "r_skip": Out(1),
            "r_first": Out(page),
            "r_descriptor": Out(range(config.pages * PAGE_DESCRIPTORS)),
            "r_link_of": In(page),
            "r_link": Out(page),
            "r_follow_of": In(page),
            "r_follow": Out(page),
            "walk_tenant": In(tenant),
            "walk_page": Out(page),
            "home": In(1),
            "home_page": In(page),
        })

    def elaborate(self, platform):
        m = Module()
        page, pages, tenants = range(self._config.pages), self._config.pages, self._config.tenants
        self._position = data.StructLayout({"page": page, "slot": range(PAGE_DESCRIPTORS)})

        def make(name, shape, depth, init=()):
            m.submodules[name] = part = memory.Memory(shape=shape, depth=depth, init=init)
            return part

        self.free = make("free", page, pages, range(pages))
        self.links = make("links", page, pages)                          # the next page of the queue
        self.ends = make("ends", page, pages)                            # where the next packet of the queue ends
        self.slots = make("slots", range(PAGE_DESCRIPTORS), pages)       # of the last packet that ends in the page
        self.tails = make("tails", self._position, tenants)              # where the last packet ends
        self.starts = make("starts", page, tenants)                      # where a queue that began anew starts
        self.firsts = make("firsts", page, tenants)                      # where its first packet ends
        self._write(m)
        self._read(m)
        return m

    def _write(self, m):
        """Places the beat at hand, and links what it begins or ends."""
        page = range(self._config.pages)
        tail = self.tails.read_port(domain="comb")
        walk = self.tails.read_port(domain="comb")
        m.d.comb += [
            tail.addr.eq(self.w.tenant),
            walk.addr.eq(self.walk_tenant),
            self.walk_page.eq(walk.data.page),
        ]
        held_page, held_tail = (Signal(page, name=name) for name in ("held_page", "held_tail"))
        offset = Signal(range(PAGE_BEATS))                  # of the next beat of the packet under way
        before, old = Signal(page), Signal(page)            # page of the beat before; end of the packet before
        begins = Signal()
        here = Signal(page)
        popped = self._take_page(m, self.w.write & begins)
        m.d.comb += [
            before.eq(Mux(self.w.first, tail.data.page, held_page)),
            old.eq(Mux(self.w.first, tail.data.page, held_tail)),
            begins.eq(Mux(self.w.first, ~self.w.placed.shares, offset == 0)),
            here.eq(Mux(begins, popped, before)),
            self.beat_place.eq(Cat(Mux(self.w.first, self.w.placed.start, offset), here)),
            self.descriptor_place.eq(Cat(self.w.placed.slot, here)),
        ]
        with m.If(Mux(self.w.first, self.w.put, self.w.write)):
            m.d.sync += [held_page.eq(here), held_tail.eq(old), offset.eq(self.beat_place[:4] + 1)]

        def write(store, enable, address, value):
            port = store.write_port()
            m.d.comb += [port.en.eq(enable), port.addr.eq(address), port.data.eq(value)]

        # What says where the next packet of a queue is, and its pages, is read only when there is one: it is written
        # before it is known whether the beat counts. `slots` and `tails` say whether there is one.
        # A queue without a page (not `open`) begins anew: nothing refers to its first page but `starts`.
        put, counts, is_open = self.w.put, self.w.write & self.w.end, self.w.placed.open
        write(self.links, put & begins & ~(self.w.first & ~is_open), before, here)
        write(self.starts, put & self.w.first & ~is_open, self.w.tenant, here)
        write(self.ends, put & self.w.end & is_open & (self.w.placed.slot == 0), old, here)
        write(self.firsts, put & self.w.end & ~is_open, self.w.tenant, here)
        write(self.slots, counts, here, self.w.placed.slot)
        write(self.tails, counts, self.w.tenant, Cat(here, self.w.placed.slot))

    def _take_page(self, m, take):
        """The free list, a ring: the page at its head, which `take` removes; pages that come home go to its tail."""
        read, write = self.free.read_port(domain="comb"), self.free.write_port()
        # One bit more than an address, which tells full from empty.
        head = Signal(range(2 * self._config.pages))
        tail = Signal(range(2 * self._config.pages), init=self._config.pages)
        m.d.comb += [
            self.vacant.eq(head != tail),
            read.addr.eq(head[:len(read.addr)]),
            write.en.eq(self.home),
            write.addr.eq(tail[:len(read.addr)]),
            write.data.eq(self.home_page),
        ]
        m.d.sync += [head.eq(head + take), tail.eq(tail + self.home)]
        return read.data

    def _read(self, m):
        """Finds the oldest unclaimed packet of a tenant."""
        layout = data.StructLayout({"at": self._position, "anew": 1})   # the last claimed packet
        m.submodules.heads = heads = memory.Memory(shape=layout, depth=self._config.tenants, init=[])
        head, head_write = heads.read_port(domain="comb"), heads.write_port()
        first, start = self.firsts.read_port(domain="comb"), self.starts.read_port(domain="comb")
        slot, end = self.slots.read_port(domain="comb"), self.ends.read_port(domain="comb")
        for stores, address in (((head, first, start), self.r_tenant), ((slot, end), head.data.at.page)):
            m.d.comb += [store.addr.eq(address) for store in stores]
        found = Signal(self._position)
        m.d.comb += [
            self.r_fresh.eq(head.data.anew == self.r_closings),
            self.r_skip.eq(head.data.at.slot == PAGE_DESCRIPTORS - 1),
            self.r_first.eq(start.data),
            self.r_descriptor.eq(Cat(found.slot, found.page)),
            head_write.en.eq(self.r_claim),
            head_write.addr.eq(self.r_tenant),
            head_write.data.at.eq(found),
            head_write.data.anew.eq(head.data.anew ^ self.r_fresh),
        ]
        follows, at = Signal(), head.data.at
        m.d.comb += follows.eq(slot.data != at.slot)

        with m.If(self.r_fresh):
            m.d.comb += found.page.eq(first.data)
        with m.Elif(follows):
            m.d.comb += [found.page.eq(at.page), found.slot.eq(at.slot + 1)]
        with m.Else():
            m.d.comb += found.page.eq(end.data)

        link, follow = self.links.read_port(domain="comb"), self.links.read_port(domain="comb")
        m.d.comb += [
            link.addr.eq(self.r_link_of),
            self.r_link.eq(link.data),
            follow.addr.eq(self.r_follow_of),
            self.r_follow.eq(follow.data),
        ]
