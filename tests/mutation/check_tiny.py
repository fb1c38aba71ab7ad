"""The tests of `Tiny`: run by the worker of a campaign, not collected by themselves."""

import amaranth.sim
import pytest

from tests.mutation.tiny import Tiny


@pytest.mark.parametrize("width", [4, 5])
def test_total_and_same(width):
    dut = Tiny(width)

    async def bench(ctx):
        for number in range(1 << 2 * width):
            a, b = number >> width, number & (1 << width) - 1
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            assert ctx.get(dut.same) == a
            await ctx.tick()
            assert ctx.get(dut.total) == (a + b) % (1 << width)

    simulator = amaranth.sim.Simulator(dut)   # as it is now: another may stand in for it
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
