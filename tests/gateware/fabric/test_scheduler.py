"""Surplus round robin: shares, work conservation, debt, draining."""

import random
from itertools import pairwise

import pytest

from gateware.config import DeviceConfig
from gateware.fabric.scheduler import CALM, ROUND, Scheduler
from tests.gateware.fabric.bench import commit, row
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=2, tenants=4, pages=32)


def serve(weights, cost, cycles, backlogged=None, delay=0):
    """Serves tenants for `cycles`; `cost(t)` are the beats of the next packet, one beat a cycle.

    `backlogged(cycle)` gives the tenants with packets (default: all with a weight). The bill comes `delay` cycles after
    the packet. Returns [(cycle, tenant, beats)].
    """
    dut = Scheduler(CONFIG)
    served = []
    everybody = (1 << len(weights)) - 1

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=weight) for weight in weights])
        until, bills = 0, []
        for cycle in range(cycles):
            ready = backlogged(cycle) if backlogged else everybody
            ctx.set(dut.ready, ready)
            ctx.set(dut.again, ready)
            due = bills.pop(0)[1:] if bills and bills[0][0] <= cycle else None
            ctx.set(dut.charge, due is not None)
            if due is not None:
                ctx.set(dut.tenant, due[0])
                ctx.set(dut.cost, due[1])
            ctx.set(dut.grant.ready, cycle >= until)
            if cycle >= until and ctx.get(dut.grant.valid):
                mask, tenant = ctx.get(dut.grant.payload.mask), ctx.get(dut.grant.payload.tenant)
                assert mask == 1 << tenant
                beats = cost(tenant)
                until = cycle + beats
                bills.append((cycle + 1 + delay, tenant, beats))
                served.append((cycle, tenant, beats))
            await ctx.tick()

    simulate(dut, testbench)
    return served


def shares(served, count, since=0):
    total = [0] * count
    for cycle, tenant, beats in served:
        if cycle >= since:
            total[tenant] += beats
    return [beats / sum(total) for beats in total]


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1, 100, 4096, 65535])
@pytest.mark.parametrize("tenants", [1, 3])
def test_scheduler_leaves_no_gap_in_large_packets_whatever_the_weights(weight, tenants):
    served = serve([weight] * tenants, lambda tenant: 16, 2000)
    settled = [beats for cycle, _, beats in served if cycle >= 500]
    assert sum(settled) >= 0.99 * 1500


@pytest.mark.parametrize("before", [0, 4], ids=["asleep", "now and then one packet"])
def test_an_idle_tenant_costs_nothing_and_gains_no_credit(before):
    """Tenant 1 asks for little for 2000 cycles; afterwards it gets its share, not what it left."""
    served = serve([256, 4096], lambda tenant: 1, 2600,
                   lambda cycle: 0b11 if cycle >= 2000 or cycle % 20 < before else 0b01)
    early = shares([entry for entry in served if entry[0] < 2000], 2)
    assert (early[1] == 0) if before == 0 else (0.02 < early[1] < 0.4)
    assert len([entry for entry in served if entry[0] < 2000]) > 0.98 * 2000     # a packet a cycle: none lost
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_only_ready_tenants_are_granted(seed):
    rng = random.Random(seed)
    masks = [rng.randrange(16) for _ in range(60)]
    served = serve([100, 200, 300, 400], lambda tenant: rng.choice([1, 4]), 3000,
                   lambda cycle: masks[cycle // 50])
    # A grant stands from its choice on, and one is waiting behind it: the mask of the choice is that of a cycle not
    # longer ago than two packets take, and the way of the grant.
    for cycle, tenant, _ in served:
        assert any(masks[max(0, cycle - back) // 50] >> tenant & 1 for back in range(0, 12))
    assert {tenant for _, tenant, _ in served} == {0, 1, 2, 3}


@pytest.mark.parametrize("weights", [[4096] * 4, [20000, 40000, 1000, 500]])
def test_one_beat_packets_are_granted_in_every_cycle(weights):
    served = serve(weights, lambda tenant: 1, 3000)
    assert len([entry for entry in served if entry[0] >= 500]) >= 0.99 * 2500


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 5, 40])
def test_late_bills_change_no_shares(delay):
    served = serve([3000, 1000, 2000], lambda tenant: (1, 16, 4)[tenant], 12000, delay=delay)
    for share, expected in zip(shares(served, 3, since=2000), (1 / 2, 1 / 6, 1 / 3), strict=True):
        assert share == pytest.approx(expected, rel=0.05)


def test_a_tenant_with_an_open_grant_waits_for_its_bill_unless_it_may_be_granted_again():
    dut = Scheduler(CONFIG)
    taken = []

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=100)] * 4)
        ctx.set(dut.grant.ready, 1)
        for ready, again, open_, expected in [(0b11, 0, 0b01, {1}), (0b11, 0b01, 0b01, {0, 1}), (0b10, 0, 0b10, set()),
                                              (0b110, 0, 0, {1, 2})]:
            ctx.set(dut.ready, 0)
            await ctx.tick().repeat(4)
            ctx.set(dut.again, again)
            ctx.set(dut.open, open_)
            await ctx.tick()
            ctx.set(dut.ready, ready)
            seen = []
            for _ in range(8):
                await ctx.tick()
                if ctx.get(dut.grant.valid):
                    seen.append(ctx.get(dut.grant.payload.tenant))
            taken.append((set(seen), expected))
            # Without `again` never twice in a row: the grant is queued for a cycle.
            assert all(now != then or again >> now & 1 for now, then in pairwise(seen) if len(expected) > 1)

    simulate(dut, testbench)
    for seen, expected in taken:
        assert seen == expected


def test_a_tenant_without_several_packets_has_one_grant_at_a_time_that_is_not_taken():
    dut = Scheduler(CONFIG)

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=100)] * 4)
        ctx.set(dut.again, 0b1111)
        ctx.set(dut.several, 0b0100)
        for ready, waiting in [(0b0010, 1), (0b0100, 2), (0b0011, 2)]:
            ctx.set(dut.ready, ready)
            chosen = []
            for _ in range(8):
                if ctx.get(dut.granted):
                    chosen.append(ready)
                await ctx.tick()
            assert len(chosen) == waiting, f"ready {ready:04b}"
            # Who has been taken may be granted anew.
            ctx.set(dut.ready, 0)
            ctx.set(dut.grant.ready, 1)
            await ctx.tick().repeat(4)
            ctx.set(dut.grant.ready, 0)

    simulate(dut, testbench)


@pytest.mark.parametrize("several", [False, True])
def test_one_beat_packets_of_a_solvent_tenant_leave_no_gap_while_another_waits_for_the_next_round(several):
    """Tenant 1 always has one packet, or several; tenant 0 has many, and spends its account before a round is over."""
    dut = Scheduler(CONFIG)

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=9000), row(CONFIG, weight=1000)] + [row(CONFIG)] * 2)
        ctx.set(dut.again, 0b1111)
        ctx.set(dut.several, 0b11 if several else 0b01)
        ctx.set(dut.ready, 0b11)
        ctx.set(dut.grant.ready, 1)
        taken = []
        for _ in range(3000):
            valid, tenant = ctx.get(dut.grant.valid), ctx.get(dut.grant.payload.tenant)
            taken.append(tenant if valid else None)
            ctx.set(dut.charge, valid)
            ctx.set(dut.tenant, tenant)
            ctx.set(dut.cost, 1)
            await ctx.tick()
        late = taken[1000:]
        assert late.count(None) <= 0.01 * len(late)
        if several:
            assert late.count(1) == pytest.approx(0.1 * len(late), rel=0.02)

    simulate(dut, testbench)


@pytest.mark.parametrize("weight", [1, 3, 5, 7])
def test_no_round_begins_while_somebody_who_is_ready_is_solvent(weight):
    """Also not when an account was filled in the very cycle before: two tenants in debt, one of which is gone."""
    dut = Scheduler(CONFIG)
    rng = random.Random(weight)
    rounds = []

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=weight)] * 4)
        before, coming, bills = 0, 0, []
        for cycle in range(2000):
            ready = 0b1001 if cycle % 400 < 40 else 0b1000
            ctx.set(dut.ready, ready)
            ctx.set(dut.again, 0b1111)
            due = bills.pop(0) if bills and cycle % 8 == 0 else None
            ctx.set(dut.charge, due is not None)
            if due is not None:
                ctx.set(dut.tenant, due)
                ctx.set(dut.cost, rng.choice([200, 256]))
            ctx.set(dut.grant.ready, len(bills) < 4)
            if len(bills) < 4 and ctx.get(dut.grant.valid):
                bills.append(ctx.get(dut.grant.payload.tenant))
            solvent = ctx.get(dut.solvent)
            await ctx.tick()
            if ctx.get(dut.coming) and not coming:
                rounds.append((cycle, before & solvent))
            before, coming = ready, ctx.get(dut.coming)

    simulate(dut, testbench)
    assert len(rounds) > 10
    assert not [entry for entry in rounds if entry[1]]


@pytest.mark.slow
def test_rounds_that_large_packets_made_long_are_short_again_when_they_are_gone():
    dut = Scheduler(CONFIG)
    scales = []

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=4096)] * 4)
        ctx.set(dut.ready, 0b1111)
        ctx.set(dut.again, 0b1111)
        ctx.set(dut.grant.ready, 1)
        for cycle in range(1000 + 3 * CALM):
            # What is taken is charged at once: four packets of 256 beats in a row, later one beat a cycle.
            valid = ctx.get(dut.grant.valid)
            ctx.set(dut.charge, valid)
            ctx.set(dut.tenant, ctx.get(dut.grant.payload.tenant))
            ctx.set(dut.cost, 256 if cycle < 200 else 1)
            scales.append(ctx.get(dut.scale))
            await ctx.tick()

    simulate(dut, testbench)
    assert max(scales[:1000]) >= 2
    assert scales[-1] == 0


def expected_scales(events, limit):
    """What the scale should be in each cycle: up by one when a round was in vain, down when one was long or too coarse,
    or none was in vain for a while.

    A round is in vain when nobody was granted in it, or when it could not end at once. A grant made when nobody who is
    ready is solvent belongs to the next round.
    """
    scale, grants, early, stuck, wanted, long, spent, relax, calm = 0, 0, 0, False, False, False, 0, False, 0
    for event in events:
        yield scale
        swap, starving, granted = event["swap"], event["starving"], event["granted"]
        vain = swap and (not grants or stuck)
        if event["too_coarse"] or long or relax:
            scale -= scale > 0
        elif vain:
            scale += scale < limit
        relax, relaxed = calm >= CALM and not relax, relax
        calm = 0 if vain or relaxed else calm + event["cost"]
        long, ended = spent >= 2 * ROUND and not long, long
        spent = 0 if swap or ended else spent + event["cost"]
        if swap:
            grants, stuck = early, False
        else:
            stuck |= wanted
        grants += granted
        early = granted and starving
        wanted = starving and not swap


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("weights", "costs"), [
    ([1, 2, 3, 4], (1, 4, 16, 256)), ([1000, 40, 4000, 7], (1, 4, 16, 256)), ([3, 3, 65000, 3], (1, 4, 16, 256)),
    ([2048] * 4, (16,)),   # a packet a round, often granted before the round begins
])
def test_rounds_are_adapted_in_the_very_cycle_in_which_they_end(weights, costs, seed):
    rng = random.Random(f"{weights} {seed}")
    dut = Scheduler(CONFIG)
    events, scales = [], []

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=weight) for weight in weights])
        ctx.set(dut.again, 0b1111)
        until, bills = 0, []
        for cycle in range(1500):
            if cycle % 50 == 0:
                ctx.set(dut.ready, rng.choice([0b1111, 0b1111, 0b0011, 0b1000, 0]))
            bill = bills.pop(0) if bills and rng.random() < 0.7 else None
            ctx.set(dut.charge, bill is not None)
            if bill is not None:
                ctx.set(dut.tenant, bill[0])
                ctx.set(dut.cost, bill[1])
            taken = cycle >= until and len(bills) < 4
            ctx.set(dut.grant.ready, taken)
            if taken and ctx.get(dut.grant.valid):
                bills.append((ctx.get(dut.grant.payload.tenant), rng.choice(costs)))
                until = cycle + rng.choice([1, 1, bills[-1][1]])
            events.append({name: ctx.get(getattr(dut, name)) for name in ("swap", "starving", "granted", "too_coarse")}
                          | {"cost": bill[1] if bill else 0})
            scales.append(ctx.get(dut.scale))
            await ctx.tick()

    simulate(dut, testbench)
    assert scales == list(expected_scales(events, len(dut.reaching) - 1)), f"seed {seed}"
    assert len(set(scales)) >= 2


def test_tenants_that_wait_for_each_bill_are_granted_in_turn_one_a_cycle():
    """Each has one grant at a time, and is free again when that has been taken: nobody else's grant holds it up."""
    dut, got = Scheduler(CONFIG), []

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=4096)] * 4)
        ctx.set(dut.ready, 0b1111)
        ctx.set(dut.grant.ready, 1)
        for cycle in range(60):
            _, _, valid, tenant = await ctx.tick().sample(dut.grant.valid, dut.grant.payload.tenant)
            if cycle >= 20:
                got.append(tenant if valid else None)

    simulate(dut, testbench)
    first = got[0]
    assert got == [(first + number) % 4 for number in range(40)]


@pytest.mark.parametrize("seed", range(2))
def test_each_packet_that_is_granted_is_offered_once_and_two_wait_at_most(seed):
    """Whatever is ready, open or may be granted again, and however slowly grants are taken."""
    rng = random.Random(seed)
    dut = Scheduler(CONFIG)
    granted, offered, taken = [], [], []

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=4096)] * 4)
        ready = 0
        for cycle in range(1500):
            if rng.random() < 0.2:
                ready = rng.randrange(16)
            for name, value in (("ready", ready), ("again", rng.randrange(16)), ("enable", rng.random() < 0.9)):
                ctx.set(getattr(dut, name), value)
            ctx.set(dut.grant.ready, rng.random() < (0.8 if cycle // 200 % 2 else 0.1))
            _, _, enable, chosen, valid, accepted, mask, tenant = await ctx.tick().sample(
                dut.enable, dut.granted, dut.grant.valid, dut.grant.ready, dut.grant.payload.mask,
                dut.grant.payload.tenant)
            assert enable or not chosen
            if chosen:
                granted.append((cycle, ready))
            if valid:
                assert mask == 1 << tenant
                if len(offered) == len(taken):
                    offered.append(cycle)
                    chosen_at, choices = granted[len(taken)]
                    assert cycle >= chosen_at + 2
                    assert choices >> tenant & 1
                if accepted:
                    taken.append(tenant)
            assert len(granted) - len(taken) <= 2
        assert len(granted) - len(taken) <= 2
        assert set(taken) == {0, 1, 2, 3}

    simulate(dut, testbench)
