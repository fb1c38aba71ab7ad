"""Credit: which tenants' next packet finds room in a crosspoint, one bit a tenant.

Contract: `room[t]` high means that a packet of at most `CREDIT_BEATS` of tenant *t* that asks now is reserved without
waiting: it fits the tenant's own quota, or the shared pool. A tenant that holds nothing has room too: if its quota is
smaller than such a packet it may still wait. The bit follows a reservation or a release after one cycle. After a
commit the bits of tenants that are above their new quota may be high until the scan of the page account, within
tenants cycles, has passed them: such a packet waits, nothing is lost.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import PAGE_BEATS, DeviceConfig

__all__ = ["CREDIT_BEATS", "CREDIT_PAGES", "Credit"]

#: Largest packet for which credit is promised. One that shares its first page needs no page more than one that
#: begins on a page of its own.
CREDIT_BEATS = 64
CREDIT_PAGES = CREDIT_BEATS // PAGE_BEATS


class Credit(wiring.Component):
    """Keeps the bits of one crosspoint from the events of its page account.

    `reserve` and `release` are never high together. `used` and `quota` are those of the tenant after the event; `scan`
    looks at a tenant again without an event. `shared` is high while the pool has room for one such packet.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "event": In(1),
            "tenant": In(range(config.tenants)),
            "used": In(range(2 * config.pages)),
            "quota": In(16),
            "shared": In(1),
            "room": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        own = Signal(self._config.tenants, init=-1)
        with m.If(self.event):
            fits = (self.used == 0) | (self.used + CREDIT_PAGES <= self.quota)
            m.d.sync += own.bit_select(self.tenant, 1).eq(fits)
        m.d.comb += self.room.eq(own | self.shared.replicate(self._config.tenants))
        return m
