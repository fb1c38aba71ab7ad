"""Page account of one crosspoint: who may take how many pages, under quotas that a commit changes at once.

Contract: `fits` is combinational: a reservation of `need` pages for a tenant that holds `used` is allowed when
`used + need <= quota`, or when the excesses of all tenants over their quotas, this one included, fit the shared
pool (`pages - sum_pages`); in both cases the pages must exist. `reserve` in the same cycle books it; `release`
books one page of the tenant at the reading side back. `used` may be too large when `exact` is low; then only what
fits the quota all the same is answered, and the rest told to `hold`.

The reading side shows the pool one tenant a cycle: the one that releases (`busy`), else `scan_tenant`, which walks
for ever. The sum of excesses is kept incrementally; after a commit it is made anew in one walk (T cycles plus one for
each cycle that was busy). In that time reservations within the quota are allowed and others are told to `hold`:
nobody is refused for want of a sum. `free[n]`: the shared pool has n + 1 pages left; `total[n]`: it has so many at
all. There are no errors; a release of more than is used cannot happen by construction of the crosspoint.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import CREDIT_PAGES, DeviceConfig
from ..manager.allocation import AllocationSignature

__all__ = ["PagePool"]


class PagePool(wiring.Component):
    """Admission's page check and the books behind it."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        count = range(config.pages + 1)
        tenant = range(config.tenants)
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            # Writing side: the tenant that asks.
            "used": In(count),
            "need": In(range(32)),
            "quota": In(16),
            "exact": In(1, init=1),
            "fits": Out(1),
            "hold": Out(1),
            "reserve": In(1),
            "free": Out(CREDIT_PAGES),
            "total": Out(CREDIT_PAGES),
            # Reading side: `busy` says that `reader_tenant` releases; otherwise it is the scan's.
            "busy": In(1),
            "scan_tenant": Out(tenant),
            "reader_tenant": In(tenant),
            "reader_used": In(count),
            "reader_quota": In(16),
            "release": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        pages = self._config.pages

        # Sums of excesses may pass `pages` for as long as a lowered quota leaves a debt, never twice of it.
        excess = Signal(range(4 * pages))
        vacant = Signal(range(pages + 1), init=pages)
        shared = Signal(range(pages + 1))
        with m.If(self.allocation.sum_pages <= pages):
            m.d.comb += shared.eq(pages - self.allocation.sum_pages)

        def over(used, quota, name):
            """Pages of `used` that are above `quota`."""
            result = Signal(range(2 * pages), name=name)
            with m.If(used > quota):
                m.d.comb += result.eq(used - quota)
            return result

        ptr, scanning, stale = self._scan(m)
        wanted = Signal(range(2 * pages))
        m.d.comb += wanted.eq(self.used + self.need)
        before = over(self.used, self.quota, "before")
        after = over(wanted, self.quota, "after")
        within = Signal()
        m.d.comb += [
            within.eq(wanted <= self.quota),
            self.hold.eq(~within & (stale | ~self.exact)),
            self.fits.eq((self.need <= vacant)
                         & (within | (~stale & (excess + after - before <= shared)))),
        ]

        m.d.comb += [
            self.free.eq(Cat(~stale & (excess + n <= shared) & (vacant >= CREDIT_PAGES)
                             for n in range(1, CREDIT_PAGES + 1))),
            self.total.eq(Cat(shared >= n for n in range(1, CREDIT_PAGES + 1))),
        ]

        held = over(self.reader_used, self.reader_quota, "held")
        left = over(self.reader_used - self.release, self.reader_quota, "left")
        # A tenant that the new sum has not reached yet is counted when the scan does, with what it has by then.
        counted = ~stale | (scanning & (self.reader_tenant < ptr))
        taken = Mux(self.reserve & ~within, after - before, 0)
        given = Mux(self.release & counted, held - left, 0)
        found = Mux(scanning & ~self.busy, left, 0)
        with m.If(stale & ~scanning):
            m.d.sync += excess.eq(0)
        with m.Else():
            m.d.sync += excess.eq(excess + taken - given + found)
        m.d.sync += vacant.eq(vacant - Mux(self.reserve, self.need, 0) + self.release)
        return m

    def _scan(self, m):
        """Walks the tenants; returns (pointer, a new sum is being made, the sum is not usable).

        A change of the table starts the walk anew: a whole one follows.
        """
        ptr = Signal(range(self._config.tenants))
        scanning = Signal()
        seen = Signal(8)
        changed = Signal()
        m.d.comb += [changed.eq(seen != self.allocation.epoch), self.scan_tenant.eq(ptr)]
        m.d.sync += seen.eq(self.allocation.epoch)
        with m.If(changed):
            m.d.sync += [ptr.eq(0), scanning.eq(1)]
        with m.Elif(~self.busy):
            m.d.sync += ptr.eq(ptr + 1)
            with m.If(ptr == self._config.tenants - 1):
                m.d.sync += [ptr.eq(0), scanning.eq(0)]
        # In the very cycle of the change the old sum is already wrong; `scanning & ~changed` may use `ptr`.
        walking = scanning & ~changed
        return ptr, walking, changed | scanning
