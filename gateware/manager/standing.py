"""`StandingVerdict`: whether every staged row keeps the rules, kept up to date while rows are stored.

One bit a row says that it breaks a rule by itself, another counts the owners of each slot. Both are made when a row is
stored, by the bus, by a rule or by the copy, so that a table which is legal needs no scan. `legal` follows a
store by two cycles and means something once the copy is over. It is low from the cycle after a guarantee changed until
the next `refresh`, since the rows before were compared with the old one: then only a scan can tell.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .allocation import AllocationRow
from .checker import row_faults
from .guarantee import GuaranteeRow

__all__ = ["StandingVerdict"]


class StandingVerdict(wiring.Component):
    """Of one staging bank.

    stored, tenant, row: strobe: a row was stored in the cycle before, over one with the slots `replaced` (none if it is
        the first in its place since `refresh`). guarantee: of the same tenant.
    refresh: strobe: all rows are stored anew from the next cycle on; what comes in this one was stored before.
    guarantee_changed: strobe.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "stored": In(1),
            "tenant": In(range(config.tenants)),
            "row": In(AllocationRow),
            "replaced": In(config.slots),
            "guarantee": In(GuaranteeRow),
            "guarantee_changed": In(1),
            "refresh": In(1),
            "legal": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        faulty, unsure = Signal(tenants, name="faulty"), Signal(name="unsure")
        with m.If(self.stored):
            faults = row_faults(self._config, self.row, self.guarantee)
            m.d.sync += faulty.bit_select(self.tenant, 1).eq(Cat(faults.values()).any())
        with m.If(self.guarantee_changed):
            m.d.sync += unsure.eq(1)
        with m.Elif(self.refresh):
            m.d.sync += unsure.eq(0)

        twice = Signal(self._config.slots)
        for slot in range(self._config.slots):
            owners = Signal(range(tenants + 1), name=f"owners_{slot}")
            m.d.comb += twice[slot].eq(owners > 1)
            with m.If(self.refresh):
                m.d.sync += owners.eq(0)
            with m.Elif(self.stored):
                m.d.sync += owners.eq(owners + self.row.slots[slot] - self.replaced[slot])
        m.d.comb += self.legal.eq(~(faulty.any() | twice.any() | unsure))
        return m
