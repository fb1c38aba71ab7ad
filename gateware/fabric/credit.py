"""Credit: which tenants' next packet finds room in a crosspoint, one bit a tenant.

Contract: `room[t]` high means that a packet of at most `CREDIT_BEATS` of tenant *t* that asks now does not wait: its
pages are within the tenant's quota, or what is above it fits the shared pool, or it never will (then admission drops
it, and waiting for credit would be for ever). The bits follow a reservation or a release after one cycle. After a
commit they are made anew as the scan of the page account passes the tenants; until then a bit may be high for a
packet that has to wait at the head of the port, or low for one that would not: nothing is lost by either.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import PAGE_BEATS, DeviceConfig

__all__ = ["CREDIT_BEATS", "CREDIT_PAGES", "Credit"]

#: Largest packet for which credit is promised. One that shares its first page needs no page more than one that
#: begins on a page of its own.
CREDIT_BEATS = 32
CREDIT_PAGES = CREDIT_BEATS // PAGE_BEATS


class Credit(wiring.Component):
    """Keeps the bits of one crosspoint from the events of its page account.

    `event`: `used` and `quota` are those of `tenant` from now on. `free[n]`: the shared pool has n + 1 pages left;
    `total[n]`: the active table has a pool of so many at all.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "event": In(1),
            "tenant": In(range(config.tenants)),
            "used": In(range(2 * config.pages)),
            "quota": In(16),
            "free": In(CREDIT_PAGES),
            "total": In(CREDIT_PAGES),
            "room": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        # Pages that the next packet needs of the pool, by tenant. What a tenant already holds of it is not free.
        lack = Signal(range(CREDIT_PAGES + 1))
        wanted = self.used + CREDIT_PAGES
        with m.If(self.used >= self.quota):
            m.d.comb += lack.eq(CREDIT_PAGES)
        with m.Elif(wanted > self.quota):
            m.d.comb += lack.eq(wanted - self.quota)
        state = data.StructLayout({"lack": lack.shape(), "empty": 1})
        # After reset nobody holds anything and tenant 0 has all pages, so that others' packets are never admitted.
        tenants = [Signal(state, name=f"tenant_{t}", init={"lack": 0, "empty": 1})
                   for t in range(self._config.tenants)]
        with m.If(self.event):
            with m.Switch(self.tenant):
                for index, tenant in enumerate(tenants):
                    with m.Case(index):
                        m.d.sync += [tenant.lack.eq(lack), tenant.empty.eq(self.used == 0)]
        # Bit n: n pages are there; bit n of `never`: there are not so many in the whole pool.
        enough = Cat(C(1, 1), self.free)
        never = Cat(C(0, 1), ~self.total)
        for index, tenant in enumerate(tenants):
            m.d.comb += self.room[index].eq(
                enough.bit_select(tenant.lack, 1) | (tenant.empty & never.bit_select(tenant.lack, 1)))
        return m
