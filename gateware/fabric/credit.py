"""Credit: which tenants' next packet finds room in a crosspoint, one bit a tenant.

Contract: `room[t]` high means that a packet of at most `CREDIT_BEATS` of tenant *t* that asks now does not wait: its
pages are within the tenant's quota, or what is above it fits the shared pool, or it never will (then admission drops
it, and waiting for credit would be for ever). `own[t]`: nobody else's packet changes that. The bits follow a
reservation after one cycle and a release after three. After a commit they are made anew as the walk of the page account
passes the tenants (it also finds what can never fit); until then a bit may be high for a packet that has to wait at
the head of the port, or low for one that would not: nothing is lost by either.
"""

from amaranth import *
from amaranth.lib import wiring
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
            "quota": Out(range(config.pages + 1)),
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
        # Pages that the next packet needs of the pool, by tenant. What a tenant already holds of it is not free. After
        # reset tenant 0 has all pages and others' packets are never admitted: nobody needs any.
        tenants = [Signal(range(CREDIT_PAGES + 1), name=f"tenant_{t}") for t in range(self._config.tenants)]
        for number, event in reversed(list(enumerate(self.events))):
            lack = self._lack(m, event, number)
            with m.If(event.valid):
                with m.Switch(event.tenant):
                    for index, tenant in enumerate(tenants):
                        with m.Case(index):
                            m.d.sync += tenant.eq(lack)
        enough = Cat(C(1, 1), self.free)   # bit n: n pages are there
        for index, tenant in enumerate(tenants):
            m.d.comb += [
                self.room[index].eq(enough.bit_select(tenant, 1)),
                self.own[index].eq(tenant == 0),
            ]
        return m

    def _lack(self, m, event, number):
        """What the tenant of an event needs of the pool; nothing if the pool could never give it."""
        above = Signal(signed(len(event.used) + 2), name=f"above_{number}")
        lack = Signal(range(CREDIT_PAGES + 1), name=f"lack_{number}")
        never = Cat(C(0, 1), ~self.total)   # bit n: there are not so many in the whole pool
        m.d.comb += above.eq(event.used + CREDIT_PAGES - event.quota)
        with m.If(above >= CREDIT_PAGES):
            m.d.comb += lack.eq(CREDIT_PAGES)
        with m.Elif(above > 0):
            m.d.comb += lack.eq(above)
        return Mux((event.used == 0) & never.bit_select(lack, 1), 0, lack)
