"""Queue depth: packets of each tenant that are in the fabric, now, at most and on average within a window.

Contract: `admitted` and `left` bring any number of events a cycle, one a port; `window_end` is high in the last
cycle of a window. From the cycle after it until the next one, `depth` and `peak` answer for `tenant`,
combinationally: the packets at the end of that window, and the most after any cycle of it or at its start.
Counts are modulo 2**16.

Every cycle one tenant is sampled, all in turn, from tenant 0 in the first cycle of a window. From three cycles after
`window_end` until the next one, `sampled` has the sums of that window for `tenant`, two cycles after it was asked for:
samples, the depths in them (2**36 - 1 at most), and those in which the tenant had been without `credit` for the last
whole span of `SPAN` cycles (shorter gaps are headers that are being decided on), with anything to send or not.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig

__all__ = ["SPAN", "DepthTracker", "PortEvent", "Samples"]

SPAN = 16


class PortEvent(data.Struct):
    """Something happened for `tenant` at one port."""

    valid: 1
    tenant: 6


class Samples(data.Struct):
    """Sums over the samples of one tenant in one window."""

    count: 32
    depth: 36
    held: 32


class DepthTracker(wiring.Component):
    """One up-and-down counter a tenant: events of all ports may be the same tenant's in one cycle."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "admitted": In(PortEvent).array(config.ports),
            "left": In(PortEvent).array(config.ports),
            "credit": In(config.tenants),
            "window_end": In(1),
            "tenant": In(range(config.tenants)),
            "depth": Out(16),
            "peak": Out(16),
            "sampled": Out(Samples),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        ups = self._decode(m, self.admitted, "up")
        downs = self._decode(m, self.left, "down")
        turn, depth = Signal(range(tenants)), Signal(16)
        for tenant in range(tenants):
            arrived = sum((up[tenant] for up in ups), Const(0))
            departed = sum((down[tenant] for down in downs), Const(0))
            now, end, peak = self._count(m, tenant, arrived, departed)
            with m.If(self.tenant == tenant):
                m.d.comb += [self.depth.eq(end), self.peak.eq(peak)]
            with m.If(turn == tenant):
                m.d.comb += depth.eq(now)
        self._sample(m, turn, depth)
        return m

    def _count(self, m, tenant, arrived, departed):
        """Counter of one tenant, and what it and its maximum were at the end of the last window."""
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
        return now, end, peak

    def _sample(self, m, turn, depth):
        """Adds `depth` of tenant `turn` to its row; the first round of a window replaces what was there."""
        tenants = self._config.tenants
        m.submodules.samples = store = memory.Memory(
            shape=Samples, depth=2 << (tenants - 1).bit_length(), init=[])
        write = store.write_port()
        before, shown = store.read_port(transparent_for=(write,)), store.read_port()
        bank, fresh = Signal(), Signal(init=1)
        with m.If(self.window_end):
            m.d.sync += [turn.eq(0), bank.eq(~bank), fresh.eq(1)]
        with m.Elif(turn == tenants - 1):
            m.d.sync += [turn.eq(0), fresh.eq(0)]
        with m.Else():
            m.d.sync += turn.eq(turn + 1)

        # A window has at least one full round, so that the bank never shows a row of the window before the last.
        seen, held, first = Signal(16), Signal(), Signal()
        m.d.sync += [
            seen.eq(depth),
            held.eq(self._starved(m).bit_select(turn, 1)),
            first.eq(fresh),
            write.addr.eq(before.addr),
            write.en.eq(1),
        ]
        base, total = Signal(Samples), Signal(37)
        m.d.comb += [
            before.addr.eq(Cat(turn, bank)),
            base.eq(Mux(first, 0, before.data.as_value())),
            total.eq(base.depth + seen),
            write.data.count.eq(base.count + 1),
            write.data.depth.eq(Mux(total[36], (1 << 36) - 1, total[:36])),
            write.data.held.eq(base.held + held),
            shown.addr.eq(Cat(self.tenant, ~bank)),
            self.sampled.eq(shown.data),
        ]

    def _starved(self, m):
        """Tenants that had no credit in all cycles of the span that ended last."""
        tenants = self._config.tenants
        cycle = Signal(range(SPAN))
        whole, starved = Signal(tenants, init=-1), Signal(tenants)
        m.d.sync += [cycle.eq(cycle + 1), whole.eq(whole & ~self.credit)]
        with m.If(cycle == SPAN - 1):
            m.d.sync += [whole.eq(-1), starved.eq(whole & ~self.credit)]
        return starved

    def _decode(self, m, events, name):
        """One bit a tenant for each port."""
        masks = []
        for port, event in enumerate(events):
            mask = Signal(self._config.tenants, name=f"{name}_{port}")
            m.d.comb += mask.eq(event.valid << event.tenant)
            masks.append(mask)
        return masks
