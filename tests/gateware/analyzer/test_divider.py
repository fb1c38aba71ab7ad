"""The divider against integer division."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.analyzer.divider import DIVIDEND_BITS, Divider


def divide(pairs):
    dut, quotients = Divider(), []
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

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

    simulator.add_testbench(bench)
    simulator.run()
    return quotients


@pytest.mark.parametrize("seed", [0])
def test_quotient_is_rounded_down_and_limited(seed):
    rng = random.Random(seed)
    most = (1 << DIVIDEND_BITS) - 1
    pairs = [(0, 1), (7, 7), (6, 7), (most, 1), (most, (1 << 32) - 1), (most, 0), (0, 0), (1 << 32, 1),
             ((1 << 32) - 1, 1), (1 << 43, 1 << 31)]
    pairs += [(rng.getrandbits(rng.randint(1, 44)), rng.getrandbits(rng.randint(1, 32))) for _ in range(60)]
    assert divide(pairs) == [min(dividend // divisor, 0xFFFFFFFF) if divisor else 0 for dividend, divisor in pairs]
