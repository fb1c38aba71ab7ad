"""Engine accounts: charges amount to measured cost, come early, and no more than once."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.engine.accounts import EngineAccounts

TENANTS = 4


class Accounts:
    """The component, and what it charged."""

    def __init__(self, slots=2):
        self.config = DeviceConfig(tenants=TENANTS, slots=slots)
        self.dut = EngineAccounts(self.config)
        self.charges = []  # (cycle, tenant, amount)
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-8)
        self.simulator.add_process(self._watch)

    async def _watch(self, ctx):
        cycle = 0
        async for _, _, charged, tenant, amount in ctx.tick().sample(
                self.dut.charged, self.dut.charge_tenant, self.dut.amount):
            if charged:
                self.charges.append((cycle, tenant, amount))
            cycle += 1

    def total(self, tenant):
        return sum(amount for _, who, amount in self.charges if who == tenant)

    async def assign(self, ctx, tenant, refused=0):
        """Give a request to a slot; returns its price."""
        ctx.set(self.dut.tenant, tenant)
        ctx.set(self.dut.refused, refused)
        ctx.set(self.dut.assigned, 1)
        price = ctx.get(self.dut.price)
        await ctx.tick()
        ctx.set(self.dut.assigned, 0)
        return price

    async def finish(self, ctx, bills):
        """End requests in several slots in one cycle: slot to (tenant, price, cost)."""
        for slot, (tenant, price, cost) in bills.items():
            ctx.set(self.dut.bills[slot], {"tenant": tenant, "price": price, "cost": cost})
        ctx.set(self.dut.finished, sum(1 << slot for slot in bills))
        await ctx.tick()
        ctx.set(self.dut.finished, 0)

    def run(self, bench):
        async def testbench(ctx):
            await bench(ctx)
            await ctx.tick().repeat(40)

        self.simulator.add_testbench(testbench)
        self.simulator.run()


def test_first_request_is_charged_when_it_ends_and_the_next_one_when_it_comes():
    accounts = Accounts()

    async def bench(ctx):
        assert await accounts.assign(ctx, 1) == 0
        await accounts.finish(ctx, {0: (1, 0, 500)})
        await ctx.tick().repeat(10)
        before = len(accounts.charges)
        assert await accounts.assign(ctx, 1) == 500
        await ctx.tick().repeat(3)
        assert [charge[1:] for charge in accounts.charges[before:]] == [(1, 500)], "not charged at once"

    accounts.run(bench)
    assert accounts.total(1) == 1000


def test_a_price_that_was_too_high_is_given_back_at_the_end():
    accounts = Accounts()

    async def bench(ctx):
        await accounts.finish(ctx, {0: (2, 0, 1000)})
        await ctx.tick().repeat(5)
        price = await accounts.assign(ctx, 2)
        await accounts.finish(ctx, {0: (2, price, 100)})
        await ctx.tick().repeat(5)
        assert await accounts.assign(ctx, 2) == 100
        await accounts.finish(ctx, {0: (2, 100, 65535)})

    accounts.run(bench)
    assert [charge[1:] for charge in accounts.charges] == [(2, 1000), (2, 1000), (2, -900), (2, 100), (2, 65435)]


def test_refused_request_costs_nothing():
    accounts = Accounts()

    async def bench(ctx):
        await accounts.finish(ctx, {0: (3, 0, 1000)})
        await ctx.tick().repeat(5)
        await accounts.assign(ctx, 3, refused=1)

    accounts.run(bench)
    assert accounts.total(3) == 1000


@pytest.mark.parametrize("slots", [2, 7])
def test_slots_that_finish_in_one_cycle_are_all_charged(slots):
    accounts = Accounts(slots)

    async def bench(ctx):
        await accounts.finish(ctx, {slot: (slot % TENANTS, 0, 10 + slot) for slot in range(slots)})
        ctx.set(accounts.dut.tenant, 0)
        assert ctx.get(accounts.dut.settled) == 0
        await ctx.tick().repeat(slots + 2)
        assert ctx.get(accounts.dut.settled) == (1 << slots) - 1

    accounts.run(bench)
    for tenant in range(TENANTS):
        assert accounts.total(tenant) == sum(10 + slot for slot in range(tenant, slots, TENANTS))


def test_arrivals_every_cycle_only_delay_what_has_finished():
    accounts = Accounts()

    async def bench(ctx):
        ctx.set(accounts.dut.assigned, 1)
        await ctx.tick()
        await accounts.finish(ctx, {0: (1, 0, 77), 1: (2, 0, 88)})
        await ctx.tick().repeat(20)
        ctx.set(accounts.dut.assigned, 0)
        assert (accounts.total(1), accounts.total(2)) == (0, 0)

    accounts.run(bench)
    assert (accounts.total(1), accounts.total(2)) == (77, 88)


@pytest.mark.parametrize("seed", range(3))
def test_charges_amount_to_cost_for_any_course(seed):
    accounts, rng = Accounts(), random.Random(seed)
    work = [[], []]                      # (tenant, price) that each slot has not finished
    spent = [0] * TENANTS

    async def bench(ctx):
        for _ in range(300):
            slot = rng.randrange(2)
            if len(work[slot]) < 3 and rng.random() < 0.7:
                tenant = rng.randrange(TENANTS)
                work[slot].append((tenant, await accounts.assign(ctx, tenant)))
            bills = {}
            for index in range(2):
                if work[index] and rng.random() < 0.4:
                    tenant, price = work[index].pop(0)
                    cost = rng.choice([1, 30, 2000, 65535])
                    bills[index] = (tenant, price, cost)
                    spent[tenant] += cost
            await accounts.finish(ctx, bills)
        for index in range(2):
            for tenant, price in work[index]:
                await accounts.finish(ctx, {index: (tenant, price, price)})
                spent[tenant] += price

    accounts.run(bench)
    assert [accounts.total(tenant) for tenant in range(TENANTS)] == spent
