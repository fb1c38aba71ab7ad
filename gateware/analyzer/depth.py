"""Queue depth: packets of each tenant that are in the fabric, now and at most within a window.

Contract: `admitted` and `left` bring any number of events a cycle, one a port; `window_end` is high in the last
cycle of a window. From the cycle after it until the next one, `depth` and `peak` answer for `tenant`,
combinationally: the packets at the end of that window, and the most after any cycle of it or at its start.
Counts are modulo 2**16.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig

__all__ = ["DepthTracker", "PortEvent"]


class PortEvent(data.Struct):
    """Something happened for `tenant` at one port."""

    valid: 1
    tenant: 6


class DepthTracker(wiring.Component):
    """One up-and-down counter a tenant: events of all ports may be the same tenant's in one cycle."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "admitted": In(PortEvent).array(config.ports),
            "left": In(PortEvent).array(config.ports),
            "window_end": In(1),
            "tenant": In(range(config.tenants)),
            "depth": Out(16),
            "peak": Out(16),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        ups = self._decode(m, self.admitted, "up")
        downs = self._decode(m, self.left, "down")
        for tenant in range(tenants):
            arrived = sum((up[tenant] for up in ups), Const(0))
            departed = sum((down[tenant] for down in downs), Const(0))
            end, peak = self._count(m, tenant, arrived, departed)
            with m.If(self.tenant == tenant):
                m.d.comb += [self.depth.eq(end), self.peak.eq(peak)]
        return m

    def _count(self, m, tenant, arrived, departed):
        """Counter of one tenant; return what it and its maximum were at the end of the last window."""
        now, most = Signal(16, name=f"now_{tenant}"), Signal(16, name=f"most_{tenant}")
        end, peak = Signal(16, name=f"end_{tenant}"), Signal(16, name=f"peak_{tenant}")
        following, higher = Signal(16, name=f"following_{tenant}"), Signal(16, name=f"higher_{tenant}")
        m.d.comb += [
            following.eq(now + arrived - departed),
            higher.eq(Mux(following > most, following, most)),
        ]
        m.d.sync += [now.eq(following), most.eq(higher)]
        with m.If(self.window_end):
            m.d.sync += [end.eq(following), peak.eq(higher), most.eq(following)]
        return end, peak

    def _decode(self, m, events, name):
        """One bit a tenant for each port."""
        masks = []
        for port, event in enumerate(events):
            mask = Signal(self._config.tenants, name=f"{name}_{port}")
            m.d.comb += mask.eq(event.valid << event.tenant)
            masks.append(mask)
        return masks
