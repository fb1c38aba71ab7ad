"""Crosspoint: the buffer between one input and one output, with a queue per tenant made of shared pages.

Contract: store and forward. A packet is reserved with all its pages (`reserve`, at most one packet at a time),
written beat by beat, and seen by the output from the cycle after its `end`. The output starts one packet of a
tenant at a time; its first beat and header are there one cycle after `start`, then a beat a cycle; one more cycle
passes between the last beat and the next start. Order within a tenant is kept. A packet shorter than reserved
keeps the credit of its unused pages until it leaves. There are no errors: what does not fit is not reserved.

Pages are shared by consecutive packets of one tenant: a page is full when its 16 beats or its 8 descriptors are
used, and the next packet then begins a new page; both sides follow this rule, so neither stores where a packet
begins. A queue that runs empty gives its last, partly filled page back. `room` is the credit of each tenant (see
`credit`).
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import PAGE_BEATS, DeviceConfig
from ..manager.allocation import AllocationSignature
from ..stream.packet import PacketHeader, beat_layout
from .credit import Credit
from .pool import PagePool
from .rows import Rows

__all__ = ["PAGE_DESCRIPTORS", "Crosspoint", "ReadSignature", "WriteSignature"]

PAGE_DESCRIPTORS = 8


class WriteSignature(wiring.Signature):
    """An input's side of a crosspoint, seen from admission.

    `tenant`, `beats` and `quota` ask; `fits` and `hold` (ask again) answer in the same cycle. `reserve` books
    what was asked and may be high only with `fits` and without `hold`. Then `beat` is written with `write`, the
    final one with `end`, and with it `header`.
    """

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "tenant": Out(range(config.tenants)),
            "beats": Out(range(257)),
            "quota": Out(16),
            "fits": In(1),
            "hold": In(1),
            "reserve": Out(1),
            "write": Out(1),
            "beat": Out(beat_layout(config)),
            "end": Out(1),
            "header": Out(PacketHeader),
        })


class ReadSignature(wiring.Signature):
    """An output's side of a crosspoint, seen from the output.

    `ready[t]`: a complete packet of tenant *t* waits. `start` (only while `valid` is low, and for a ready
    tenant) begins a packet. While `valid`, `header` is that of the packet and `beat` its next beat; `take`
    ends the beat.
    """

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "ready": In(config.tenants),
            "start": Out(1),
            "tenant": Out(range(config.tenants)),
            "valid": In(1),
            "header": In(PacketHeader),
            "beat": In(beat_layout(config)),
            "take": Out(1),
        })


class Crosspoint(wiring.Component):
    """Buffer of one (input, output)."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        page = range(config.pages)
        count = range(2 * config.pages)
        packets = range(2 * config.pages * PAGE_DESCRIPTORS)
        slot = range(PAGE_DESCRIPTORS + 1)
        # What each side knows of a tenant's queue. Only the owning side writes, both read; what is in the queue
        # is the modular difference of two counts, so that no counter has two writers.
        self._tail = data.StructLayout({
            "page": page, "offset": range(PAGE_BEATS + 1), "slot": slot,
            "first": page,       # where the oldest packet begins if the queue was empty when it came
            "pages": count,      # reserved so far
            "packets": packets,  # reserved so far
            "complete": packets,
        })
        self._head = data.StructLayout({
            "page": page, "offset": range(PAGE_BEATS), "slot": slot,
            "follows": 1,        # the next packet begins at this position, not at `first`
            "pages": count,      # released so far
            "packets": packets,  # gone so far
        })
        self._descriptor = data.StructLayout({"header": PacketHeader, "surplus": 5})
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "w": In(WriteSignature(config)),
            "r": In(ReadSignature(config)),
            "room": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.pool = self.pool = PagePool(config)
        m.submodules.quotas = self.quotas = Rows(config, ["pages"])
        for part in (self.pool, self.quotas):
            wiring.connect(m, wiring.flipped(self.allocation), part.allocation)

        def make(name, shape, depth, init=()):
            m.submodules[name] = part = memory.Memory(shape=shape, depth=depth, init=init)
            return part

        self.beats = make("beats", beat_layout(config), config.pages * PAGE_BEATS)
        self.descriptors = make("descriptors", self._descriptor, config.pages * PAGE_DESCRIPTORS)
        self.links = make("links", range(config.pages), config.pages)
        self.free = make("free", range(config.pages), config.pages, range(config.pages))
        self.tails = make("tails", self._tail, config.tenants)
        self.heads = make("heads", self._head, config.tenants)

        completed, completed_tenant = self._write(m)
        started, finished, tenant, last_waiting = self._read(m)
        m.d.comb += self.w.hold.eq(self.pool.hold | finished)
        self._count_credit(m)

        # A packet is offered to the scheduler from its end to its start.
        ready = Signal(config.tenants)
        arrive = Mux(completed, 1 << completed_tenant, 0)
        depart = Mux(started & last_waiting, 1 << tenant, 0)
        m.d.sync += ready.eq((ready & ~depart) | arrive)
        m.d.comb += self.r.ready.eq(ready)
        return m

    def _count_credit(self, m):
        """Follows the page account: a reservation, else a release, else what the scan looks at."""
        pool = self.pool
        m.submodules.credit = credit = Credit(self._config)
        m.d.comb += [
            credit.event.eq(1),
            credit.free.eq(pool.free),
            credit.total.eq(pool.total),
            self.room.eq(credit.room),
        ]
        with m.If(pool.reserve):
            m.d.comb += [
                credit.tenant.eq(self.w.tenant),
                credit.used.eq(pool.used + pool.need),
                credit.quota.eq(pool.quota),
            ]
        with m.Else():
            m.d.comb += [
                credit.event.eq(pool.release | ~pool.busy),
                credit.tenant.eq(pool.reader_tenant),
                credit.used.eq(pool.reader_used - Mux(pool.release, pool.released, 0)),
                credit.quota.eq(pool.reader_quota),
            ]

    def _write(self, m):
        """Reserves and fills pages; returns (a packet is complete, its tenant)."""
        w, pool = self.w, self.pool
        tail_read = self.tails.read_port(domain="comb")
        head_read = self.heads.read_port(domain="comb")
        tail, head = tail_read.data, head_read.data
        m.d.comb += [tail_read.addr.eq(w.tenant), head_read.addr.eq(w.tenant)]

        # The tail page takes this packet's beginning if it is still held and has a beat and a descriptor left.
        empty = Signal()
        shares = Signal()
        start = Signal(range(PAGE_BEATS + 1))
        need = Signal(range(32))
        m.d.comb += [
            empty.eq(tail.packets == head.packets),
            shares.eq(~empty & (tail.offset < PAGE_BEATS) & (tail.slot < PAGE_DESCRIPTORS)),
            start.eq(Mux(shares, tail.offset, 0)),
            need.eq(((start + w.beats + PAGE_BEATS - 1) >> 4) - shares),
            pool.used.eq(tail.pages - head.pages),
            pool.need.eq(need),
            pool.quota.eq(w.quota),
            pool.reserve.eq(w.reserve),
            w.fits.eq(pool.fits),
        ]

        # Position of the next beat, the packet's descriptor, and the pages reserved but not yet popped.
        tenant = Signal(range(self._config.tenants))
        place = Signal(self._tail)
        offset = Signal(range(PAGE_BEATS))
        descriptor = Signal(range(self._config.pages * PAGE_DESCRIPTORS))
        surplus = Signal(5)
        crosses = Signal()
        m.d.comb += crosses.eq(w.write & ~w.end & (offset == PAGE_BEATS - 1))

        popped = Signal(range(self._config.pages))
        free_read = self.free.read_port(domain="comb")
        pop = Signal()
        m.d.comb += [pop.eq((w.reserve & ~shares) | crosses), popped.eq(free_read.data)]
        with m.If(pop):
            m.d.sync += free_read.addr.eq(free_read.addr + 1)

        link = self.links.write_port()
        m.d.comb += [
            link.en.eq((w.reserve & ~shares & ~empty) | crosses),
            link.addr.eq(Mux(crosses, place.page, tail.page)),
            link.data.eq(popped),
        ]

        booked = Signal(self._tail)
        m.d.comb += [
            booked.eq(tail),
            booked.page.eq(Mux(shares, tail.page, popped)),
            booked.offset.eq(start),
            booked.slot.eq(Mux(shares, tail.slot, 0)),
            booked.first.eq(Mux(empty, popped, tail.first)),
            booked.pages.eq(tail.pages + need),
            booked.packets.eq(tail.packets + 1),
        ]
        with m.If(w.reserve):
            m.d.sync += [
                tenant.eq(w.tenant),
                place.eq(booked),
                place.slot.eq(booked.slot + 1),
                offset.eq(start),
                descriptor.eq(Cat(booked.slot[:3], booked.page)),
                surplus.eq(need - ~shares),
            ]
        with m.Elif(w.write):
            m.d.sync += offset.eq(offset + 1)
            with m.If(crosses):
                m.d.sync += [place.page.eq(popped), place.slot.eq(0), surplus.eq(surplus - 1)]

        final = Signal(self._tail)
        m.d.comb += [
            final.eq(place),
            final.offset.eq(offset + 1),
            final.complete.eq(place.complete + 1),
        ]
        tail_write = self.tails.write_port()
        m.d.comb += [
            tail_write.en.eq(w.reserve | (w.write & w.end)),
            tail_write.addr.eq(Mux(w.reserve, w.tenant, tenant)),
            tail_write.data.eq(Mux(w.reserve, booked, final)),
        ]

        beat_write = self.beats.write_port()
        descriptor_write = self.descriptors.write_port()
        m.d.comb += [
            beat_write.en.eq(w.write),
            beat_write.addr.eq(Cat(offset, place.page)),
            beat_write.data.eq(w.beat),
            descriptor_write.en.eq(w.write & w.end),
            descriptor_write.addr.eq(descriptor),
            descriptor_write.data.header.eq(w.header),
            descriptor_write.data.surplus.eq(surplus),
        ]
        return w.write & w.end, tenant

    def _read(self, m):
        """Sends packets; returns (start, finish, tenant, no other complete packet of the tenant waits)."""
        r, pool = self.r, self.pool
        active = Signal()
        tenant = Signal(range(self._config.tenants))
        page = Signal(range(self._config.pages))
        offset = Signal(range(PAGE_BEATS))
        slot = Signal(range(PAGE_DESCRIPTORS + 1))  # descriptors of `page` that were used
        freed = Signal(5)                           # pages left behind by this packet

        beat_read = self.beats.read_port()
        descriptor_read = self.descriptors.read_port()
        header, surplus = descriptor_read.data.header, descriptor_read.data.surplus
        m.d.comb += [r.valid.eq(active), r.beat.eq(beat_read.data), r.header.eq(header)]

        finish = Signal()
        crosses = Signal()
        at_end = Signal()
        m.d.comb += [
            at_end.eq(offset == PAGE_BEATS - 1),
            finish.eq(r.take & beat_read.data.last),
            crosses.eq(r.take & ~beat_read.data.last & at_end),
        ]

        # One look at the tables serves the start, the finish, and between them the pool's scan.
        asked = Signal.like(tenant)
        m.d.comb += asked.eq(Mux(r.start, r.tenant, Mux(finish, tenant, pool.scan_tenant)))
        tail_read = self.tails.read_port(domain="comb")
        head_read = self.heads.read_port(domain="comb")
        tail, head = tail_read.data, head_read.data
        m.d.comb += [
            tail_read.addr.eq(asked),
            head_read.addr.eq(asked),
            self.quotas.tenants[0].eq(asked),
            pool.busy.eq(r.start | finish),
            pool.reader_tenant.eq(asked),
            pool.reader_used.eq(tail.pages - head.pages),
            pool.reader_quota.eq(self.quotas.rows[0].pages),
        ]

        link = self.links.read_port(domain="comb")
        m.d.comb += link.addr.eq(page)
        begin = Signal(data.StructLayout({"page": range(self._config.pages), "offset": range(PAGE_BEATS),
                                          "slot": range(PAGE_DESCRIPTORS + 1)}))
        with m.If(head.follows):
            m.d.comb += [begin.page.eq(head.page), begin.offset.eq(head.offset), begin.slot.eq(head.slot)]
        with m.Else():
            m.d.comb += begin.page.eq(tail.first)

        there = Signal(range(self._config.pages * PAGE_BEATS))
        m.d.comb += there.eq(Mux(at_end, Cat(Const(0, 4), link.data), Cat(offset, page) + 1))
        m.d.comb += [
            beat_read.en.eq(r.start | r.take),
            beat_read.addr.eq(Mux(r.start, Cat(begin.offset, begin.page), there)),
            descriptor_read.en.eq(r.start),
            descriptor_read.addr.eq(Cat(begin.slot[:3], begin.page)),
        ]
        with m.If(r.start):
            m.d.sync += [
                active.eq(1),
                tenant.eq(r.tenant),
                page.eq(begin.page),
                offset.eq(begin.offset),
                slot.eq(begin.slot + 1),
                freed.eq(0),
            ]
        with m.Elif(finish):
            m.d.sync += active.eq(0)
        with m.Elif(r.take):
            m.d.sync += [page.eq(there[4:]), offset.eq(there[:4])]
            with m.If(at_end):
                m.d.sync += [slot.eq(0), freed.eq(freed + 1)]

        # The page ends with this packet if it is full, or if nobody shares it because the queue runs empty.
        empty = Signal()
        full = Signal()
        m.d.comb += [
            empty.eq(tail.packets == (head.packets + 1)[:len(head.packets)]),
            full.eq(at_end | (slot == PAGE_DESCRIPTORS)),
            pool.release.eq(finish),
            pool.released.eq(freed + (empty | full) + surplus),
        ]
        head_write = self.heads.write_port()
        m.d.comb += [
            head_write.en.eq(finish),
            head_write.addr.eq(tenant),
            head_write.data.page.eq(Mux(full, link.data, page)),
            head_write.data.offset.eq(Mux(full, 0, offset + 1)),
            head_write.data.slot.eq(Mux(full, 0, slot)),
            head_write.data.follows.eq(~empty),
            head_write.data.pages.eq(head.pages + pool.released),
            head_write.data.packets.eq(head.packets + 1),
        ]

        free_write = self.free.write_port()
        m.d.comb += [
            free_write.en.eq(crosses | (finish & (empty | full))),
            free_write.data.eq(page),
        ]
        with m.If(free_write.en):
            m.d.sync += free_write.addr.eq(free_write.addr + 1)

        last_waiting = tail.complete == (head.packets + 1)[:len(head.packets)]
        return r.start, finish, r.tenant, last_waiting
