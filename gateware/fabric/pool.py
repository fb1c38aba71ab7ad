"""Page account of one crosspoint: who may take how many pages, under quotas that a commit changes at once.

Contract: a reservation of `need` pages, of which `spare` are above the quota of the tenant that asks, is answered in
the same cycle. `fits`: the pages exist, and `spare` of them are left in the shared pool (`pages - sum_pages`, less
what all tenants hold above their quotas). `spare` may be too large when `exact` is low; then what is not within the
quota is told to `hold`. `reserve` in the same cycle books it; `release` books one page of the tenant at the reading
side back.

The reading side shows the pool one tenant a cycle: the one that releases (`busy`), else `scan_tenant`, which walks
for ever. What is left of the pool (`slack`, negative while a lowered quota leaves a debt) is kept incrementally; after
a commit it is made anew in one walk (T cycles plus one for each cycle that was busy). In that time reservations
within the quota are allowed and others are told to `hold`: nobody is refused for want of a sum. `free[n]`: the
shared pool has n + 1 pages left; `total[n]`: it has so many at all. There are no errors; a release of more than is
used cannot happen by construction of the crosspoint.
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
        used = range(2 * config.pages)
        tenant = range(config.tenants)
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            # Writing side: what is asked for.
            "need": In(range(32)),
            "spare": In(range(32)),
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
            "reader_used": In(used),
            "reader_quota": In(range(config.pages + 1)),
            "release": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        pages = self._config.pages
        # After reset tenant 0 is guaranteed all pages: nothing is shared.
        slack = Signal(range(-2 * pages, 2 * pages))
        vacant = Signal(range(pages + 1), init=pages)
        shared = Signal(range(pages + 1))
        with m.If(self.allocation.sum_pages <= pages):
            m.d.comb += shared.eq(pages - self.allocation.sum_pages)

        ptr, scanning, stale = self._scan(m)
        # What would be left if the asked for were taken. While the sum is made anew, nothing is taken from the pool but
        # what the walked tenant holds above its quota.
        summing = scanning & ~self.busy
        difference, taken = Signal(range(-2 * pages, 2 * pages)), Signal(range(2 * pages))
        slack_left, vacant_left = Signal.like(slack), Signal(signed(len(vacant) + 1))
        above, given = Signal(), Signal()
        m.d.comb += [
            difference.eq(self.reader_quota - self.reader_used),
            taken.eq(Mux(summing, Mux(difference < 0, -difference, 0), self.spare)),
            slack_left.eq(slack - taken),
            vacant_left.eq(vacant - self.need),
            above.eq(self.spare != 0),
            self.hold.eq(above & (stale | ~self.exact)),
            self.fits.eq((vacant_left >= 0) & (~above | (~stale & (slack_left >= 0)))),
            self.free.eq(Cat(~stale & (slack >= n) & (vacant >= CREDIT_PAGES) for n in range(1, CREDIT_PAGES + 1))),
            self.total.eq(Cat(shared >= n for n in range(1, CREDIT_PAGES + 1))),
            # A page that comes home was above the quota if anything was. A tenant that the new sum has not reached yet
            # is counted when the scan does, with what it has by then.
            given.eq(self.release & (difference < 0) & (~stale | (scanning & (self.reader_tenant < ptr)))),
        ]
        m.d.sync += [
            slack.eq(Mux(stale & ~scanning, shared, Mux(summing | self.reserve, slack_left, slack) + given)),
            vacant.eq(Mux(self.reserve, vacant_left, vacant) + self.release),
        ]
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
