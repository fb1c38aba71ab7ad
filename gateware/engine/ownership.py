"""Which engine slots a tenant may use: this block's copy of the `slots` column of the allocation.

Contract: `eligible[i]` is the slot mask for `tenants[i]`, combinational, under the active bank: the tenant's
own slots if it owns some, else the slots that nobody owns. It is 0 when the tenant owns none and all are owned.
`contends[t]`: tenant *t* shares slots with others. `shared[s]`: nobody owns slot *s*.
"""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..manager.allocation import BANKS, AllocationSignature, reset_row

__all__ = ["SlotOwnership"]


class SlotOwnership(wiring.Component):
    """Answers `lookups` questions a cycle."""

    def __init__(self, config: DeviceConfig, lookups: int = 1):
        if lookups < 1:
            raise ValueError(f"lookups must be at least 1, not {lookups!r}")
        self._config = config
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "tenants": In(range(config.tenants)).array(lookups),
            "eligible": Out(config.slots).array(lookups),
            "contends": Out(config.tenants),
            "shared": Out(config.slots),
        })

    def elaborate(self, platform):
        m = Module()
        config, allocation = self._config, self.allocation

        # Transposed: for each bank and slot, one bit a tenant, so that "owned by nobody" is a test for zero.
        granted = [reset_row(tenant, config)["slots"] for tenant in range(config.tenants)]
        at_reset = [sum((mask >> slot & 1) << tenant for tenant, mask in enumerate(granted))
                    for slot in range(config.slots)]
        owners = [[Signal(config.tenants, name=f"owners_{bank}_{slot}", init=at_reset[slot] if bank == 0 else 0)
                   for slot in range(config.slots)] for bank in range(BANKS)]
        with m.If(allocation.write):
            with m.Switch(allocation.bank):
                for bank in range(BANKS):
                    with m.Case(bank):
                        for slot, mask in enumerate(owners[bank]):
                            m.d.sync += mask.bit_select(allocation.tenant, 1).eq(allocation.row.slots[slot])

        active = [Signal(config.tenants, name=f"active_{slot}") for slot in range(config.slots)]
        with m.Switch(allocation.active_bank):
            for bank in range(BANKS):
                with m.Case(bank):
                    m.d.comb += [mask.eq(banked) for mask, banked in zip(active, owners[bank], strict=True)]
        owning = reduce(or_, active)
        m.d.comb += [
            self.shared.eq(Cat(mask == 0 for mask in active)),
            self.contends.eq(Mux(self.shared.any(), ~owning, 0)),
        ]
        for index, (tenant, eligible) in enumerate(zip(self.tenants, self.eligible, strict=True)):
            own = Signal(config.slots, name=f"own_{index}")
            m.d.comb += [
                own.eq(Cat(mask.bit_select(tenant, 1) for mask in active)),
                eligible.eq(Mux(own.any(), own, self.shared)),
            ]
        return m
