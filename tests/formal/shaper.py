"""Contract of a shaper: a tenant never starts more than rate * cycles + burst beats, in any interval.

The watched tenant's row is written once, with any rate below full and any burst; the bus is free otherwise. From the
first refill under that row on, the tenant starts packets of any size whenever its `ok` is high, and the others are
charged at will. A reference bucket, filled every cycle and never above the burst, must never be overdrawn: that is
the same claim for every interval at once. While `ample` is high, it holds `UNKNOWN` largest packets.
"""

from amaranth import *

from gateware.fabric import shaper
from gateware.manager.allocation import BANKS, AllocationRow, reset_row
from tests.formal.prover import AnyConst, AnySeq, Assert, Assume, internals

TABLE = 1          # bank of the table that is written
LARGEST_BURST = 8  # of the proof, in largest packets: a few of them empty the bucket


class ShaperContract(Elaboratable):
    """`dut` has the ports of `Shaper(config)`; `tenant` is the one that is watched.

    invariant(m, inside, contract): asserts what holds inside `dut`; None: its ports only, for bounded checks.
    """

    def __init__(self, dut, config, tenant, invariant=None):
        self.dut, self.config, self.tenant, self.invariant = dut, config, tenant, invariant
        self.fraction = shaper.FRACTION
        self.largest = shaper.MAX_PACKET_BEATS << self.fraction

    def elaborate(self, platform):
        m = Module()
        tenants = self.config.tenants
        m.submodules.dut, inside = internals(self.dut)
        self.rate, self.burst = Signal(self.fraction), Signal(15)
        m.d.comb += [self.rate.eq(AnyConst(self.fraction)), self.burst.eq(AnyConst(15)),
                     Assume(self.burst <= LARGEST_BURST * shaper.MAX_PACKET_BEATS)]
        # Cycles: 0, the row is written; 1, its table comes into force; then one for each tenant's refill.
        self.now = Signal(range(tenants + 3))
        self.settled = Signal()
        m.d.comb += self.settled.eq(self.now == tenants + 2)
        with m.If(~self.settled):
            m.d.sync += self.now.eq(self.now + 1)
        self._write_table(m)
        start = self._packets(m)
        self._bucket(m, start)
        if self.invariant is not None:
            self.invariant(m, inside, self)
        return m

    def _write_table(self, m):
        """The watched row once; then anything except in the active bank."""
        bus, width = self.dut.allocation, Shape.cast(AllocationRow).width
        with m.If(self.now == 0):
            m.d.comb += [bus.write.eq(1), bus.bank.eq(TABLE), bus.tenant.eq(self.tenant),
                         bus.row.eq(AllocationRow.const(reset_row(1, self.config))),
                         bus.row.rate.eq(self.rate), bus.row.burst.eq(self.burst)]
        with m.Else():
            m.d.comb += [bus.write.eq(AnySeq(1)), bus.bank.eq(AnySeq(2)), bus.tenant.eq(AnySeq(len(bus.tenant))),
                         bus.row.as_value().eq(AnySeq(width)),
                         Assume((bus.bank != TABLE) & (bus.bank < BANKS) & (bus.tenant < self.config.tenants))]
        m.d.comb += bus.active_bank.eq(Mux(self.now == 0, 0, TABLE))

    def _packets(self, m):
        """The watched tenant starts a packet when it may; returns its beats."""
        dut = self.dut
        start, tenant, beats = Signal(), Signal.like(dut.tenant), Signal.like(dut.beats)
        mine = Signal()
        m.d.comb += [
            start.eq(AnySeq(1)), tenant.eq(AnySeq(len(tenant))), beats.eq(AnySeq(len(beats))),
            mine.eq(start & (tenant == self.tenant)),
            Assume(tenant < self.config.tenants), Assume((beats > 0) & (beats <= shaper.MAX_PACKET_BEATS)),
            Assume(~mine | (self.settled & dut.ok[self.tenant])),
            dut.charge.eq(start), dut.tenant.eq(tenant), dut.beats.eq(beats),
        ]
        return Mux(mine, beats, 0)

    def _bucket(self, m, start):
        """The reference, in 1/65536 beat: what may be started now, and no more."""
        self.each_cycle = Signal(self.fraction)
        burst, least, self.depth = (Signal(32, name=name) for name in ("burst_units", "least", "depth"))
        m.d.comb += [
            self.each_cycle.eq(Mux(self.rate == 0, shaper.LEAST_RATE, self.rate)),
            burst.eq(self.burst << self.fraction),
            least.eq(self.largest + self.each_cycle * self.config.tenants),
            self.depth.eq(Mux(burst < least, least, burst)),
        ]
        spent, after = Signal(signed(40)), Signal(signed(40))   # below the brim; the bucket is full at the beginning
        self.tokens = Signal(signed(40))
        m.d.comb += [
            self.tokens.eq(self.depth - spent),
            after.eq(spent + (start << self.fraction) - self.each_cycle),
            Assert((spent >= 0) & ((start << self.fraction) <= self.tokens)),
        ]
        m.d.sync += spent.eq(Mux(after < 0, 0, after))
        with m.If(self.settled & self.dut.ample[self.tenant]):
            m.d.comb += Assert(self.tokens >= shaper.UNKNOWN * self.largest)


def shaper_invariant(m, inside, contract):
    """The level and what it has coming since its refill stay below the reference; the flags tell the level.

    A bucket is kept one largest packet low, so that it may be charged for one at a level of 0.
    """
    tenant, tenants = contract.tenant, contract.config.tenants
    row = inside.word(m, "rows.table", (TABLE << (tenants - 1).bit_length()) | tenant)
    filled, spent = inside.word(m, "filled", tenant), inside.word(m, "spent", tenant)
    level, coming, ahead = Signal(signed(len(filled))), Signal(32), Signal(range(tenants))
    turn = inside["turn"]
    m.d.comb += level.eq(filled - spent)
    for number in range(tenants):
        with m.If(turn == number):   # `behind` refills ago was the tenant's
            behind = (number - tenant - 1) % tenants
            m.d.comb += [coming.eq(contract.each_cycle * behind), ahead.eq((tenant - number) % tenants)]
    refilled = Signal()   # under the written row
    with m.If((contract.now > 1) & (turn == tenant)):
        m.d.sync += refilled.eq(1)
    # What the row grants was looked up in the cycle before the turn.
    refill, cap, granted, brim = inside["refill"], inside["cap"], Signal(32), Signal(signed(40))
    m.d.comb += [
        granted.eq(contract.each_cycle * tenants),
        brim.eq((contract.burst << contract.fraction) - contract.largest - granted),
        Assert((cap.as_signed() >= 0) & (cap.as_signed() <= 1 << 15 + contract.fraction)),
        Assert((contract.now <= 1) | (turn != tenant)
               | ((refill == granted) & (cap.as_signed() == Mux(brim > 0, brim, 0)) & ~inside["full"])),
        Assert((contract.now != 0) | ((cap == 0) & (refill == 0))),
    ]
    m.d.comb += [
        Assert((turn < tenants) & (contract.now <= tenants + 2)),
        Assert((contract.now == 0) | ((row.rate == contract.rate) & (row.burst == contract.burst))),
        Assert(Mux(refilled, contract.now > 2, (contract.now <= 1) | (contract.now + ahead <= tenants + 1))),
        Assert(refilled | ((level >= 0) & (level <= Mux(contract.now == 0, 0, 1 << 15 + contract.fraction)))),
        Assert(level >= -contract.largest),
        Assert(contract.settled | (contract.tokens == contract.depth)),
        Assert(~refilled | (level + contract.largest + coming <= contract.tokens)),
        Assert(~refilled | (level + contract.largest + contract.each_cycle * tenants <= contract.depth)),
        Assert(~refilled | ~inside["unlimited"][tenant]),
        Assert(~refilled | (contract.dut.ok[tenant] == (level >= 0))),
        Assert(~refilled | (contract.dut.ample[tenant] == (level >= (shaper.UNKNOWN - 1) * contract.largest))),
    ]
