"""Latency histograms: for each tenant 256 running totals, 8 sub-bins an octave, readable over the bus.

Contract: `leave[p]` is one packet a port and cycle, always taken, with its latency in cycles; it is counted
three cycles later. Bin of x: x for x < 8, else 8 * (floor(log2 x) - 2) + (the three bits below the leading
one). Totals are modulo 2**32 and never cleared. The bus reads word tenant * 256 + bin of the block in two
cycles; a write, or a tenant that does not exist, is answered with an error.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In

from ..config import DeviceConfig
from ..csr.bus import CsrSignature

__all__ = ["BINS", "LatencyHistogram", "PortLatency", "latency_bin"]

BINS = 256


class PortLatency(data.Struct):
    """A packet of `tenant` left after `latency` cycles."""

    valid: 1
    tenant: 6
    latency: 32


def latency_bin(m, latency, name):
    """Signal with the bin of the 32-bit `latency`: normalises it in five halving steps."""
    exponent, shifted = Const(31, 5), latency
    for step in (16, 8, 4, 2, 1):
        small = Signal(name=f"{name}_below_{step}")
        moved, lower = Signal(32, name=f"{name}_by_{step}"), Signal(5, name=f"{name}_exponent_{step}")
        m.d.comb += [
            small.eq(shifted[32 - step:] == 0),
            moved.eq(Mux(small, shifted << step, shifted)),
            lower.eq(Mux(small, exponent - step, exponent)),
        ]
        exponent, shifted = lower, moved
    result = Signal(8, name=name)
    m.d.comb += result.eq(Mux(latency < 8, latency, Cat(shifted[28:31], (exponent - 2)[:5])))
    return result


class LatencyHistogram(wiring.Component):
    """One memory a port, so that no packet waits for another; they are summed when they are read."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "leave": In(PortLatency).array(config.ports),
            "bus": In(CsrSignature(16)),
        })

    def elaborate(self, platform):
        m = Module()
        total = Const(0)
        for port, leave in enumerate(self.leave):
            total = total + self._count(m, port, leave)

        asked, exists = Signal(), Signal()
        m.d.sync += asked.eq(self.bus.valid & ~asked)
        m.d.comb += [
            exists.eq(self.bus.address[8:14] < self._config.tenants),
            self.bus.ready.eq(self.bus.valid & asked),
            self.bus.r_data.eq(total),
            self.bus.error.eq(self.bus.write | ~exists),
        ]
        return m

    def _count(self, m, port, leave):
        """Counters of one port; return the one that the bus asks for, a cycle after it is addressed."""
        tenants = self._config.tenants
        m.submodules[f"port_{port}"] = store = memory.Memory(shape=32, depth=tenants * BINS, init=[])
        write = store.write_port()
        before = store.read_port(transparent_for=(write,))
        shown = store.read_port()

        place = Signal(range(tenants * BINS), name=f"place_{port}")
        known, counts = Signal(name=f"known_{port}"), Signal(name=f"counts_{port}")
        m.d.sync += [known.eq(leave.valid & (leave.tenant < tenants)), counts.eq(known)]
        number = latency_bin(m, leave.latency, f"bin_{port}")
        with m.If(leave.valid):
            m.d.sync += place.eq(Cat(number, leave.tenant))
        m.d.comb += [before.addr.eq(place), before.en.eq(known)]
        with m.If(known):
            m.d.sync += write.addr.eq(place)
        m.d.comb += [
            write.data.eq(before.data + 1),
            write.en.eq(counts),
            shown.addr.eq(self.bus.address),
            shown.en.eq(self.bus.valid),
        ]
        return shown.data
