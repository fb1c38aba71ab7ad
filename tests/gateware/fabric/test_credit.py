"""Credit bits against a model that computes them anew from what each tenant holds."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.fabric.credit import CREDIT_PAGES, Credit

CONFIG = DeviceConfig(ports=2, tenants=4, pages=32)


def has_room(used, quota, free, total):
    """Whether a packet of `CREDIT_PAGES` need not wait: it fits, or it can never be admitted."""
    above = max(0, used + CREDIT_PAGES - max(quota, used))
    return above <= free or (used == 0 and above > total)


def bits(pages):
    return sum((pages >= n) << (n - 1) for n in range(1, CREDIT_PAGES + 1))


@pytest.mark.parametrize("seed", range(4))
def test_room_follows_what_each_tenant_holds_and_what_the_pool_has(seed):
    rng = random.Random(seed)
    dut = Credit(CONFIG)

    async def bench(ctx):
        holds = [(0, 32)] * CONFIG.tenants  # nobody lacks anything after reset
        for _ in range(400):
            event, total = rng.random() < 0.7, rng.randrange(7)
            free = rng.randrange(total + 1)
            tenant, used, quota = rng.randrange(CONFIG.tenants), rng.choice([0, 0, 1, 5, 9]), rng.randrange(14)
            ctx.set(dut.event, event)
            ctx.set(dut.free, bits(free))
            ctx.set(dut.total, bits(total))
            ctx.set(dut.tenant, tenant)
            ctx.set(dut.used, used)
            ctx.set(dut.quota, quota)
            await ctx.tick()
            if event:
                holds[tenant] = used, quota
            expected = [has_room(*hold, free, total) for hold in holds]
            room = ctx.get(dut.room)
            assert [bool(room >> t & 1) for t in range(CONFIG.tenants)] == expected

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
