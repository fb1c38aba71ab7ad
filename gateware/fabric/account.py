"""Account: what each tenant holds of one crosspoint, and where its queue ends.

Contract: `ask` is answered in the next cycle, as of this one: `place` (see `place`), the pages held, and `raced`: a
page of that tenant comes home in this cycle or the next, so that the number is too high then. A booking (`tenant`,
`need`, what is `left` of the quota, `above`: that is less; `exact` unless raced) comes two cycles after `ask` and is
answered by `fits` and `hold` in the same cycle; `reserve` books it, with the queue's new end `after`. A page of `free`
is home three cycles later.

A walk shows one tenant a cycle, in the cycles in which no page comes home. It finds an open queue that is empty: no
packet is booked that was not claimed, none is `held` by the output, and no booking is `near`. Unless it is booked for
in that very cycle, the queue is closed in the next (`closed`) and its page comes home (`home`, `home_page`); who asked
before it was found is told to `hold`.
`walk_page` is the walked tenant's last page, by return. `waiting` are the tenants with complete packets that are not
claimed; `writing`, that a packet of `writer` was booked and is not complete yet. `closings_of` asks how often the
queue of a tenant was closed, modulo 2.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..manager.allocation import AllocationSignature
from .credit import Credit
from .place import place_layout
from .pool import PagePool
from .rows import Rows

__all__ = ["Account", "BookingSignature"]


class BookingSignature(wiring.Signature):
    """An input's view of the account, seen from admission.

    ask: a tenant. Answered in the next cycle, as of this one: `place`, `asked_used`, and `asked_raced`: a page of that
    tenant comes home in this cycle or the next.
    near: a booking of `near_tenant` is expected in the next cycle.
    tenant, need, left, above, exact: a booking. Answered in the same cycle: `fits`, and `hold`: ask again. `used` and
    `quota` of the tenant are what `left` was computed from.
    reserve: books it; only with `fits` and without `hold`. `after` is where the queue ends then.
    """

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "ask": Out(range(config.tenants)),
            "place": In(place_layout()),
            "asked_used": In(range(2 * config.pages)),
            "asked_raced": In(1),
            "near": Out(1),
            "near_tenant": Out(range(config.tenants)),
            "tenant": Out(range(config.tenants)),
            "used": Out(range(2 * config.pages)),
            "need": Out(range(32)),
            "quota": Out(range(config.pages + 1)),
            "left": Out(range(config.pages + 1)),
            "above": Out(1),
            "exact": Out(1),
            "fits": In(1),
            "hold": In(1),
            "reserve": Out(1),
            "after": Out(place_layout()),
        })


class Account(wiring.Component):
    """Books of one crosspoint; `credit`: with the ports `room` and `own`."""

    def __init__(self, config: DeviceConfig, *, credit: bool = False):
        self._config = config
        self._credit = credit
        tenant, page = range(config.tenants), range(config.pages)
        self._pages = range(2 * config.pages)
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "booking": In(BookingSignature(config)),
            "free": In(1),
            "freed_page": In(page),
            "freed_tenant": In(tenant),
            "held": In(2),
            "held_tenant": In(tenant).array(2),
            "waiting": In(config.tenants),
            "writing": In(1),
            "writer": In(tenant),
            "walk_tenant": Out(tenant),
            "walk_page": In(page),
            "home": Out(1),
            "home_page": Out(page),
            "home_tenant": Out(tenant),
            "closed": Out(1),
            "closings_of": In(tenant),
            "closings": Out(1),
            **({"room": Out(config.tenants), "own": Out(config.tenants)} if credit else {}),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.pool = self.pool = PagePool(config)
        m.submodules.quotas = self.quotas = Rows(config, ["pages"])
        for part in (self.pool, self.quotas):
            wiring.connect(m, wiring.flipped(self.allocation), part.allocation)

        # What is counted on both sides is two modular counts with one writer each: a queue is open when it was opened
        # once more than closed; pages are booked by the input and released by the output.
        place = {name: field.shape for name, field in place_layout()}
        booked_layout = data.StructLayout({
            "beats": place["beats"], "descriptors": place["descriptors"], "openings": 1,
            "pages": self._pages})
        released_layout = data.StructLayout({"pages": self._pages, "closings": 1})
        m.submodules.booked = self.booked = memory.Memory(shape=booked_layout, depth=config.tenants, init=[])
        m.submodules.released = self.released = memory.Memory(shape=released_layout, depth=config.tenants, init=[])
        self._book(m)
        self._walk(m)
        self._release(m)
        self._answer(m)
        if self._credit:
            self._count_credit(m)
        return m

    def _look(self, m, tenant):
        """(booked, released, the queue is open) of a tenant."""
        booked, released = self.booked.read_port(domain="comb"), self.released.read_port(domain="comb")
        m.d.comb += [booked.addr.eq(tenant), released.addr.eq(tenant)]
        return booked.data, released.data, booked.data.openings ^ released.data.closings

    def _book(self, m):
        """Passes the booking to the pool, and keeps it."""
        pool, booking = self.pool, self.booking
        before, released, _ = self._look(m, booking.tenant)
        comes_home = Signal()
        write = self.booked.write_port()
        m.d.comb += [
            pool.need.eq(booking.need),
            pool.left.eq(booking.left),
            pool.above.eq(booking.above),
            comes_home.eq(self.home & (self.home_tenant == booking.tenant)),
            pool.exact.eq(booking.exact & ~comes_home),
            pool.reserve.eq(booking.reserve),
            booking.fits.eq(pool.fits),
            booking.hold.eq(pool.hold | (comes_home & self.closed)),
            write.en.eq(booking.reserve),
            write.addr.eq(booking.tenant),
            write.data.beats.eq(booking.after.beats),
            write.data.descriptors.eq(booking.after.descriptors),
            write.data.openings.eq(~released.closings),
            write.data.pages.eq(before.pages + booking.need),
        ]

    def _walk(self, m):
        """Brings pages home, else looks at the walked tenant: what is found is done in the cycle after."""
        pool, booking = self.pool, self.booking
        freed = Signal()
        busy, in_use, awaited = Signal(), Signal(), Signal()
        self.closing = closing = Signal()
        freed_page = Signal.like(self.freed_page, name="freed_page")
        freed_tenant = Signal.like(self.freed_tenant, name="freed_tenant")
        tenant = Signal.like(self.freed_tenant, name="found_tenant")
        m.d.sync += [freed.eq(self.free), freed_page.eq(self.freed_page), freed_tenant.eq(self.freed_tenant)]

        _, _, is_open = self._look(m, pool.scan_tenant)
        m.d.comb += [
            self.walk_tenant.eq(pool.scan_tenant),
            tenant.eq(Mux(freed, freed_tenant, pool.scan_tenant)),
            in_use.eq(self.waiting.bit_select(pool.scan_tenant, 1)
                      | (self.writing & (self.writer == pool.scan_tenant))
                      | Cat(held & (who == pool.scan_tenant)
                            for held, who in zip(self.held, self.held_tenant, strict=True)).any()),
            awaited.eq(self.booking.near & (self.booking.near_tenant == pool.scan_tenant)),
            # The queue that is closed in this cycle looks open still.
            closing.eq(~freed & is_open & ~in_use & ~awaited & ~self.closed),
            # Also when a booking keeps the queue open: the walk must not depend on bookings.
            busy.eq(freed | closing),
            pool.busy.eq(busy),
            pool.found_tenant.eq(tenant),
        ]
        keeps = booking.reserve & (booking.tenant == pool.scan_tenant)
        m.d.sync += [
            self.home.eq(freed | (closing & ~keeps)),
            self.closed.eq(closing & ~keeps),
            self.home_tenant.eq(tenant),
            self.home_page.eq(Mux(freed, freed_page, self.walk_page)),
        ]

    def _release(self, m):
        """What the walk has found: a page comes home, or the tenant is shown to pool and credit as it is."""
        pool, tenant = self.pool, self.home_tenant
        booked, released, _ = self._look(m, tenant)
        write = self.released.write_port()
        m.d.comb += [
            self.quotas.tenants[0].eq(tenant),
            pool.release.eq(self.home),
            pool.used.eq(booked.pages - released.pages),
            pool.quota.eq(self.quotas.rows[0].pages),
            write.en.eq(self.home),
            write.addr.eq(tenant),
            write.data.pages.eq(released.pages + 1),
            write.data.closings.eq(released.closings ^ self.closed),
        ]
        count = self.released.read_port(domain="comb")
        m.d.comb += [count.addr.eq(self.closings_of), self.closings.eq(count.data.closings)]

    def _answer(self, m):
        """Where the asked tenant's queue ends; one that is closed in this cycle or the next counts as closed."""
        ask = self.booking.ask
        booked, released, is_open = self._look(m, ask)
        now, then = self.home_tenant == ask, self.pool.found_tenant == ask
        m.d.sync += [
            self.booking.place.open.eq(is_open & ~(self.closed & now) & ~(self.closing & then)),
            self.booking.place.beats.eq(booked.beats),
            self.booking.place.descriptors.eq(booked.descriptors),
            self.booking.asked_used.eq(booked.pages - released.pages),
            self.booking.asked_raced.eq((self.home & now) | (self.pool.busy & then)),
        ]

    def _count_credit(self, m):
        """Follows the books: reservations, releases, and the walk."""
        pool = self.pool
        m.submodules.credit = credit = Credit(self._config)
        booking, walk = credit.events
        m.d.comb += [
            credit.free.eq(pool.free),
            credit.total.eq(pool.total),
            self.room.eq(credit.room),
            self.own.eq(credit.own),
            booking.valid.eq(self.booking.reserve),
            booking.tenant.eq(self.booking.tenant),
            booking.used.eq(self.booking.used + self.booking.need),
            booking.quota.eq(self.booking.quota),
        ]
        # What the walk saw is a cycle old then: not news of a tenant that has booked since.
        m.d.sync += [
            walk.valid.eq(~(self.booking.reserve & (self.booking.tenant == self.home_tenant))),
            walk.tenant.eq(self.home_tenant),
            walk.used.eq(pool.used - pool.release),
            walk.quota.eq(pool.quota),
        ]
