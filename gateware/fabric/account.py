"""Account: what each tenant holds of one crosspoint, and where its queue ends.

Contract: `ask` is answered in the same cycle: `place` (see `place`), the pages held, and `raced`: a page of that
tenant comes home in this cycle, so that the number is one too high in the next. A booking (`tenant`, `used`, `need`,
`quota` as it was answered, `exact` unless raced) is answered by `fits` and `hold` in the same cycle; `reserve` books
it, with the queue's new end `after`. A page of `free` is home two cycles later.

A walk shows one tenant a cycle, in the cycles in which no page comes home. It closes an open queue that is empty: no
packet is booked that was not claimed, and none is `held` by the output; the queue's page comes home (`home`,
`home_page`) and `closed` tells the chain. A booking of the same cycle goes before: the page is then shared.
`walk_page` and `walk_claimed` are the walked tenant's last page and claimed packets, by return.
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
from .waiting import packet_count

__all__ = ["Account", "BookingSignature"]


class BookingSignature(wiring.Signature):
    """An input's view of the account, seen from admission; answers come in the same cycle.

    ask: a tenant. Answered: `place`, `asked_used`, and `asked_raced`: a page of that tenant comes home in this cycle.
    tenant, used, need, quota, exact: a booking. Answered: `fits`, and `hold`: ask again.
    reserve: books it; only with `fits` and without `hold`. `after` is where the queue ends then.
    """

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "ask": Out(range(config.tenants)),
            "place": In(place_layout()),
            "asked_used": In(range(2 * config.pages)),
            "asked_raced": In(1),
            "tenant": Out(range(config.tenants)),
            "used": Out(range(2 * config.pages)),
            "need": Out(range(32)),
            "quota": Out(16),
            "exact": Out(1),
            "fits": In(1),
            "hold": In(1),
            "reserve": Out(1),
            "after": Out(place_layout()),
        })



class Account(wiring.Component):
    """Books of one crosspoint."""

    def __init__(self, config: DeviceConfig):
        self._config = config
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
            "walk_tenant": Out(tenant),
            "walk_page": In(page),
            "walk_claimed": In(packet_count(config)),
            "home": Out(1),
            "home_page": Out(page),
            "closed": Out(1),
            "room": Out(config.tenants),
            "own": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.pool = self.pool = PagePool(config)
        m.submodules.quotas = self.quotas = Rows(config, ["pages"])
        for part in (self.pool, self.quotas):
            wiring.connect(m, wiring.flipped(self.allocation), part.allocation)

        # Pages and packets are modular counts with one writer each: booked here, released here, claimed elsewhere.
        booked_layout = data.StructLayout({
            "beats": self.booking.place.beats.shape(), "descriptors": self.booking.place.descriptors.shape(),
            "pages": self._pages, "packets": packet_count(config)})
        m.submodules.booked = booked = memory.Memory(shape=booked_layout, depth=config.tenants, init=[])
        m.submodules.released = self.released = memory.Memory(shape=self._pages, depth=config.tenants, init=[])
        self.open = Signal(config.tenants)
        self._book(m, booked)
        closing = self._walk(m, booked)
        self._answer(m, booked, closing)
        self._count_credit(m)
        return m

    def _book(self, m, booked):
        """Passes the booking to the pool, and keeps it."""
        pool = self.pool
        before, write = booked.read_port(domain="comb"), booked.write_port()
        m.d.comb += [
            pool.used.eq(self.booking.used),
            pool.need.eq(self.booking.need),
            pool.quota.eq(self.booking.quota),
            pool.exact.eq(self.booking.exact & ~(pool.busy & (pool.reader_tenant == self.booking.tenant))),
            pool.reserve.eq(self.booking.reserve),
            self.booking.fits.eq(pool.fits),
            self.booking.hold.eq(pool.hold),
            before.addr.eq(self.booking.tenant),
            write.en.eq(self.booking.reserve),
            write.addr.eq(self.booking.tenant),
            write.data.beats.eq(self.booking.after.beats),
            write.data.descriptors.eq(self.booking.after.descriptors),
            write.data.pages.eq(before.data.pages + self.booking.need),
            write.data.packets.eq(before.data.packets + 1),
        ]
        with m.If(self.booking.reserve):
            m.d.sync += self.open.bit_select(self.booking.tenant, 1).eq(1)

    def _walk(self, m, booked):
        """Brings pages home, else looks at the walked tenant; returns that its queue is about to be closed."""
        pool, tenant = self.pool, self.pool.reader_tenant
        freed, freed_page, freed_tenant = Signal(), Signal.like(self.freed_page), Signal.like(self.freed_tenant)
        m.d.sync += [freed.eq(self.free), freed_page.eq(self.freed_page), freed_tenant.eq(self.freed_tenant)]

        look, gone = booked.read_port(domain="comb"), self.released.read_port(domain="comb")
        write = self.released.write_port()
        closing, in_use = Signal(), Signal()
        m.d.comb += [
            tenant.eq(Mux(freed, freed_tenant, pool.scan_tenant)),
            self.walk_tenant.eq(pool.scan_tenant),
            look.addr.eq(tenant),
            gone.addr.eq(tenant),
            in_use.eq(Cat(held & (who == tenant)
                          for held, who in zip(self.held, self.held_tenant, strict=True)).any()),
            closing.eq(~freed & self.open.bit_select(tenant, 1) & ~in_use & (look.data.packets == self.walk_claimed)),
            self.closed.eq(closing & ~(self.booking.reserve & (self.booking.tenant == tenant))),
            self.home.eq(freed | self.closed),
            self.home_page.eq(Mux(freed, freed_page, self.walk_page)),
            self.quotas.tenants[0].eq(tenant),
            # Also when a booking keeps the queue open: whoever looks at the number must not depend on bookings.
            pool.busy.eq(freed | closing),
            pool.reader_used.eq(look.data.pages - gone.data),
            pool.reader_quota.eq(self.quotas.rows[0].pages),
            pool.release.eq(self.home),
            write.en.eq(self.home),
            write.addr.eq(tenant),
            write.data.eq(gone.data + 1),
        ]
        with m.If(self.closed):
            m.d.sync += self.open.bit_select(tenant, 1).eq(0)
        return closing

    def _answer(self, m, booked, closing):
        """Where the asked tenant's queue ends; one that is about to be closed counts as closed."""
        look, gone = booked.read_port(domain="comb"), self.released.read_port(domain="comb")
        comes_home = self.pool.reader_tenant == self.booking.ask
        m.d.comb += [
            look.addr.eq(self.booking.ask),
            gone.addr.eq(self.booking.ask),
            self.booking.place.open.eq(self.open.bit_select(self.booking.ask, 1) & ~(closing & comes_home)),
            self.booking.place.beats.eq(look.data.beats),
            self.booking.place.descriptors.eq(look.data.descriptors),
            self.booking.asked_used.eq(look.data.pages - gone.data),
            self.booking.asked_raced.eq(self.pool.busy & comes_home),
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
            walk.valid.eq(1),
            walk.tenant.eq(pool.reader_tenant),
            walk.used.eq(pool.reader_used - pool.release),
            walk.quota.eq(pool.reader_quota),
        ]
