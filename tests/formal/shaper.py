"""Contract of a shaper: a tenant never starts more than rate * cycles + burst beats, in any interval.

The watched tenant's row is written once, with any rate below full and any burst; the bus is free otherwise. From the
first refill under that row on, the tenant starts packets of any size whenever its `ok` is high and no charge of its
is so new that it does not show yet; the others are charged at will. A reference bucket, filled every cycle and never
above the burst, must never be overdrawn: that is the same claim for every interval at once. While `ample` is high, it
holds `UNKNOWN` largest packets, less what does not show yet. The shaper is proven with what its refills come from.
"""

from amaranth import *

from gateware.fabric import allowances, shaper
from gateware.manager.allocation import BANKS, FULL_RATE, AllocationRow, reset_row
from tests.formal.prover import AnyConst, AnySeq, Assert, Assume, Claims, internals

TABLE = 1          # bank of the table that is written
LARGEST_BURST = 12  # of the proof, in largest packets: more than `UNKNOWN` of them


class ShaperContract(Elaboratable):
    """`dut` has the ports of `ShaperOfRows(config)`; `tenant` is the one that is watched.

    invariant(m, inside, contract): asserts what holds inside `dut`; None: its ports only, for bounded checks.
    """

    def __init__(self, dut, config, tenant, invariant=None):
        self.dut, self.config, self.tenant, self.invariant = dut, config, tenant, invariant
        self.fraction = allowances.FRACTION
        self.largest = shaper.MAX_PACKET_BEATS << self.fraction
        self.width = (2 * LARGEST_BURST * self.largest).bit_length()   # of what may be in a bucket

    def elaborate(self, platform):
        m = Module()
        tenants = self.config.tenants
        m.submodules.dut, inside = internals(self.dut)
        self.rate, self.burst = Signal(self.fraction), Signal(15)
        m.d.comb += [self.rate.eq(AnyConst(self.fraction)), self.burst.eq(AnyConst(15)),
                     Assume(self.burst <= LARGEST_BURST * shaper.MAX_PACKET_BEATS)]
        # Cycles: 0, the row is written; 1, its table comes into force; then one for each tenant's turn, whose flags
        # show seven cycles after its row was read.
        self.period = tenants
        last = self.period + 7
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
            self.each_cycle.eq(Mux(self.rate == 0, allowances.LEAST_RATE, self.rate)),
            burst.eq(self.burst << self.fraction),
            least.eq(self.largest + self.each_cycle * self.period + (1 << self.fraction)),
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
            self.settled & self.dut.ample[self.tenant] & (self.tokens + unshown < allowances.UNKNOWN * self.largest)))
        m.d.comb += Assert(~broken)


#: Parts of the invariant: each is proven while the others are assumed.
PARTS = ("refill", "charge", "level", "tokens", "flags")


def shaper_invariant(m, inside, contract, part=None):
    """The level and what it has coming since its refill stay below the reference; the flags tell the level.

    A bucket is kept one largest packet low, so that it may be charged for one at a level of 0.
    """
    tenant, period, now, f = contract.tenant, contract.period, contract.now, contract.fraction
    stride = 1 << (contract.config.tenants - 1).bit_length()
    table = inside.word(m, "allowances.rows.table", (TABLE * stride) | tenant)
    bucket, spent = inside.word(m, "shaper.filled", tenant), inside.word(m, "shaper.spent", tenant)
    claim = Claims(part)
    filled, is_full = bucket.beats, bucket.full
    first = tenant or period   # the cycle in which the written row is read first
    known = _Known(m, contract, inside, filled, spent)
    refilled, shows = now > first + 5, now > first + 6   # under the written row, and so do the flags
    real, shown = known.real, known.shown
    flagged = known.turns[-1].tenant == tenant
    _refill_invariant(m, inside, contract, claim, known)
    if tenant == 0:
        _reset_invariant(m, inside, contract, claim, known)
    _charge_invariant(m, inside, contract, claim, known)
    coming = Signal(contract.width)
    for number in range(period):
        with m.If(known.turns[-1].tenant == number):   # so many cycles ago the tenant's refill was there
            m.d.comb += coming.eq(contract.each_cycle * ((number - tenant) % period))
    holds = (real << f) + contract.largest + known.rest_before
    ample = (allowances.UNKNOWN - 1) * shaper.MAX_PACKET_BEATS
    ok, is_ample = inside["shaper.ok"][tenant], inside["shaper.ample"][tenant]
    m.d.comb += [
        claim("level", (now == 0) | ((table.rate == contract.rate) & (table.burst == contract.burst))),
        claim("level", contract.settled | (spent == 0)),
        claim("level", refilled | ((real >= 0) & (real < 1 << 15))),
        claim("level", real >= -shaper.MAX_PACKET_BEATS),
        claim("level", ~refilled | (known.held <= known.most)),
        claim("level", ~refilled | ~is_full),
        claim("tokens", contract.settled | (contract.tokens == contract.depth)),
        claim("tokens", contract.tokens <= contract.depth),
        claim("tokens", ~refilled | (holds + coming <= contract.tokens)),
        claim("flags", ~shows | flagged | (ok == (shown >= 0))),
        claim("flags", ~shows | flagged | (is_ample == (shown >= ample))),
        claim("flags", ~shows | ~flagged | ~ok | (shown >= 0)),
        claim("flags", ~shows | ~flagged | ~is_ample | (shown >= ample)),
    ]
    claim.finish(m)


class _Known:
    """What the watched tenant's bucket holds, in whole beats, and what its row grants.

    real: now; shown: with the charges that do not show yet; held: with those that a turn has not seen. lump: of a turn,
    with its fraction; most: above a largest packet. rests: below one beat, now and before each turn that is on its way
    to the bucket, the newest first.
    """

    def __init__(self, m, contract, inside, filled, spent):
        f, width = contract.fraction, len(filled)
        self.spent, self.recent = spent, contract.recent
        self.real, self.shown, self.held = (Signal(signed(width), name=name) for name in ("real", "shown", "held"))
        self.lump, self.most = Signal(contract.width), Signal(15)
        room = contract.burst - (self.lump >> f) - (shaper.MAX_PACKET_BEATS + 2)
        m.d.comb += [
            self.real.eq(filled - spent), self.shown.eq(self.real + sum(contract.recent)),
            self.held.eq(self.real + sum(contract.recent[:2])),
            self.lump.eq(contract.each_cycle * contract.period), self.most.eq(Mux(room < 0, 0, room)),
        ]
        self.room, self.filled = room, filled
        layout = allowances.refill_layout(contract.config)
        self.turns = [layout(inside[name]) for name in ("allowances.refill", "shaper.summed", "shaper.flagged")]
        self.rests = [inside.word(m, "allowances.rests", contract.tenant)]
        for age, (who, beats) in enumerate((
                (inside["allowances.granted_tenant"], inside["allowances.beats"]),
                *((turn.tenant, turn.beats) for turn in self.turns[:2])), 3):
            rest = Signal(signed(contract.width + 2), name=f"rest_{age}")
            mine = (who == contract.tenant) & (contract.now > age)
            m.d.comb += rest.eq(self.rests[-1] + Mux(mine, (beats << f) - self.lump, 0))
            self.rests.append(rest)

    @property
    def rest_before(self):
        """What was left when the bucket was filled last."""
        return self.rests[-1]


def _refill_invariant(m, inside, contract, claim, known):
    """A turn under way: what was looked up is what the row grants; what was read is what there was."""
    tenant, period, now, f = contract.tenant, contract.period, contract.now, contract.fraction
    refill, summed, flagged = known.turns
    stages = [*(inside[f"allowances.{name}_tenant"] for name in ("asked", "read", "valued", "granted")),
              refill.tenant, summed.tenant, flagged.tenant]
    row, room = inside["allowances.row"], inside["allowances.room"].as_signed()
    for cycle in range(period + 7):
        with m.If(now == cycle):
            m.d.comb += [claim("refill", stage == max(cycle - age, 0) % period) for age, stage in enumerate(stages)]
    with m.If(contract.settled):
        for number in range(period):
            with m.If(stages[0] == number):
                m.d.comb += [claim("refill", stage == (number - age) % period) for age, stage in enumerate(stages)]
    m.d.comb += [claim("refill", (stages[0] < period) & (now <= period + 7)), claim("refill", room < 1 << 15)]
    here = [(stage == tenant) & (now > age) for age, stage in enumerate(stages)]
    deep = known.most >= (allowances.UNKNOWN - 1) * shaper.MAX_PACKET_BEATS
    m.d.comb += [
        claim("refill", ~here[1] | ((row[:17] == contract.rate) & (row[17:] == contract.burst))),
        claim("refill", ~here[2] | ((inside["allowances.lump"] == known.lump) & ~inside["allowances.valued_full"]
                                    & (inside["allowances.burst"] == contract.burst))),
        claim("refill", ~here[3] | ((room == known.room) & ~inside["allowances.granted_full"])),
        *(claim("refill", ~at | ((turn.most == known.most) & (turn.deep == deep) & ~turn.full))
          for at, turn in zip(here[4:], (refill, summed, flagged), strict=True)),
        *(claim("refill", turn.excess == turn.beats - turn.most) for turn in (refill, summed)),
        *(claim("refill", (now <= age) | ((rest >= 0) & (rest < 1 << f)))
          for age, rest in enumerate(known.rests[1:], 3)),
    ]
    newest = known.recent[0]
    level, raised = inside["shaper.level"].as_signed(), inside["shaper.raised"].as_signed()
    with m.If(summed.tenant == tenant):
        m.d.comb += [
            claim("refill", (now < 5) | (level == known.real + newest)),
            claim("refill", (now < 5) | (inside["shaper.brim"] == (known.spent - newest + summed.most)[:17])),
            claim("refill", (now < 5) | (inside["shaper.more"] == (known.filled + summed.beats)[:17])),
        ]
    m.d.comb += claim("refill", ~here[6] | Mux(
        inside["shaper.was_cut"], (known.held == known.most) & (raised >= known.held), raised == known.held))


def _reset_invariant(m, inside, contract, claim, known):
    """Tenant 0 has turns before its row is read first, of what reset leaves, even one behind the other: they are empty.

    (At the narrow rates of the proof: a turn at full rate has more beats than are kept of it.)
    """
    now, period = contract.now, contract.period
    names = [f"allowances.{name}_tenant" for name in ("asked", "read", "valued", "granted")]
    _, read, valued, granted = ((inside[name] == 0) & (now <= age) for age, name in enumerate(names))
    row, lump, burst = (inside[f"allowances.{name}"] for name in ("row", "lump", "burst"))
    room, row_burst = inside["allowances.room"].as_signed(), reset_row(0, contract.config)["burst"]
    at_reset = inside.word(m, "allowances.rows.table", 0)   # its row in the bank in force then
    m.d.comb += [
        claim("refill", (now > 0) | ((at_reset.rate == FULL_RATE) & (at_reset.burst == row_burst))),
        claim("refill", ~read | ((row[:17] == FULL_RATE) & (row[17:] <= row_burst))),
        claim("refill", ~valued | Mux(lump == 0, burst == 0, (lump == FULL_RATE * period) & (burst <= row_burst))),
        claim("refill", ~granted | ((inside["allowances.beats"] == 0) & (room <= 0))),
        *(claim("refill", (now > age) | ((turn.beats == 0) & (turn.most == 0) & (turn.excess == 0)))
          for age, turn in enumerate(known.turns, 4)),
        *(claim("refill", (now > 5) | (inside[f"shaper.{name}"] == 0)) for name in ("level", "brim", "more")),
        claim("refill", (now > 6) | (inside["shaper.raised"] == 0)),
        claim("level", (now > period + 5) | (known.filled == 0)),
    ]


def _charge_invariant(m, inside, contract, claim, known):
    """Charges that do not show yet: what was spent with them."""
    later = 0
    for age, beats in enumerate(contract.recent, 1):
        mine = inside[f"shaper.charge_{age}"] & (inside[f"shaper.charged_{age}"] == contract.tenant)
        m.d.comb += [
            claim("charge", mine == (beats != 0)),
            claim("charge", beats <= shaper.MAX_PACKET_BEATS),
            claim("charge", contract.settled | (beats == 0)),
        ]
        if age < shaper.SHOWN - 1:
            m.d.comb += claim("charge", ~mine | (inside[f"shaper.spent_{age}"] == (known.spent - later)[:17]))
        else:   # unless the bucket was filled just now, after which the flags are those of the turn
            m.d.comb += [
                claim("charge", ~mine | ~inside["shaper.left_full"]),
                claim("charge", ~mine | (known.turns[-1].tenant == contract.tenant)
                      | (inside["shaper.left"].as_signed() == known.real + later)),
            ]
        later = later + beats
    m.d.comb += claim("charge", sum(beats != 0 for beats in contract.recent) <= 1)
