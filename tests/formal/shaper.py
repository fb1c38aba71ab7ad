"""Contract of a shaper: a tenant never starts more than rate * cycles + burst beats, in any interval.

The watched tenant's row is written once, with any rate below full and any burst; the bus is free otherwise. From the
first refill under that row on, the tenant starts packets of any size whenever its `ok` is high and no charge of its
is so new that it does not show yet; the others are charged at will. A reference bucket, filled every cycle and never
above the burst, must never be overdrawn: that is the same claim for every interval at once. While `ample` is high, it
holds `UNKNOWN` largest packets, less what does not show yet.
"""

from amaranth import *

from gateware.fabric import shaper
from gateware.manager.allocation import BANKS, AllocationRow, reset_row
from tests.formal.prover import AnyConst, AnySeq, Assert, Assume, Claims, internals

TABLE = 1          # bank of the table that is written
LARGEST_BURST = 12  # of the proof, in largest packets: more than `UNKNOWN` of them


class ShaperContract(Elaboratable):
    """`dut` has the ports of `Shaper(config)`; `tenant` is the one that is watched.

    invariant(m, inside, contract): asserts what holds inside `dut`; None: its ports only, for bounded checks.
    """

    def __init__(self, dut, config, tenant, invariant=None):
        self.dut, self.config, self.tenant, self.invariant = dut, config, tenant, invariant
        self.fraction = shaper.FRACTION
        self.largest = shaper.MAX_PACKET_BEATS << self.fraction
        self.width = (2 * LARGEST_BURST * self.largest).bit_length()   # of what may be in a bucket

    def elaborate(self, platform):
        m = Module()
        tenants = self.config.tenants
        m.submodules.dut, inside = internals(self.dut)
        self.rate, self.burst = Signal(self.fraction), Signal(15)
        m.d.comb += [self.rate.eq(AnyConst(self.fraction)), self.burst.eq(AnyConst(15)),
                     Assume(self.burst <= LARGEST_BURST * shaper.MAX_PACKET_BEATS)]
        # Cycles: 0, the row is written; 1, its table comes into force; then one for each tenant's refill, which is
        # written four cycles after its row was read.
        self.period = max(tenants, 3)
        last = self.period + 5
        self.now = Signal(range(last + 1))
        self.settled = Signal()
        m.d.comb += self.settled.eq(self.now == last)
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
        # Beats that the tenant started one, two and three cycles ago: the flags do not know of them.
        self.recent = [Signal.like(beats, name=f"recent_{age}") for age in range(1, shaper.SHOWN)]
        for now, before in zip(self.recent, [Mux(mine, beats, 0), *self.recent], strict=False):
            m.d.sync += now.eq(before)
        may_start = dut.ok[self.tenant] & ~Cat(self.recent).any()
        m.d.comb += [
            start.eq(AnySeq(1)), tenant.eq(AnySeq(len(tenant))), beats.eq(AnySeq(len(beats))),
            mine.eq(start & (tenant == self.tenant)),
            Assume(tenant < self.config.tenants), Assume((beats > 0) & (beats <= shaper.MAX_PACKET_BEATS)),
            Assume(~mine | (self.settled & may_start)),
            dut.charge.eq(start), dut.tenant.eq(tenant), dut.beats.eq(beats),
        ]
        return Mux(mine, beats, 0)

    def _bucket(self, m, start):
        """The reference, in 1/65536 beat: what may be started now, and no more."""
        self.each_cycle = Signal(self.fraction)
        burst, least, self.depth = (Signal(self.width, name=name) for name in ("burst_units", "least", "depth"))
        m.d.comb += [
            self.each_cycle.eq(Mux(self.rate == 0, shaper.LEAST_RATE, self.rate)),
            burst.eq(self.burst << self.fraction),
            least.eq(self.largest + self.each_cycle * self.period),
            self.depth.eq(Mux(burst < least, least, burst)),
        ]
        # Below the brim: the bucket is full at the beginning.
        spent, after = Signal(signed(self.width + 1)), Signal(signed(self.width + 2))
        self.tokens = Signal(signed(self.width + 2))
        m.d.comb += [
            self.tokens.eq(self.depth - spent),
            after.eq(spent + (start << self.fraction) - self.each_cycle),
        ]
        m.d.sync += spent.eq(Mux(after < 0, 0, after))
        # Asserted a cycle later, when it follows from what an invariant claims of the cycle before.
        broken = Signal()
        unshown = sum(self.recent) << self.fraction
        m.d.sync += broken.eq((spent < 0) | ((start << self.fraction) > self.tokens) | (
            self.settled & self.dut.ample[self.tenant] & (self.tokens + unshown < shaper.UNKNOWN * self.largest)))
        m.d.comb += Assert(~broken)


#: Parts of the invariant: each is proven while the others are assumed.
PARTS = ("refill", "charge", "level", "tokens", "flags")


def shaper_invariant(m, inside, contract, part=None):
    """The level and what it has coming since its refill stay below the reference; the flags tell the level.

    A bucket is kept one largest packet low, so that it may be charged for one at a level of 0.
    """
    tenant, period, now = contract.tenant, contract.period, contract.now
    stride = 1 << (contract.config.tenants - 1).bit_length()
    table = inside.word(m, "rows.table", (TABLE * stride) | tenant)
    filled, spent = inside.word(m, "filled", tenant), inside.word(m, "spent", tenant)
    claim = Claims(part)
    real, shown = Signal(signed(len(filled))), Signal(signed(len(filled)))
    coming = Signal(contract.width)
    recent = [beats << contract.fraction for beats in contract.recent]
    m.d.comb += [real.eq(filled - spent), shown.eq(real + sum(recent))]
    refilled = now > (tenant + 4 if tenant else period + 4)   # under the written row
    _refill_invariant(m, inside, contract, claim, filled, spent, recent)
    _charge_invariant(m, inside, contract, claim, spent, recent)
    for number in range(period):
        with m.If(inside["last"] == number):   # so many cycles ago the tenant's refill was written
            m.d.comb += coming.eq(contract.each_cycle * ((number - tenant - 1) % period))
    m.d.comb += [
        claim("level", (now == 0) | ((table.rate == contract.rate) & (table.burst == contract.burst))),
        claim("level", contract.settled | (spent == 0)),
        claim("level", refilled | ((real >= 0) & (real <= Mux(now < 4, 0, 1 << 15 + contract.fraction)))),
        claim("level", real >= -contract.largest),
        claim("tokens", contract.settled | (contract.tokens == contract.depth)),
        claim("tokens", contract.tokens <= contract.depth),
        claim("tokens", ~refilled | (real + contract.largest + coming <= contract.tokens)),
        claim("level", ~refilled | (shown + contract.largest + contract.each_cycle * period <= contract.depth)),
        claim("flags", ~refilled | ~inside["unlimited"][tenant]),
        claim("flags", ~refilled | (inside["one"][tenant] == (shown >= 0))),
        claim("flags", ~refilled | (inside["several"][tenant] == (shown >= (shaper.UNKNOWN - 1) * contract.largest))),
    ]
    claim.finish(m)


def _refill_invariant(m, inside, contract, claim, filled, spent, recent):
    """A refill under way: what was looked up is what the row grants; what was read is what there was."""
    tenant, period, now = contract.tenant, contract.period, contract.now
    stages = [inside[name] for name in ("looked_up", "valued", "turn", "read", "last")]
    granted, brim, most = Signal(contract.width), Signal(signed(contract.width + 2)), 1 << 15 + contract.fraction
    row, level, missing = inside["row"], inside["level"].as_signed(), inside["missing"].as_signed()
    cap, limit, cut = inside["cap"].as_signed(), inside["limit"].as_signed(), inside["most"].as_signed()
    m.d.comb += [
        granted.eq(contract.each_cycle * period),
        brim.eq((contract.burst << contract.fraction) - contract.largest - granted),
        claim("refill", (stages[0] < period) & (now <= period + 5)),
        claim("refill", (limit <= most) & (cap >= 0) & (cap <= most) & (cut >= 0) & (cut <= most)),
        # In the first cycles nothing has been looked up: bucket 0 is refilled with nothing.
        claim("refill", (now > 0) | (row == 0)),
        claim("refill", (now > 1) | (limit <= 0)),
        claim("refill", (now > 2) | (cap == 0)),
        claim("refill", (now > 3) | ((cut == 0) & ((tenant != 0) | (inside["brim"] == 0)))),
    ]
    for cycle in range(period + 5):
        with m.If(now == cycle):
            m.d.comb += [claim("refill", stage == max(cycle - age, 0) % period) for age, stage in enumerate(stages)]
    with m.If(contract.settled):
        for number in range(period):
            with m.If(stages[0] == number):
                m.d.comb += [claim("refill", stage == (number - age) % period) for age, stage in enumerate(stages)]
    here = [stage == tenant for stage in stages]
    m.d.comb += [
        claim("refill", ~here[1] | (now < 2) | ((row[:17] == contract.rate) & (row[17:] == contract.burst))),
        claim("refill", ~here[2] | (now < 3) | ((inside["refill"] == granted) & (limit == brim)
                                                & ~inside["valued_full"])),
        claim("refill", ~here[3] | (now < 4) | ((inside["granted"] == granted) & (cap == Mux(brim > 0, brim, 0))
                                                & ~inside["full"])),
        claim("refill", ~here[4] | (now < 5) | ((inside["grant"] == granted) & (cut == Mux(brim > 0, brim, 0))
                                                & ~inside["last_full"])),
        claim("refill", ~here[3] | ((inside["read_filled"] == filled)
                           & (inside["read_spent"] == (spent - recent[0])[:len(spent)]))),
        claim("refill", ~here[4] | ((inside["more"] == (filled + inside["grant"])[:len(filled)])
                           & (inside["brim"] == (spent - recent[0] - recent[1] + cut)[:len(filled)])
                           & (level == (filled - spent + recent[0] + recent[1])[:len(filled)].as_signed())
                           & (missing == inside["grant"] - cut))),
    ]


def _charge_invariant(m, inside, contract, claim, spent, recent):
    """Charges that do not show yet: what was spent with them."""
    later = 0
    for age, beats in enumerate(contract.recent, 1):
        mine = inside[f"charge_{age}"] & (inside[f"charged_{age}"] == contract.tenant)
        m.d.comb += [
            claim("charge", mine == (beats != 0)),
            claim("charge", ~mine | (inside[f"spent_{age}"] == (spent - later)[:len(spent)])),
            claim("charge", beats <= shaper.MAX_PACKET_BEATS),
            claim("charge", contract.settled | (beats == 0)),
        ]
        later = later + recent[age - 1]
    m.d.comb += claim("charge", sum(beats != 0 for beats in contract.recent) <= 1)
