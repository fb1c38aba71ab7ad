"""The scheduler's accounts: whose turn it is, to the last bit, against a model of one grant after another."""

import random

import pytest

from gateware.config import DeviceConfig
from gateware.fabric.scheduler import CALM, ROUND, Scheduler
from tests.gateware.fabric.bench import commit, row
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=2, tenants=4, pages=32)


class Accounts:
    """What one grant after another should be when each is asked for in turn and nothing else happens meanwhile.

    In 1/128 of a unit. An account is filled at a round if it holds nothing. `ahead`: it would hold something after
    the next round, as far as was known when it changed last; such a tenant is granted before that round has come.
    """

    LIMIT = 2 * ROUND << 7

    def __init__(self, weights):
        self.weights = [weight or 1024 for weight in weights]
        self.held, self.solvent, self.ahead = [0] * 4, [True] * 4, [True] * 4
        self.scale, self.spent, self.calm, self.idle, self.late, self.newest = 0, 0, 0, False, False, 3

    def change(self, tenant, amount, worth):
        self.held[tenant] += amount
        self.solvent[tenant], self.ahead[tenant] = self.held[tenant] > 0, self.held[tenant] + worth > 0

    def charge(self, tenant, cost):
        self.change(tenant, -(cost << 7), min(self.weights[tenant] << self.scale, self.LIMIT))
        self.spent, self.calm = self.spent + cost, self.calm + cost
        long, calm = self.spent >= 2 * ROUND, self.calm >= CALM
        if long or calm:
            self.scale = max(self.scale - 1, 0)
        self.spent, self.calm = 0 if long else self.spent, 0 if calm else self.calm

    def round(self):
        if self.idle or self.late:
            self.scale, self.calm = min(self.scale + 1, 17), 0
        self.spent, scales = 0, [self.scale] * 3   # a filling that is too coarse is known three fillings later
        empty = [tenant for tenant in range(4) if not self.solvent[tenant]]
        self.solvent = [now or soon for now, soon in zip(self.solvent, self.ahead, strict=True)]
        for tenant in empty:
            exact = self.weights[tenant] << scales.pop(0)
            self.change(tenant, min(exact, self.LIMIT), min(exact, self.LIMIT))
            self.scale = max(self.scale - (exact > self.LIMIT), 0)
            scales.append(self.scale)

    def grant(self, ready):
        """The tenant that is granted, of those in the list `ready`."""
        able = [tenant for tenant in ready if self.solvent[tenant]]
        if able:
            self.newest = min(able, key=lambda tenant: (tenant - self.newest - 1) % 4)
            self.idle = False
            return self.newest
        soon = [tenant for tenant in ready if self.ahead[tenant]]
        self.round()
        self.idle, self.late = not soon, not soon
        if soon:
            self.newest = soon[0]
            return self.newest
        able = [tenant for tenant in ready if self.solvent[tenant]]
        if not able:
            return self.grant(ready)
        self.newest, self.idle = able[0], False   # accounts are filled in order: the first that is, is granted
        return self.newest


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "costs"), [
    ([32, 32, 32, 32], (1, 4, 16, 64, 256)), ([1, 2, 3, 4], (1, 1, 2, 4, 16, 64, 256)),
    ([1000, 40, 0, 7], (1, 1, 2, 4, 16, 64, 256)), ([2049, 4098, 1, 3], (1, 4, 16, 256)),
    ([128, 256, 384, 128], (1, 2, 3)),   # accounts come to exactly nothing
    ([131, 393, 657, 261], (1, 2, 3)),   # rounds stay short: accounts differ in their lowest bits
])
def test_grants_are_those_of_exact_accounts(weights, costs):
    """Whose turn it is, to an account's last bit, when what was granted before has been charged or still waits."""
    rng = random.Random(str(weights))
    dut, model = Scheduler(CONFIG), Accounts(weights)

    async def testbench(ctx):
        ctx.set(dut.enable, 0)
        await commit(ctx, dut.allocation, [row(CONFIG, weight=weight) for weight in weights])
        ctx.set(dut.again, 0b1111)
        ctx.set(dut.grant.ready, 1)
        bills = []
        for number in range(400):
            ready = rng.choice([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1], [2, 3], [rng.randrange(4)]])
            ctx.set(dut.ready, sum(1 << tenant for tenant in ready))
            ctx.set(dut.enable, 1)
            while not ctx.get(dut.granted):
                await ctx.tick()
            await ctx.tick()
            ctx.set(dut.enable, 0)
            ctx.set(dut.ready, 0)
            await ctx.tick().until(dut.grant.valid)
            got = ctx.get(dut.grant.payload.tenant)
            assert got == model.grant(ready), f"grant {number}"
            bills.append((got, rng.choice(costs)))
            await ctx.tick().repeat(12)
            if len(bills) > 12 or rng.random() < 0.5:
                for tenant, cost in bills:
                    ctx.set(dut.charge, 1)
                    ctx.set(dut.tenant, tenant)
                    ctx.set(dut.cost, cost)
                    model.charge(tenant, cost)
                    await ctx.tick()
                    ctx.set(dut.charge, 0)
                    await ctx.tick().repeat(8)
                bills.clear()

    simulate(dut, testbench)
