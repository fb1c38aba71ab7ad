"""Waiting: which tenants have complete packets in one crosspoint that were not claimed, and which have many.

Contract: `ready[t]` is high from the cycle after an arrival for tenant *t*, until the cycle after the claim that left
none. `several[t]` says, from the second cycle after a claim of tenant *t* to that of the next, that this claim left at
least `SEVERAL`. Only what is ready is claimed. There are no errors.

Packets are counted on each side by itself: arrivals where packets are written, claims where they are read. A count
wraps where it cannot be mistaken: more than a crosspoint has descriptors never wait.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .place import PAGE_DESCRIPTORS

__all__ = ["SEVERAL", "Waiting"]

#: As many grants are under way, between choice and claim, when the output chooses by a flag of the claim before them.
#: One more would let it never choose in vain, and would hold up a tenant that has two pages of short packets.
SEVERAL = 4


class Waiting(wiring.Component):
    """Counts and two flags a tenant."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        tenant = range(config.tenants)
        super().__init__({
            "arrive": In(1),
            "arrived": In(tenant),
            "claim": In(1),
            "claimed": In(tenant),
            "ready": Out(config.tenants),
            "several": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        count = range(self._config.pages * PAGE_DESCRIPTORS + 1)
        m.submodules.arrivals = arrivals = memory.Memory(shape=count, depth=tenants, init=[])
        m.submodules.claims = claims = memory.Memory(shape=count, depth=tenants, init=[])
        before, there, gone = (part.read_port(domain="comb") for part in (arrivals, arrivals, claims))
        came, went = arrivals.write_port(), claims.write_port()
        left, was_left = Signal(count), Signal(count)   # before the claim; by the last one
        was_claim = Signal()
        was_claimed = Signal.like(self.claimed, name="was_claimed")
        m.d.comb += [
            before.addr.eq(self.arrived), came.addr.eq(self.arrived),
            there.addr.eq(self.claimed), gone.addr.eq(self.claimed), went.addr.eq(self.claimed),
            came.en.eq(self.arrive), came.data.eq(before.data + 1),
            went.en.eq(self.claim), went.data.eq(gone.data + 1),
            left.eq(there.data - gone.data),
        ]
        m.d.sync += [was_claim.eq(self.claim), was_claimed.eq(self.claimed), was_left.eq(left)]
        with m.If(was_claim):
            m.d.sync += self.several.bit_select(was_claimed, 1).eq(was_left > SEVERAL)
        fills, empties = Signal(tenants), Signal(tenants)
        m.d.comb += [
            fills.eq(Mux(self.arrive, 1 << self.arrived, 0)),
            empties.eq(Mux(self.claim & (left == 1), 1 << self.claimed, 0)),
        ]
        m.d.sync += self.ready.eq((self.ready & ~empties) | fills)
        return m
