"""Credit bits against a model that computes them anew from what each tenant holds."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.fabric.credit import CREDIT_PAGES, Credit

CONFIG = DeviceConfig(ports=2, tenants=4, pages=32)


@pytest.mark.parametrize("seed", range(3))
def test_room_is_that_of_the_last_event_of_each_tenant_or_of_the_pool(seed):
    rng = random.Random(seed)
    dut = Credit(CONFIG)

    async def bench(ctx):
        own = [True] * CONFIG.tenants  # nobody holds anything after reset
        for _ in range(300):
            event, shared = rng.random() < 0.7, rng.random() < 0.2
            tenant, used, quota = rng.randrange(CONFIG.tenants), rng.choice([0, 1, 5, 9]), rng.choice([0, 4, 8, 13])
            ctx.set(dut.event, event)
            ctx.set(dut.shared, shared)
            ctx.set(dut.tenant, tenant)
            ctx.set(dut.used, used)
            ctx.set(dut.quota, quota)
            await ctx.tick()
            if event:
                own[tenant] = used == 0 or used + CREDIT_PAGES <= quota
            expected = sum((room or shared) << index for index, room in enumerate(own))
            assert ctx.get(dut.room) == expected

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
