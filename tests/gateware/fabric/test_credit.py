"""Credit bits against a model that computes them anew from what each tenant holds."""

import random

import pytest

from gateware.config import CREDIT_PAGES, DeviceConfig
from gateware.fabric.credit import Credit
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=2, tenants=4, pages=32)


def lack(used, quota, total):
    """Pages of the pool that a packet of `CREDIT_PAGES` would wait for; 0 too if it can never be admitted."""
    above = max(0, used + CREDIT_PAGES - max(quota, used))
    return 0 if used == 0 and above > total else above


def bits(pages):
    return sum((pages >= n) << (n - 1) for n in range(1, CREDIT_PAGES + 1))


@pytest.mark.parametrize("seed", range(4))
def test_room_follows_what_each_tenant_holds_and_what_the_pool_has(seed):
    rng = random.Random(seed)
    dut = Credit(CONFIG)

    async def bench(ctx):
        lacks = [0] * CONFIG.tenants  # nobody lacks anything after reset
        for _ in range(400):
            total = rng.randrange(7)
            free = rng.randrange(total + 1)
            ctx.set(dut.free, bits(free))
            ctx.set(dut.total, bits(total))
            news = {}
            for port in (1, 0):   # the first port is a booking, which knows better than the walk
                valid, tenant = rng.random() < 0.5, rng.randrange(CONFIG.tenants)
                used, quota = rng.choice([0, 0, 1, 5, 9]), rng.randrange(14)
                event = dut.events[port]
                for name, value in (("valid", valid), ("tenant", tenant), ("used", used), ("quota", quota)):
                    ctx.set(getattr(event, name), value)
                if valid:
                    news[tenant] = lack(used, quota, total)
            await ctx.tick()
            for tenant, pages in news.items():
                lacks[tenant] = pages
            room, own = ctx.get(dut.room), ctx.get(dut.own)
            assert [bool(room >> t & 1) for t in range(CONFIG.tenants)] == [pages <= free for pages in lacks]
            assert [bool(own >> t & 1) for t in range(CONFIG.tenants)] == [pages == 0 for pages in lacks]

    simulate(dut, bench)
