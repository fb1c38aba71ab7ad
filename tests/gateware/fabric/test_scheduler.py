"""Surplus round robin: shares, work conservation, debt, draining."""

import random
from itertools import pairwise

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.fabric.scheduler import Scheduler
from tests.gateware.fabric.bench import commit, row


def serve(weights, cost, cycles, backlogged=None, tenants=None):
    """Serves tenants for `cycles`; `cost(t)` are the beats of the next packet, one beat a cycle.

    `backlogged(cycle)` gives the tenants with packets (default: all). Returns [(cycle, tenant, beats)].
    """
    config = DeviceConfig(ports=2, tenants=tenants or len(weights), pages=32)
    dut = Scheduler(config)
    served = []

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(config, weight=weight) for weight in weights])
        until = 0
        cycle = 0
        bill = 0
        ctx.set(dut.ready, (1 << len(weights)) - 1)
        while cycle < cycles:
            ctx.set(dut.ready, backlogged(cycle) if backlogged else (1 << len(weights)) - 1)
            ctx.set(dut.charge, bill != 0)
            ctx.set(dut.beats, bill)
            bill = 0
            ctx.set(dut.grant.ready, cycle >= until)
            if cycle >= until and ctx.get(dut.grant.valid):
                tenant = ctx.get(dut.grant.payload)
                bill = cost(tenant)
                until = cycle + bill + 1
                served.append((cycle, tenant, bill))
            await ctx.tick()
            cycle += 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return served


def shares(served, count, since=0):
    total = [0] * count
    for cycle, tenant, beats in served:
        if cycle >= since:
            total[tenant] += beats
    return [beats / sum(total) for beats in total]


@pytest.mark.parametrize("weights", [
    [1000, 1000, 1000, 1000],
    [1000, 2000, 4000, 1000],
    [40000, 20000, 4000, 1500],
    [1, 2, 3, 4],
    [1, 1000, 1, 1],
])
@pytest.mark.parametrize("costs", [[1, 1, 1, 1], [16, 1, 4, 16]])
def test_shares_converge_to_weights_at_any_cost(weights, costs):
    served = serve(weights, lambda tenant: costs[tenant], 5000)
    got = shares(served, len(weights), since=1000)
    for share, weight in zip(got, weights, strict=True):
        expected = weight / sum(weights)
        assert share == pytest.approx(expected, rel=0.05, abs=0.01)


@pytest.mark.parametrize("weight", [1, 100, 4096, 65535])
@pytest.mark.parametrize("tenants", [1, 3])
def test_scheduler_leaves_no_gap_in_large_packets_whatever_the_weights(weight, tenants):
    served = serve([weight] * tenants, lambda tenant: 16, 2000, tenants=4)
    settled = [beats for cycle, _, beats in served if cycle >= 500]
    assert sum(settled) >= 0.9 * 1500


@pytest.mark.parametrize("before", [0, 4], ids=["asleep", "now and then one packet"])
def test_an_idle_tenant_costs_nothing_and_gains_no_credit(before):
    """Tenant 1 asks for little for 2000 cycles; afterwards it gets its share, not what it left."""
    served = serve([256, 4096], lambda tenant: 1, 2600,
                   lambda cycle: 0b11 if cycle >= 2000 or cycle % 20 < before else 0b01)
    early = shares([entry for entry in served if entry[0] < 2000], 2)
    assert (early[1] == 0) if before == 0 else (0.02 < early[1] < 0.4)
    assert len([entry for entry in served if entry[0] < 2000]) > 600     # three cycles a packet: none lost
    assert shares([entry for entry in served if 2000 <= entry[0] < 2500], 2)[0] == pytest.approx(256 / 4352, abs=0.03)


def test_debt_is_at_most_one_packet():
    """After one large packet the light tenant waits for its share and no longer."""
    served = serve([3000, 1000], lambda tenant: (4, 256)[tenant], 9000)
    starts = [cycle for cycle, tenant, _ in served if tenant == 1]
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    # A packet of 256 at a quarter of the line: every 1024 beats, and a round of slack.
    assert len(gaps) >= 4
    assert all(gap < 1024 * 5 / 4 + 600 for gap in gaps)


def test_a_tenant_without_weight_still_drains():
    served = serve([4096, 0], lambda tenant: 4, 3000)
    assert shares(served, 2)[1] == pytest.approx(1024 / 5120, abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_only_ready_tenants_are_granted(seed):
    rng = random.Random(seed)
    masks = [rng.randrange(16) for _ in range(60)]
    served = serve([100, 200, 300, 400], lambda tenant: rng.choice([1, 4]), 3000,
                   lambda cycle: masks[cycle // 50])
    # A grant stands from its choice on: the mask of the choice is that of at most the packet before.
    for cycle, tenant, _ in served:
        assert any(masks[max(0, cycle - back) // 50] >> tenant & 1 for back in range(0, 9))
    assert {tenant for _, tenant, _ in served} == {0, 1, 2, 3}
