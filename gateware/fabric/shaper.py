"""Shaper: a token bucket per tenant at one output.

Contract: over any interval of n cycles a tenant with rate r and burst b starts at most r*n + b beats. `ok[t]`
says that a packet of any size may start now: the bucket holds at least the largest packet (256 beats); `ample[t]`,
that it holds `UNKNOWN` of them, so that as many may start before their lengths are known. `charge` subtracts `beats`
and shows in both `SHOWN` cycles later. Buckets are refilled tenant after tenant, each once in T
cycles (T: tenants, at least 3) with r*T at once; a bucket is therefore kept r*T below its burst, and a burst below
256 + r*T counts as that. A rate of 65536 or more does not limit. Rate 0 counts as 64 (1/1024 beat a cycle), so
that what was admitted under an earlier table always drains. There are no errors.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..manager.allocation import FULL_RATE, AllocationSignature
from .rows import Rows

__all__ = ["LEAST_RATE", "SHOWN", "UNKNOWN", "Shaper"]

LEAST_RATE = 64
FRACTION = 16  # bits of a token below one beat
SHOWN = 4      # cycles from a charge to the flags that know of it
#: Packets of a tenant that an output starts at most before the charge for the first one shows. One above a power of
#: two, which the largest packet is too: so a level is compared by its upper bits alone.
UNKNOWN = 9


class Shaper(wiring.Component):
    """Token buckets of all tenants at one output."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        self._period = max(config.tenants, 3)   # a refill takes three cycles
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "ok": Out(config.tenants),
            "ample": Out(config.tenants),
            "charge": In(1),
            "tenant": In(range(config.tenants)),
            "beats": In(range(MAX_PACKET_BEATS + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        # A bucket's level is `filled - spent`, two counters modulo 2**width with one writer each. It is kept 256
        # beats low: a packet may start at a level of 0 or more, and cannot take more than there is.
        self._width = 15 + FRACTION + 3
        m.submodules.filled = self.filled = memory.Memory(shape=self._width, depth=self._period, init=[])
        m.submodules.spent = self.spent = memory.Memory(shape=self._width, depth=self._period, init=[])
        everybody = (1 << self._config.tenants) - 1
        self.unlimited, self.one, self.several = (
            Signal(self._config.tenants, init=everybody, name=name) for name in ("unlimited", "one", "several"))
        m.d.comb += [self.ok.eq(self.one | self.unlimited), self.ample.eq(self.several | self.unlimited)]
        self._spend(m)
        self._refill(m)
        return m

    def _flag(self, m, tenant, level):
        """What a level says."""
        ample = (UNKNOWN - 1) * MAX_PACKET_BEATS << FRACTION
        m.d.sync += [
            self.one.bit_select(tenant, 1).eq(level >= 0),
            self.several.bit_select(tenant, 1).eq((level >= 0) & level[ample.bit_length() - 1:].any()),
        ]

    def _spend(self, m):
        """Writes a charge at once, and looks at the level that is left three cycles later.

        A refill under way looked at the bucket before the charge, and is written by then.
        """
        before, filled = self.spent.read_port(domain="comb"), self.filled.read_port(domain="comb")
        write = self.spent.write_port()
        spent = Signal(self._width)
        m.d.comb += [
            before.addr.eq(self.tenant),
            spent.eq(before.data + (self.beats << FRACTION)),
            write.en.eq(self.charge),
            write.addr.eq(self.tenant),
            write.data.eq(spent),
        ]
        charged = [(self.charge, self.tenant, spent)]
        for stage in range(1, SHOWN):
            charged.append(tuple(Signal.like(value, name=f"{name}_{stage}") for name, value in zip(
                ("charge", "charged", "spent"), charged[-1], strict=True)))
            m.d.sync += [after.eq(value) for after, value in zip(*reversed(charged[-2:]), strict=True)]
        charge, tenant, spent = charged[-1]
        left = Signal(signed(self._width))
        m.d.comb += [filled.addr.eq(tenant), left.eq(filled.data - spent)]
        with m.If(charge):
            self._flag(m, tenant, left)

    def _look_up(self, m):
        """What a tenant's row grants, three cycles after it was read; returns (tenant in the cycle before, values)."""
        m.submodules.rows = rows = Rows(self._config, ["rate", "burst"])
        wiring.connect(m, wiring.flipped(self.allocation), rows.allocation)
        looked_up, valued, turn = (Signal(range(self._period), name=name) for name in ("looked_up", "valued", "turn"))
        row = Signal(rows.layout)
        refill = Signal(17 + self._period.bit_length())
        limit = Signal(signed(self._width))
        granted, cap = Signal.like(refill, name="granted"), Signal.like(limit, name="cap")
        valued_full, full = (Signal(init=1, name=name) for name in ("valued_full", "full"))
        m.d.comb += rows.tenants[0].eq(looked_up)
        lump = Mux(row.rate == 0, LEAST_RATE, row.rate) * self._period
        m.d.sync += [
            looked_up.eq(Mux(looked_up == self._period - 1, 0, looked_up + 1)),
            valued.eq(looked_up),
            turn.eq(valued),
            row.eq(rows.rows[0]),
            refill.eq(lump),
            limit.eq(((row.burst - MAX_PACKET_BEATS) << FRACTION) - lump),
            valued_full.eq(row.rate >= FULL_RATE),
            granted.eq(refill),
            cap.eq(Mux(limit < 0, 0, limit)),
            full.eq(valued_full),
        ]
        return turn, granted, cap, full

    def _refill(self, m):
        """A bucket a cycle: read; what it would hold, refilled or cut to the brim; written."""
        turn, refill, cap, full = self._look_up(m)
        filled, spent = self.filled.read_port(domain="comb"), self.spent.read_port(domain="comb")
        write = self.filled.write_port()
        read, last = (Signal.like(turn, name=name) for name in ("read", "last"))
        read_filled, read_spent, brim, more = (
            Signal(self._width, name=name) for name in ("read_filled", "read_spent", "brim", "more"))
        level, missing, most = (Signal(signed(self._width), name=name) for name in ("level", "missing", "most"))
        grant, last_full = Signal.like(refill, name="grant"), Signal(init=1)
        m.d.comb += [filled.addr.eq(turn), spent.addr.eq(turn)]
        m.d.sync += [
            read.eq(turn), read_filled.eq(filled.data), read_spent.eq(spent.data),
            last.eq(read), last_full.eq(full),
            brim.eq(read_spent + cap), more.eq(read_filled + refill), level.eq(read_filled - read_spent),
            grant.eq(refill), missing.eq(refill - cap), most.eq(cap),
        ]
        cut = Signal()
        m.d.comb += [
            cut.eq(level + missing >= 0),
            write.en.eq(1),
            write.addr.eq(last),
            write.data.eq(Mux(cut, brim, more)),
        ]
        self._flag(m, last, Mux(cut, most, level + grant))
        m.d.sync += self.unlimited.bit_select(last, 1).eq(last_full)
