"""Allowances: what each bucket gets in a turn, against a model in whole numbers."""

import random

import pytest

from gateware.config import MAX_PACKET_BEATS, DeviceConfig
from gateware.fabric.allowances import FRACTION, LEAST_RATE, UNKNOWN, Allowances
from gateware.manager.allocation import FULL_RATE
from tests.gateware.fabric.bench import commit, row
from tests.gateware.simulation import simulate

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

CONFIG = DeviceConfig(ports=2, tenants=4, pages=32)


def brim(rate, burst):
    """Beats above a largest packet that a bucket may hold: a turn's lump, made whole, comes on top of them."""
    lump = (rate or LEAST_RATE) * CONFIG.tenants
    return max(0, burst - MAX_PACKET_BEATS - 2 - (lump >> FRACTION))


def random_row(rng):
    rate = rng.choice([0, 1, FULL_RATE - 1, FULL_RATE, 1 << rng.randrange(17), rng.randrange(FULL_RATE)])
    deep = UNKNOWN * MAX_PACKET_BEATS + rng.randrange(-12, 12)
    return row(CONFIG, weight=1, rate=rate, burst=rng.choice([256, 257, 260, deep, 0x7FFF, rng.randrange(256, 0x8000)]))


@pytest.mark.parametrize("seed", range(3))
def test_each_turn_brings_whole_beats_and_no_fraction_is_ever_lost(seed):
    rng = random.Random(seed)
    dut = Allowances(CONFIG)

    async def walk(ctx, rows, turns):
        """Compares the turns from the next whole round on; the fractions that were there before are not known."""
        refill = dut.refill
        given, surplus = [0] * CONFIG.tenants, [[] for _ in rows]   # above so many turns' lumps, in fractions
        await ctx.tick().repeat(2 * CONFIG.tenants + 4)   # what is on the way is of the table before
        while ctx.get(refill.tenant) != CONFIG.tenants - 1:
            await ctx.tick()
        for turn in range(turns):
            for tenant, content in enumerate(rows):
                await ctx.tick()
                assert ctx.get(refill.tenant) == tenant
                most, beats = brim(content["rate"], content["burst"]), ctx.get(refill.beats)
                given[tenant] += beats
                lump = (content["rate"] or LEAST_RATE) * CONFIG.tenants
                surplus[tenant].append((given[tenant] << FRACTION) - lump * (turn + 1))
                assert ctx.get(refill.most) == most
                assert ctx.get(refill.excess) == beats - most
                assert ctx.get(refill.deep) == (most + MAX_PACKET_BEATS >= UNKNOWN * MAX_PACKET_BEATS)
                assert ctx.get(refill.full) == (content["rate"] >= FULL_RATE)
        # It changes with the rest that is kept, which is below a beat.
        assert all(max(one) - min(one) < FULL_RATE and max(map(abs, one)) < FULL_RATE for one in surplus)

    async def testbench(ctx):
        bank = epoch = 0
        for _ in range(40):
            rows = [random_row(rng) for _ in range(CONFIG.tenants)]
            bank, epoch = await commit(ctx, dut.allocation, rows, bank, epoch)
            await walk(ctx, rows, 20)

    simulate(dut, testbench)


@pytest.mark.parametrize("turns", [1, 3, 43, 127])
def test_beat_comes_in_the_very_turn_that_completes_it(turns):
    """Rates that lack a beat by the least there is after so many turns, or just complete it, from a rest of 0 on."""
    dut = Allowances(CONFIG)
    per_turn = FULL_RATE // CONFIG.tenants
    rates = [(per_turn - 1) // turns, (per_turn - 1) // turns + per_turn, per_turn // 4, 3 * per_turn + per_turn // 2]
    assert all(rate * turns % per_turn == per_turn - 1 for rate in rates[:2])

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=1, rate=rate, burst=512) for rate in rates])
        given, seen = [0] * CONFIG.tenants, [0] * CONFIG.tenants
        for _ in range(CONFIG.tenants * (2 * turns + 20)):
            await ctx.tick()
            tenant = ctx.get(dut.refill.tenant)
            if ctx.get(dut.refill.full):   # of the table before, which limits nobody and leaves no rest
                assert not seen[tenant]
                continue
            seen[tenant] += 1
            given[tenant] += ctx.get(dut.refill.beats)
            assert given[tenant] == rates[tenant] * CONFIG.tenants * seen[tenant] >> FRACTION, (tenant, seen[tenant])
        assert min(seen) > 2 * turns

    simulate(dut, testbench)


@pytest.mark.long
def test_lowest_bits_of_a_rate_bring_their_beats_in_time():
    """One bit of a rate a tenant, until the lowest has brought a beat; nothing is known of what was there before."""
    dut = Allowances(CONFIG)
    rates = [1, 2, 4, 8]

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=1, rate=rate, burst=512) for rate in rates])
        await ctx.tick().repeat(8 * CONFIG.tenants)
        given, turns = [0] * CONFIG.tenants, (1 << 14) + 16
        for _ in range(turns):
            for _ in rates:
                await ctx.tick()
                beats = ctx.get(dut.refill.beats)
                if beats:
                    given[ctx.get(dut.refill.tenant)] += beats
        for rate, beats in zip(rates, given, strict=True):
            assert abs(beats - rate * CONFIG.tenants * turns / FULL_RATE) < 1, rate

    simulate(dut, testbench)
