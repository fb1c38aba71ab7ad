"""Engine scheduler: shares of engine time with late charges, groups of tenants, work conservation, lost charges."""

import random
from itertools import pairwise

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.fabric.engine_scheduler import CHARGED_WITHIN, EngineScheduler
from tests.gateware.fabric.bench import commit, row


def serve(weights, cost, cycles, *, group_of=lambda tenant: 0, ready=lambda cycle: -1, charge_after=6, lost=0.0,
          seed=0):
    """Engines that each serve one group of tenants, one request at a time; `cost(tenant)` is what a request takes.

    A grant is taken when the engine of its group is free, and charged `charge_after` cycles later, or never with
    probability `lost`. Returns [(cycle, tenant, cost)] of the grants.
    """
    tenants = len(weights)
    config = DeviceConfig(ports=2, tenants=tenants, pages=32)
    dut, rng, served = EngineScheduler(config), random.Random(seed), []
    groups = [group_of(tenant) for tenant in range(tenants)]

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(config, weight=weight) for weight in weights])
        free = dict.fromkeys(groups, 0)
        bills = []
        ctx.set(dut.grant.ready, 1)
        for cycle in range(cycles):
            eligible = sum((free[group] <= cycle) << tenant for tenant, group in enumerate(groups))
            ctx.set(dut.ready, ready(cycle) & (1 << tenants) - 1)
            ctx.set(dut.engine.eligible, eligible)
            due = next((bill for bill in bills if bill[0] <= cycle), None)
            ctx.set(dut.engine.charged, due is not None)
            if due is not None:
                bills.remove(due)
                ctx.set(dut.engine.tenant, due[1])
                ctx.set(dut.engine.cost, due[2])
            if ctx.get(dut.grant.valid):
                tenant = ctx.get(dut.grant.payload)
                assert ready(cycle - 1) >> tenant & 1, "granted without a request"
                spent = cost(tenant)
                free[groups[tenant]] = max(cycle, free[groups[tenant]]) + spent
                served.append((cycle, tenant, spent))
                if rng.random() >= lost:
                    bills.append((cycle + charge_after, tenant, spent))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(testbench)
    simulator.run()
    return served


def shares(served, tenants, since=0):
    total = [sum(spent for cycle, who, spent in served if who == tenant and cycle >= since)
             for tenant in range(tenants)]
    return [one / sum(total) for one in total]


@pytest.mark.parametrize("weights", [[1000] * 4, [1000, 2000, 4000, 1000], [40000, 20000, 4000, 1500], [1, 2, 3, 4]])
@pytest.mark.parametrize("costs", [[20, 20, 20, 20], [640, 20, 80, 640], [20, 640, 640, 20]])
def test_shares_of_engine_time_follow_weights_at_any_cost(weights, costs):
    served = serve(weights, lambda tenant: costs[tenant], 40_000)
    for got, weight in zip(shares(served, 4, since=4000), weights, strict=True):
        assert got == pytest.approx(weight / sum(weights), rel=0.08, abs=0.02)


def test_tenants_of_other_slots_change_nothing_in_the_shares():
    """Tenant 0 has an engine of its own: its grants lie between those of the others."""
    served = serve([1000, 1000, 1000, 3000], lambda tenant: (30, 60, 240, 60)[tenant], 30_000,
                   group_of=lambda tenant: int(tenant > 0))
    others = [entry for entry in served if entry[1] > 0]
    assert shares(others, 4, since=3000)[1:] == pytest.approx([0.2, 0.2, 0.6], abs=0.03)
    assert sum(spent for _, tenant, spent in served if tenant == 0) >= 0.6 * 30_000


def test_equal_tenants_take_turns_request_by_request():
    served = [tenant for cycle, tenant, _ in serve([1000] * 4, lambda tenant: 200, 20_000) if cycle > 4000]
    for start in range(0, len(served) - 4, 4):
        assert sorted(served[start:start + 4]) == [0, 1, 2, 3]


def test_a_tenant_that_was_away_gets_its_share_and_no_more():
    served = serve([1000, 1000], lambda tenant: 100, 30_000,
                   ready=lambda cycle: 0b11 if cycle >= 15_000 else 0b01)
    assert shares([entry for entry in served if 15_000 <= entry[0] < 17_500], 2) == pytest.approx([0.5, 0.5], abs=0.06)


@pytest.mark.parametrize("weight", [1, 1000, 65535])
def test_engine_of_a_sole_tenant_is_never_idle_for_long(weight):
    served = serve([weight, 7], lambda tenant: 40, 8000, ready=lambda cycle: 0b01)
    settled = [entry for entry in served if entry[0] >= 2000]
    assert sum(spent for _, _, spent in settled) >= 0.75 * 6000   # some ten cycles a request pass before the next one


def test_a_tenant_without_weight_still_drains():
    served = serve([4096, 0], lambda tenant: 40, 20_000)
    assert shares(served, 2, since=4000)[1] == pytest.approx(1024 / 5120, abs=0.05)


def test_a_charge_that_never_comes_stops_nobody():
    served = serve([1000] * 2, lambda tenant: 40, 6000, lost=1.0)
    for tenant in range(2):
        starts = [cycle for cycle, who, _ in served if who == tenant]
        assert max(later - earlier for earlier, later in pairwise(starts)) <= 4 * CHARGED_WITHIN


@pytest.mark.parametrize("seed", range(2))
def test_only_tenants_that_may_are_granted(seed):
    rng = random.Random(seed)
    masks = [rng.randrange(16) for _ in range(100)]
    served = serve([100, 200, 300, 400], lambda tenant: rng.choice([10, 90]), 4000,
                   ready=lambda cycle: masks[max(cycle, 0) // 50] | masks[max(cycle - 3, 0) // 50])
    assert {tenant for _, tenant, _ in served} == {0, 1, 2, 3}
