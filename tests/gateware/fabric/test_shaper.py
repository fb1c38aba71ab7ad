"""Token buckets: the curve rate * n + burst is never passed, and is reached."""

import random

import pytest

from gateware.config import MAX_PACKET_BEATS, DeviceConfig
from gateware.fabric.allowances import UNKNOWN
from gateware.fabric.shaper import SHOWN, Shaper
from gateware.manager.allocation import FULL_RATE
from tests.gateware.fabric.bench import ShaperOfRows, commit, row
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=2, tenants=4, pages=32)


def spend(rows, cycles, size, seed=0, change=None, config=CONFIG, tenants=CONFIG.tenants, start=0):
    """Starts packets whenever a bucket allows, one beat a cycle over all; returns [(cycle, tenant, beats)].

    Only the first `tenants` have packets, and none before cycle `start`.
    """
    dut = ShaperOfRows(config)
    rng = random.Random(seed)
    started = []

    async def testbench(ctx):
        bank, epoch = await commit(ctx, dut.allocation, rows)
        until = start
        for cycle in range(cycles):
            if change is not None and cycle == change[0]:
                await commit(ctx, dut.allocation, change[1], bank, epoch)
            able = [tenant for tenant in range(tenants) if ctx.get(dut.ok) >> tenant & 1]
            ctx.set(dut.charge, 0)
            if able and cycle >= until:
                tenant, beats = rng.choice(able), size(rng)
                ctx.set(dut.charge, 1)
                ctx.set(dut.tenant, tenant)
                ctx.set(dut.beats, beats)
                started.append((cycle, tenant, beats))
                until = cycle + max(beats + 1, SHOWN)   # before, `ok` does not know of it
            await ctx.tick()

    simulate(dut, testbench)
    return started


def worst_excess(started, tenant, rate, burst):
    """Most by which any interval passes the curve (at most 0 if the contract holds)."""
    entries = [(cycle, beats) for cycle, who, beats in started if who == tenant]
    worst = -burst
    for first in range(len(entries)):
        total = 0
        for cycle, beats in entries[first:]:
            total += beats
            worst = max(worst, total - burst - rate * (cycle - entries[first][0]) / FULL_RATE)
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 64])
@pytest.mark.parametrize("seed", range(2))
def test_no_interval_passes_rate_and_burst(seed, count):
    config = DeviceConfig(ports=2, tenants=count, pages=32)
    limits = [(FULL_RATE // 8, 256), (FULL_RATE // 4, 600), (FULL_RATE // 100, 300), (1000, 1024)]
    rows = [row(CONFIG, weight=1, rate=rate, burst=burst) for rate, burst in limits]
    rows += [row(CONFIG)] * (count - len(limits))
    started = spend(rows, 5000, lambda rng: rng.choice([1, 4, 16, 100, 256]), seed, config=config)
    assert {tenant for _, tenant, _ in started} == {0, 1, 2, 3}
    for tenant, (rate, burst) in enumerate(limits):
        least = 257 + rate * count / FULL_RATE
        assert worst_excess(started, tenant, rate, max(burst, least)) <= 0


@pytest.mark.parametrize("small", [46, 47, 48, 49])
def test_a_full_bucket_emptied_by_a_largest_packet_stays_under_the_curve(small):
    """The worst case: small packets until the bucket is just full enough, then 256 beats; a round brings 32."""
    config = DeviceConfig(ports=2, tenants=64, pages=32)
    rows = [row(config, weight=1, rate=FULL_RATE // 2, burst=600)] + [row(config)] * 63
    sizes = iter([16] * small)
    started = spend(rows, 1900, lambda rng: next(sizes, 256), config=config, tenants=1, start=800)
    assert sum(beats for _, _, beats in started) >= 16 * small + 256
    assert worst_excess(started, 0, FULL_RATE // 2, 600) <= 0


@pytest.mark.slow
@pytest.mark.parametrize("beats", [1, 16])
@pytest.mark.parametrize("share", [2, 5])
def test_a_backlogged_tenant_reaches_its_rate(beats, share):
    blocked = row(CONFIG, weight=1, rate=1, burst=256)
    rows = [row(CONFIG, weight=1, rate=FULL_RATE // share, burst=300), blocked, blocked, blocked]
    started = [entry for entry in spend(rows, 3500, lambda rng: beats) if entry[1] == 0 and entry[0] > 1000]
    limit = min(1 / share, beats / max(beats + 1, SHOWN))
    assert sum(beats for _, _, beats in started) / 2500 == pytest.approx(limit, rel=0.05)


def test_full_rate_does_not_limit():
    slow = row(CONFIG, weight=1, rate=1, burst=256)
    rows = [row(CONFIG, weight=1, rate=FULL_RATE, burst=256), slow, slow, slow]
    started = [entry for entry in spend(rows, 3000, lambda rng: 256) if entry[1] == 0]
    assert sum(beats for _, _, beats in started) > 0.97 * (3000 - 4 * 257)


def test_rate_zero_still_drains():
    rows = [row(CONFIG, weight=1, rate=0, burst=256)] * 4
    started = [entry for entry in spend(rows, 6000, lambda rng: 1) if entry[1] == 0]
    assert 4 <= len(started) <= 7


def test_a_lowered_burst_takes_effect_at_once():
    """A bucket filled to a large burst is cut to the new one when the table changes."""
    start = [row(CONFIG, weight=1, rate=FULL_RATE, burst=4000)] * 4
    later = [row(CONFIG, weight=1, rate=64, burst=300)] * 4
    started = [entry for entry in spend(start, 6000, lambda rng: 16, change=(1000, later))
               if entry[0] > 1000 + 2 * CONFIG.tenants]
    for tenant in range(4):
        assert worst_excess(started, tenant, 64, 300) <= 0
        assert sum(beats for _, who, beats in started if who == tenant) <= 300 + 64 * 5000 / FULL_RATE


@pytest.mark.slow
@pytest.mark.parametrize(("count", "sizes"), [(8, (44, 4, 256)), (8, (40, 256)), (8, (256, 256)), (8, (1, 43, 4, 256)),
                                              (5, (44, 2, 256))])
def test_a_full_bucket_spent_at_once_in_any_cycle_of_the_round_stays_under_the_curve(count, sizes):
    """A charge as often as they show, as long as the bucket allows, from every phase of the refilling on."""
    config = DeviceConfig(ports=2, tenants=count, pages=32)
    rate, burst, idle = FULL_RATE // 2, 300, 640
    dut = ShaperOfRows(config)
    started = []

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(config, weight=1, rate=rate, burst=burst)] * count)
        cycle = 0
        for phase in range(count):
            left, due = list(sizes), idle
            for step in range(idle + SHOWN * len(sizes) + count + 1 + phase % 2):
                able = ctx.get(dut.ok) >> 1 & 1 and step >= due and left
                ctx.set(dut.charge, bool(able))
                if able:
                    ctx.set(dut.tenant, 1)
                    ctx.set(dut.beats, left[0])
                    started.append((cycle, 1, left.pop(0)))
                    due = step + SHOWN
                await ctx.tick()
                cycle += 1

    simulate(dut, testbench)
    assert len(started) >= count
    assert worst_excess(started, 1, rate, burst) <= 0


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1, 3, 655, 21845, 50000, 65535])
def test_long_run_rate_is_exact(rate):
    """What is started over a long time is what the rate grants, to a beat and a round's lump: no rounding loses it."""
    warm_up, cycles = 1000, 12_000
    rows = [row(CONFIG, weight=1, rate=rate, burst=300)] + [row(CONFIG, weight=1, rate=1, burst=256)] * 3
    dut = ShaperOfRows(CONFIG)
    spent = 0

    async def testbench(ctx):
        nonlocal spent
        await commit(ctx, dut.allocation, rows)
        ctx.set(dut.tenant, 0)
        ctx.set(dut.beats, SHOWN)
        due = 0
        for cycle in range(warm_up + cycles):
            able = ctx.get(dut.ok) & 1 and cycle >= due
            ctx.set(dut.charge, able)
            if able:
                due = cycle + SHOWN
                spent += SHOWN * (cycle >= warm_up)    # what was in the bucket has been spent by then
            await ctx.tick()

    simulate(dut, testbench)
    assert spent == pytest.approx(rate * cycles / FULL_RATE, abs=SHOWN + rate * CONFIG.tenants / FULL_RATE)


def test_ample_allows_as_many_largest_packets_as_may_be_unknown():
    rows = [row(CONFIG, weight=1, rate=FULL_RATE // 2, burst=UNKNOWN * 256 + extra) for extra in (8, -8, 300, 0)]
    dut = ShaperOfRows(CONFIG)

    async def testbench(ctx):
        await commit(ctx, dut.allocation, rows)
        await ctx.tick().repeat(2 * (UNKNOWN * 256 + 300) + 30)
        assert ctx.get(dut.ample) == 0b0101      # a bucket is kept a round's lump below its burst
        ctx.set(dut.tenant, 2)
        ctx.set(dut.beats, 256)
        ctx.set(dut.charge, 1)
        await ctx.tick().repeat(2)
        ctx.set(dut.charge, 0)
        await ctx.tick().repeat(SHOWN)
        assert ctx.get(dut.ample) == 0b0001
        assert ctx.get(dut.ok) == 0b1111

    simulate(dut, testbench)


@pytest.mark.slow
@pytest.mark.parametrize(("deepest", "turns", "times"), [(600, 12, 30), (3000, 25, 30), (0x7FFF, 3000, 3)])
def test_a_bucket_is_right_to_the_beat(deepest, turns, times):
    """Filled and spent at random, then to the very beat at which a largest packet, or `UNKNOWN` of them, do not fit."""
    rng = random.Random(deepest)
    dut, count = Shaper(CONFIG), CONFIG.tenants
    ample = (UNKNOWN - 1) * MAX_PACKET_BEATS
    level, plan = [0] * count, [(0, 0, 1)] * count    # beats above a largest packet; (beats, most, full) of a turn

    async def step(ctx, cycle, quiet, charge=None):
        """One cycle: a tenant's turn, then a charge."""
        tenant = cycle % count
        beats, most, full = plan[tenant]
        beats = 0 if quiet else beats
        ctx.set(dut.refill, {"tenant": tenant, "beats": beats, "most": most, "excess": beats - most,
                             "deep": most >= ample, "full": full})
        level[tenant] = min(level[tenant] + beats, most)
        ctx.set(dut.charge, charge is not None)
        if charge is not None:
            ctx.set(dut.tenant, charge[0])
            ctx.set(dut.beats, charge[1])
            level[charge[0]] -= charge[1]
        await ctx.tick()

    async def compare(ctx):
        for cycle in range(3 * count):
            await step(ctx, cycle, quiet=True)
        for flags, least in ((ctx.get(dut.ok), 0), (ctx.get(dut.ample), ample)):
            assert [flags >> tenant & 1 for tenant in range(count)] == [
                full or held >= least for held, (_, _, full) in zip(level, plan, strict=True)]

    async def testbench(ctx):
        for _ in range(times):
            plan[:] = [(rng.randrange(count + 1), rng.choice([deepest, rng.randrange(40)]), rng.random() < 0.1)
                       for _ in range(count)]
            due = [0] * count
            for cycle in range(count * rng.randrange(turns // 2, turns)):
                tenant = rng.randrange(count)
                spends = level[tenant] >= 0 and due[tenant] <= cycle and rng.random() < 0.05
                due[tenant] = cycle + SHOWN if spends else due[tenant]
                await step(ctx, cycle, quiet=False, charge=(tenant, rng.randrange(1, 257)) if spends else None)
            await compare(ctx)
            for tenant in range(count):
                for edge in (ample, ample - 1, 0, -1):
                    while level[tenant] > max(edge, -1):
                        await step(ctx, 0, quiet=True, charge=(tenant, min(MAX_PACKET_BEATS, level[tenant] - edge)))
                        for cycle in range(SHOWN):
                            await step(ctx, cycle, quiet=True)
                        assert (ctx.get(dut.ok) >> tenant & 1) == (level[tenant] >= 0 or plan[tenant][2])
                    await compare(ctx)

    simulate(dut, testbench)
