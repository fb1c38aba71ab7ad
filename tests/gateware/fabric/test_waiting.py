"""Who has packets in a crosspoint, and who has several, against plain counts."""

import random

import pytest

from gateware.config import DeviceConfig
from gateware.fabric.place import PAGE_DESCRIPTORS
from gateware.fabric.waiting import SEVERAL, Waiting
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=2, tenants=4, pages=32)
MOST = CONFIG.pages * PAGE_DESCRIPTORS


@pytest.mark.parametrize(("seed", "arrivals", "claims"), [(1, 0.5, 0.5), (2, 0.9, 0.3), (3, 0.3, 0.9), (4, 1, 1)])
def test_flags_agree_with_counts_of_what_arrived_and_was_claimed(seed, arrivals, claims):
    """Busy and idle sides; seed 2 fills the crosspoint, so that every count wraps."""
    dut, rng = Waiting(CONFIG), random.Random(seed)
    tenants = range(CONFIG.tenants)

    async def testbench(ctx):
        waits, several, filled = [0] * len(tenants), [False] * len(tenants), 0
        known = several
        for _ in range(4000):
            assert ctx.get(dut.ready) == sum((count > 0) << tenant for tenant, count in enumerate(waits))
            assert ctx.get(dut.several) == sum(flag << tenant for tenant, flag in enumerate(known))
            known = list(several)
            favoured = rng.choice(tenants)
            comes = rng.choice([favoured, 0]) if rng.random() < arrivals and sum(waits) < MOST else None
            able = [tenant for tenant in tenants if waits[tenant]]
            goes = rng.choice(able) if able and rng.random() < claims else None
            ctx.set(dut.arrive, comes is not None)
            ctx.set(dut.arrived, comes if comes is not None else rng.choice(tenants))
            ctx.set(dut.claim, goes is not None)
            ctx.set(dut.claimed, goes if goes is not None else rng.choice(tenants))
            if goes is not None:
                waits[goes] -= 1
                several[goes] = waits[goes] >= SEVERAL
            if comes is not None:
                waits[comes] += 1
            filled = max(filled, sum(waits))
            await ctx.tick()
        assert filled == MOST or arrivals <= claims

    simulate(dut, testbench)
