"""Waiting: which tenants have complete packets in one crosspoint that were not claimed.

Contract: `ready[t]` is high from the cycle after an arrival for tenant *t*, until the cycle after a claim that left
none (`empty`). An arrival in the very cycle of such a claim counts. There are no errors.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig

__all__ = ["Waiting"]


class Waiting(wiring.Component):
    """A flag a tenant."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        tenant = range(config.tenants)
        super().__init__({
            "arrive": In(1),
            "arrived": In(tenant),
            "empty": In(1),
            "emptied": In(tenant),
            "ready": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        came, gone = Signal(tenants), Signal(tenants)
        m.d.comb += [came.eq(1 << self.arrived), gone.eq(1 << self.emptied)]
        m.d.sync += self.ready.eq((self.ready & ~(gone & self.empty.replicate(tenants)))
                                  | (came & self.arrive.replicate(tenants)))
        return m
