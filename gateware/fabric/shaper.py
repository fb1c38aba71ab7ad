"""Shaper: a token bucket per tenant at one output.

Contract: over any interval of n cycles a tenant with rate r and burst b starts at most r*n + b beats. `ok[t]`
says that a packet of any size may start now: the bucket holds at least the largest packet (256 beats); `ample[t]`,
that it holds `UNKNOWN` of them, so that as many may start before their lengths are known. `charge` subtracts `beats`
and shows in both one cycle later. Buckets are refilled tenant after tenant, each once in T
cycles (T: tenants) with r*T at once; a bucket is therefore kept r*T below its burst, and a burst below
256 + r*T counts as that. A rate of 65536 or more does not limit. Rate 0 counts as 64 (1/1024 beat a cycle), so
that what was admitted under an earlier table always drains. There are no errors.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..manager.allocation import FULL_RATE, AllocationSignature
from .rows import Rows

__all__ = ["LEAST_RATE", "UNKNOWN", "Shaper"]

LEAST_RATE = 64
FRACTION = 16  # bits of a token below one beat
UNKNOWN = 6    # packets of a tenant that an output starts at most before it is charged for the first


class Shaper(wiring.Component):
    """Token buckets of all tenants at one output."""

    def __init__(self, config: DeviceConfig):
        self._config = config
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
        tenants = self._config.tenants
        m.submodules.rows = rows = Rows(self._config, ["rate", "burst"])
        wiring.connect(m, wiring.flipped(self.allocation), rows.allocation)

        # A bucket's level is `filled - spent`, two counters modulo 2**width with one writer each. It is kept 256
        # beats low: a packet may start at a level of 0 or more, and cannot take more than there is.
        width = 15 + FRACTION + 3
        m.submodules.filled = filled = memory.Memory(shape=width, depth=tenants, init=[])
        m.submodules.spent = spent = memory.Memory(shape=width, depth=tenants, init=[])

        charged_spent = spent.read_port(domain="comb")
        charged_filled = filled.read_port(domain="comb")
        spent_write = spent.write_port()
        spent_now = Signal(width)
        level_left = Signal(signed(width))
        m.d.comb += [
            charged_spent.addr.eq(self.tenant),
            charged_filled.addr.eq(self.tenant),
            spent_now.eq(charged_spent.data + (self.beats << FRACTION)),
            spent_write.en.eq(self.charge),
            spent_write.addr.eq(self.tenant),
            spent_write.data.eq(spent_now),
            level_left.eq(charged_filled.data - spent_now),
        ]

        # What a row grants is looked up in the cycle before its tenant's turn.
        turn, next_turn = (Signal(range(tenants), name=name) for name in ("turn", "next_turn"))
        refill, refill_now = (Signal(17 + tenants.bit_length(), name=name) for name in ("refill", "refill_now"))
        depth, cap = (Signal(signed(width), name=name) for name in ("depth", "cap"))
        full = Signal(init=1)
        row = rows.rows[0]
        m.d.comb += [
            next_turn.eq(Mux(turn == tenants - 1, 0, turn + 1)),
            rows.tenants[0].eq(next_turn),
            refill_now.eq(Mux(row.rate == 0, LEAST_RATE, row.rate) * tenants),
            depth.eq(((row.burst - MAX_PACKET_BEATS) << FRACTION) - refill_now),
        ]
        m.d.sync += [
            turn.eq(next_turn),
            refill.eq(refill_now),
            cap.eq(Mux(depth > 0, depth, 0)),
            full.eq(row.rate >= FULL_RATE),
        ]

        # The turn looks at `spent` before a charge of the same cycle: that only makes its refill more careful.
        turn_spent = spent.read_port(domain="comb")
        turn_filled = filled.read_port(domain="comb")
        filled_write = filled.write_port()
        level, above = (Signal(signed(width), name=name) for name in ("level", "above"))
        m.d.comb += [
            turn_spent.addr.eq(turn),
            turn_filled.addr.eq(turn),
            level.eq(turn_filled.data - turn_spent.data),
            above.eq(level + (refill - cap)),   # of the brim, when refilled
            filled_write.en.eq(1),
            filled_write.addr.eq(turn),
            filled_write.data.eq(Mux(above > 0, turn_spent.data + cap, turn_filled.data + refill)),
        ]

        everybody = (1 << tenants) - 1
        unlimited = Signal(tenants, init=everybody)
        m.d.sync += unlimited.bit_select(turn, 1).eq(full)
        charged_here = Signal(range(MAX_PACKET_BEATS << FRACTION + 1))
        m.d.comb += charged_here.eq(Mux(self.charge & (self.tenant == turn), self.beats << FRACTION, 0))
        for flag, least in ((self.ok, 0), (self.ample, (UNKNOWN - 1) * MAX_PACKET_BEATS << FRACTION)):
            spendable = Signal(tenants, init=everybody)
            with m.If(self.charge):
                m.d.sync += spendable.bit_select(self.tenant, 1).eq(level_left >= least)
            m.d.sync += spendable.bit_select(turn, 1).eq(
                Mux(above > 0, cap - charged_here >= least, level + refill - charged_here >= least))
            m.d.comb += flag.eq(spendable | unlimited)
        return m
