"""The divider against integer division."""

import random

import pytest

from gateware.analyzer.divider import DIVIDEND_BITS, Divider
from tests.gateware.simulation import simulate


def divide(pairs, after=0):
    dut, quotients = Divider(), []

    async def bench(ctx):
        for dividend, divisor in pairs:
            ctx.set(dut.start, 1)
            ctx.set(dut.dividend, dividend)
            ctx.set(dut.divisor, divisor)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.dividend, 0)
            ctx.set(dut.divisor, 1)
            await ctx.tick().repeat(DIVIDEND_BITS)
            quotients.append(ctx.get(dut.quotient))
            for _ in range(after):
                await ctx.tick()
                assert ctx.get(dut.quotient) == quotients[-1], "it stays until the next start"

    simulate(dut, bench)
    return quotients


@pytest.mark.parametrize("seed", [0])
def test_quotient_is_rounded_down_and_limited(seed):
    rng = random.Random(seed)
    most = (1 << DIVIDEND_BITS) - 1
    pairs = [(0, 1), (7, 7), (6, 7), (most, 1), (most, (1 << 32) - 1), (most, 0), (0, 0), (1 << 32, 1),
             ((1 << 32) - 1, 1), (1 << 43, 1 << 31)]
    pairs += [(rng.getrandbits(rng.randint(1, 44)), rng.getrandbits(rng.randint(1, 32))) for _ in range(60)]
    assert divide(pairs) == [min(dividend // divisor, 0xFFFFFFFF) if divisor else 0 for dividend, divisor in pairs]


def test_quotient_stays_until_the_next_start():
    assert divide([((1 << 44) - 5, 3 << 11), (1000, 7)], after=80) == [((1 << 44) - 5) // (3 << 11), 142]


@pytest.mark.parametrize("cycles", [1, 20, DIVIDEND_BITS - 1])
def test_start_during_a_division_begins_anew(cycles):
    dut, quotients = Divider(), []

    async def bench(ctx):
        for dividend, wait in (((1 << 44) - 1, cycles - 1), (123_456_789, DIVIDEND_BITS)):
            ctx.set(dut.start, 1)
            ctx.set(dut.dividend, dividend)
            ctx.set(dut.divisor, 1001)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for _ in range(wait):
                await ctx.tick()
        quotients.append(ctx.get(dut.quotient))

    simulate(dut, bench)
    assert quotients == [123_456_789 // 1001]
