"""Credit: which tenants' next packet finds room in a crosspoint, one bit a tenant.

Contract: `room[t]` high means that a packet of at most `CREDIT_BEATS` of tenant *t* that asks now does not wait: its
pages are within the tenant's quota (`own[t]`: nobody else's packet changes that), or what is above it fits the shared
pool, or it never will (then admission drops it, and waiting for credit would be for ever). The bits follow a
reservation or a release after one cycle. After a commit they are made anew as the walk of the page account passes the
tenants; until then a bit may be high for a packet that has to wait at the head of the port, or low for one that would
not: nothing is lost by either.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import CREDIT_PAGES, DeviceConfig

__all__ = ["Credit", "CreditEventSignature"]


class CreditEventSignature(wiring.Signature):
    """What one tenant holds and may hold, seen from the page account."""

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "valid": Out(1),
            "tenant": Out(range(config.tenants)),
            "used": Out(range(2 * config.pages)),
            "quota": Out(16),
        })


class Credit(wiring.Component):
    """Keeps the bits of one crosspoint from the events of its page account.

    `events[0]` (a reservation) and `events[1]` (the walk, or a release): `used` and `quota` are those of `tenant` from
    now on; the first wins. `free[n]`: the shared pool has n + 1 pages left; `total[n]`: the active table has a pool of
    so many at all.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "events": In(CreditEventSignature(config)).array(2),
            "free": In(CREDIT_PAGES),
            "total": In(CREDIT_PAGES),
            "room": Out(config.tenants),
            "own": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        # Pages that the next packet needs of the pool, by tenant. What a tenant already holds of it is not free.
        state = data.StructLayout({"lack": range(CREDIT_PAGES + 1), "empty": 1})
        # After reset nobody holds anything and tenant 0 has all pages, so that others' packets are never admitted.
        tenants = [Signal(state, name=f"tenant_{t}", init={"lack": 0, "empty": 1})
                   for t in range(self._config.tenants)]
        for number, event in reversed(list(enumerate(self.events))):
            found = Signal(state, name=f"found_{number}")
            wanted = event.used + CREDIT_PAGES
            m.d.comb += found.empty.eq(event.used == 0)
            with m.If(event.used >= event.quota):
                m.d.comb += found.lack.eq(CREDIT_PAGES)
            with m.Elif(wanted > event.quota):
                m.d.comb += found.lack.eq(wanted - event.quota)
            with m.If(event.valid):
                with m.Switch(event.tenant):
                    for index, tenant in enumerate(tenants):
                        with m.Case(index):
                            m.d.sync += tenant.eq(found)
        # Bit n: n pages are there; bit n of `never`: there are not so many in the whole pool.
        enough = Cat(C(1, 1), self.free)
        never = Cat(C(0, 1), ~self.total)
        for index, tenant in enumerate(tenants):
            m.d.comb += self.room[index].eq(
                enough.bit_select(tenant.lack, 1) | (tenant.empty & never.bit_select(tenant.lack, 1)))
            m.d.comb += self.own[index].eq(tenant.lack == 0)
        return m
