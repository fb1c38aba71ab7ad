"""Page account of one crosspoint: who may take how many pages, under quotas that a commit changes at once.

Contract: a reservation of `need` pages by a tenant with `left` pages of its quota is answered in the same cycle;
`above`: it needs more than those. `fits`: the pages exist, and those above the quota are left in the shared pool
(`pages - sum_pages`, less what all tenants hold above their quotas). `left` may be too small when `exact` is low; then
what is not within the quota is told to `hold`. `reserve` in the same cycle books it, never in the cycle of a commit;
`release` books one page of the tenant that is shown back.

The reading side shows the pool one tenant a cycle: one of which a page comes home (`busy`), else `scan_tenant`, which
walks for ever; it says whose it will be (`found_tenant`) in the cycle before it shows what is used, and `release`.
What is left of the pool (`slack`, negative while a lowered quota leaves a debt) is kept incrementally, with what is
shown two cycles later; after a commit it is made anew in one walk (T + 3 cycles plus one for each cycle that was
busy). In that time reservations within the quota are allowed and others are told to `hold`: nobody is refused for want
of a sum. `free[n]`: the shared pool has n + 1 pages left; `total[n]`: it has so many at all. There are no errors; a
release of more than is used cannot happen by construction of the crosspoint.
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
            "left": In(range(config.pages + 1)),
            "above": In(1),
            "exact": In(1, init=1),
            "fits": Out(1),
            "hold": Out(1),
            "reserve": In(1),
            "free": Out(CREDIT_PAGES),
            "total": Out(CREDIT_PAGES),
            # Reading side: `busy` says that `found_tenant` releases a page in the next cycle; else it is the scan's.
            "busy": In(1),
            "scan_tenant": Out(tenant),
            "found_tenant": In(tenant),
            "used": In(used),
            "quota": In(range(config.pages + 1)),
            "release": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        pages = self._config.pages
        # After reset tenant 0 is guaranteed all pages: nothing is shared.
        slack = Signal(range(-2 * pages, 2 * pages))
        vacant = Signal(range(pages + 1), init=pages)
        changed, stale, change = self._sum(m)
        # Each register's next value is made both ways, before it is known whether the asked for is taken.
        slack_left, vacant_left = Signal.like(slack), Signal(signed(len(vacant) + 1))
        above, shared = self.above, Signal(range(pages + 1))
        m.d.comb += [
            slack_left.eq(slack + self.left - self.need),
            vacant_left.eq(vacant - self.need),
            self.hold.eq(above & (stale | ~self.exact)),
            self.fits.eq((vacant_left >= 0) & (~above | (~stale & (slack_left >= 0)))),
            self.free.eq(Cat(~stale & (slack >= n) & (vacant >= CREDIT_PAGES) for n in range(1, CREDIT_PAGES + 1))),
            self.total.eq(Cat(shared >= n for n in range(1, CREDIT_PAGES + 1))),
        ]
        with m.If(self.allocation.sum_pages <= pages):
            m.d.comb += shared.eq(pages - self.allocation.sum_pages)
        taken, kept = Signal.like(slack), Signal.like(slack)
        m.d.comb += [taken.eq(slack_left + change), kept.eq(Mux(changed, shared, slack + change))]
        m.d.sync += [
            slack.eq(Mux(self.reserve & above, taken, kept)),
            vacant.eq(Mux(self.reserve, vacant_left + self.release, vacant + self.release)),
        ]
        return m

    def _sum(self, m):
        """Walks the tenants; returns (the table has changed, the sum is not usable, what to add to it).

        A change of the table starts the walk anew: a whole one follows, and what is on the way is forgotten. Stages:
        who is shown; what that tenant uses; how much of it is above the quota; the change of the sum.
        """
        ptr, scanning, seen = Signal(range(self._config.tenants)), Signal(), Signal(8)
        changed, stale = Signal(), Signal()
        m.d.comb += [changed.eq(seen != self.allocation.epoch), self.scan_tenant.eq(ptr)]
        m.d.sync += seen.eq(self.allocation.epoch)
        with m.If(changed):
            m.d.sync += [ptr.eq(0), scanning.eq(1)]
        with m.Elif(~self.busy):
            m.d.sync += ptr.eq(ptr + 1)
            with m.If(ptr == self._config.tenants - 1):
                m.d.sync += [ptr.eq(0), scanning.eq(0)]

        # Each stage: the tenant's excess enters the sum; a page that it gives back does (a tenant that the new sum has
        # not reached yet is counted when the walk does, with what it has by then).
        sums = [Signal(name=f"sums_{age}") for age in range(3)]
        counts, gives = Signal(), Signal()
        excess = Signal(range(-2 * self._config.pages, 2 * self._config.pages))
        used, quota, change = Signal.like(self.used), Signal.like(self.quota), Signal.like(excess)
        m.d.comb += [stale.eq(scanning | Cat(sums).any()), excess.eq(used - quota)]
        m.d.sync += [
            sums[0].eq(scanning & ~changed & ~self.busy),
            counts.eq(~changed & (~scanning | (self.found_tenant < ptr))),
            used.eq(self.used),
            quota.eq(self.quota),
            sums[1].eq(sums[0] & ~changed),
            gives.eq(self.release & counts & ~changed),
            sums[2].eq(sums[1] & ~changed),
            # A page that comes home was above the quota if anything was.
            change.eq(Mux(changed | (excess <= 0), 0, Mux(sums[1], -excess, gives))),
        ]
        return changed, stale, change
