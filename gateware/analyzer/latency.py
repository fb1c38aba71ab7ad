"""Latency histograms: for each tenant 256 running totals, 8 sub-bins an octave, readable over the bus.

Contract: `leave[p]` is one packet a port and cycle, always taken, with its latency in cycles; it is counted
three cycles later. Bin of x: x for x < 8, else 8 * (floor(log2 x) - 2) + (the three bits below the leading
one). Totals are modulo 2**32 and never cleared. The bus reads word tenant * 256 + bin of the block in four
cycles, the exact total of one cycle; a write, or a tenant that does not exist, is answered with an error.

Every port counts in a memory of its own, `COUNT_BITS` wide, so that no packet waits for another. A packet whose bin has
reached `CARRY` moves that many to the one memory of all ports, `total`, if it is its port's turn. Turns are drawn by a
generator that the traffic cannot see, one port a cycle: a count overflows only if its bin misses its port's turn 447
times in a row, which at 4 ports has a chance of (3/4)**447 = 10**-56 (8 ports: 10**-26).
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In

from ..config import DeviceConfig
from ..csr.bus import CsrSignature

__all__ = ["BINS", "LatencyHistogram", "PortLatency", "latency_bin"]

BINS = 256
COUNT_BITS = 9             # two block memories for 4,096 counts
CARRY_BITS = 6
CARRY = 1 << CARRY_BITS
SEED = 0x92D68CA2          # of the turns; any but 0


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
    """Narrow counts a port, and the total that they carry to; they are summed when they are read."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "leave": In(PortLatency).array(config.ports),
            "bus": In(CsrSignature(16)),
        })

    def elaborate(self, platform):
        m = Module()
        ports = self._config.ports
        step, begin = Signal(2), Signal()
        turn, carry = Signal(range(ports)), Signal(ports)
        place = Signal(range(self._config.tenants * BINS))
        self._draw(m, turn)
        m.d.comb += begin.eq(self.bus.valid & (step == 0))

        # No carry is under way while the bus reads the counts, then the total: it is in neither or in one of them.
        held = begin | (step == 1)
        counts = []
        for port, leave in enumerate(self.leave):
            allowed = Signal(name=f"allowed_{port}")
            m.d.comb += allowed.eq((turn == port) & ~held)
            shown, moves, place_here = self._count(m, port, leave, begin, allowed)
            counts.append(shown)
            m.d.comb += carry[port].eq(moves)
            with m.If(moves):
                m.d.sync += place.eq(place_here)
        total = self._total(m, carry.any(), place, step == 2)

        with m.If(begin | (step != 0)):
            m.d.sync += step.eq(step + 1)
        m.d.comb += [
            self.bus.ready.eq(step == 3),
            self.bus.r_data.eq((total << CARRY_BITS) + sum(counts, Const(0))),
            self.bus.error.eq(self.bus.write | (self.bus.address[8:14] >= self._config.tenants)),
        ]
        return m

    def _draw(self, m, turn):
        """Whose turn it is: a 32-bit xorshift generator."""
        state = Signal(32, init=SEED)
        left, right, mixed = Signal(32), Signal(32), Signal(32)
        m.d.comb += [
            left.eq(state ^ (state << 13)),
            right.eq(left ^ (left >> 17)),
            mixed.eq(right ^ (right << 5)),
            turn.eq(state[8:]),
        ]
        m.d.sync += state.eq(mixed)

    def _count(self, m, port, leave, show, allowed):
        """Counts of one port. Returns the one that the bus asks for, a cycle after `show`; whether a carry begins
        in this cycle, and where."""
        tenants = self._config.tenants
        m.submodules[f"port_{port}"] = store = memory.Memory(shape=COUNT_BITS, depth=tenants * BINS, init=[])
        write = store.write_port()
        before = store.read_port(transparent_for=(write,))
        shown = store.read_port()

        place = Signal(range(tenants * BINS), name=f"place_{port}")
        known, counts = Signal(name=f"known_{port}"), Signal(name=f"counts_{port}")
        moves = Signal(name=f"moves_{port}")
        m.d.sync += [known.eq(leave.valid & (leave.tenant < tenants)), counts.eq(known)]
        number = latency_bin(m, leave.latency, f"bin_{port}")
        with m.If(leave.valid):
            m.d.sync += place.eq(Cat(number, leave.tenant))
        m.d.comb += [before.addr.eq(place), before.en.eq(known)]
        with m.If(known):
            m.d.sync += write.addr.eq(place)
        m.d.comb += [
            moves.eq(counts & allowed & before.data[CARRY_BITS:].any()),
            write.data.eq(before.data + Mux(moves, 1 - CARRY, 1)),
            write.en.eq(counts),
            shown.addr.eq(self.bus.address),
            shown.en.eq(show),
        ]
        return shown.data, moves, write.addr

    def _total(self, m, carries, place, show):
        """What was carried, in units of `CARRY`; returns the one that the bus asks for, a cycle after `show`."""
        m.submodules.total = store = memory.Memory(
            shape=32 - CARRY_BITS, depth=self._config.tenants * BINS, init=[])
        write = store.write_port()
        read = store.read_port(transparent_for=(write,))
        begun, read_before = Signal(), Signal()
        m.d.sync += [begun.eq(carries), read_before.eq(begun), write.addr.eq(place)]
        m.d.comb += [
            read.addr.eq(Mux(show, self.bus.address, place)),
            read.en.eq(show | begun),
            write.data.eq(read.data + 1),
            write.en.eq(read_before),
        ]
        return read.data
