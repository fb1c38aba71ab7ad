"""Engine rounds: shares of engine time against what weights say, with late bills, several slots, and tenants that come
and go."""

import random
from itertools import pairwise

import pytest

from gateware.config import DeviceConfig
from gateware.engine.rounds import LARGEST, ROUND, EngineRounds
from tests.gateware.fabric.bench import commit, row
from tests.gateware.simulation import simulate

ASK_AHEAD = 40    # cycles before it is idle, a slot asks for its next request
UNDER_WAY = 8     # cycles from the choice of a request to its first charge


class Engines:
    """`slots` engines and the column before them: who may, in turn, as soon as a slot asks.

    A request of `cost(tenant)` cycles is charged `price` (what the tenant's last one cost) when it reaches its slot,
    and the difference when it ends. `served` are (begin, tenant, cost) of all requests.
    """

    def __init__(self, weights, cost, *, slots=1, waiting=lambda cycle: -1, contends=lambda cycle: -1,
                 tenants=None):
        self.config = DeviceConfig(ports=2, tenants=tenants or len(weights), pages=32)
        self.dut = EngineRounds(self.config)
        self.served = []
        self._weights, self._cost, self._slots = weights, cost, slots
        self._waiting, self._contends = waiting, contends
        self._charges, self._prices, self._last = [], [0] * len(weights), 0

    def run(self, cycles):

        async def testbench(ctx):
            rows = [row(self.config, weight=weight) for weight in self._weights]
            await commit(ctx, self.dut.allocation, rows + [row(self.config)] * (self.config.tenants - len(rows)))
            everybody = (1 << len(self._weights)) - 1
            free = [0] * self._slots         # when each slot is idle
            for cycle in range(cycles):
                slot = min(range(self._slots), key=free.__getitem__)
                open_ = free[slot] <= cycle + ASK_AHEAD
                waiting, contends = self._waiting(cycle) & everybody, self._contends(cycle) & everybody
                asking = waiting & contends if open_ else 0
                ctx.set(self.dut.contends, contends)
                ctx.set(self.dut.asking, asking)
                able = waiting & (ctx.get(self.dut.solvent) | ~contends)
                if open_ and able:
                    count = len(self._weights)
                    turns = [(self._last + 1 + step) % count for step in range(count)]
                    tenant = next(candidate for candidate in turns if able >> candidate & 1)
                    self._begin(tenant, max(cycle + UNDER_WAY, free[slot]), cycle)
                    free[slot] = self.served[-1][0] + self.served[-1][2]
                    self._last = tenant
                self._bill(ctx, cycle)
                await ctx.tick()

        simulate(self.dut, testbench)
        return self.served

    def _begin(self, tenant, start, cycle):
        cost, price = self._cost(tenant), self._prices[tenant]
        self.served.append((start, tenant, cost))
        self._charges += [(cycle + UNDER_WAY, tenant, price, None), (start + cost, tenant, cost - price, cost)]
        self._charges.sort(key=lambda charge: charge[0])

    def _bill(self, ctx, cycle):
        due = self._charges and self._charges[0][0] <= cycle
        ctx.set(self.dut.charge, bool(due))
        if due:
            _, tenant, amount, cost = self._charges.pop(0)
            ctx.set(self.dut.tenant, tenant)
            ctx.set(self.dut.amount, amount)
            if cost is not None:
                self._prices[tenant] = cost


def work(served, since, until, count):
    """Engine time of each tenant in [since, until): requests count as far as they lie inside."""
    total = [0] * count
    for begin, tenant, cost in served:
        total[tenant] += max(0, min(begin + cost, until) - max(begin, since))
    return total


def shares(served, count, since, until=1 << 30):
    total = work(served, since, until, count)
    return [one / sum(total) for one in total]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("weights", [[1000] * 4, [1000, 2000, 4000, 1000], [40000, 20000, 4000, 1500], [1, 2, 3, 4]])
@pytest.mark.parametrize("costs", [[20, 20, 20, 20], [640, 20, 80, 640], [20, 640, 640, 20]])
@pytest.mark.parametrize("slots", [1, 2])
def test_shares_of_engine_time_follow_weights_at_any_cost(weights, costs, slots):
    served = Engines(weights, lambda tenant: costs[tenant], slots=slots).run(30_000)
    longest = max(costs) / (26_000 * slots)
    for got, weight in zip(shares(served, 4, 4000), weights, strict=True):
        assert got == pytest.approx(weight / sum(weights), rel=0.03, abs=2 * longest)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1, 1000, 65535])
@pytest.mark.parametrize("cost", [24, 4000])
def test_engines_of_a_sole_tenant_are_never_idle_for_long(weight, cost):
    served = Engines([weight, 7, 65535], lambda tenant: cost, slots=2, waiting=lambda cycle: 0b001).run(24_000)
    assert work(served, 2000, 22_000, 3)[0] >= 0.97 * 2 * 20_000


@pytest.mark.slow
def test_engines_are_never_idle_for_long_when_requests_cost_many_rounds():
    served = Engines([300, 500, 200], lambda tenant: 8 * ROUND).run(100_000)
    assert sum(work(served, 20_000, 100_000, 3)) >= 0.98 * 80_000


@pytest.mark.slow
def test_equal_tenants_take_turns_request_by_request():
    served = [tenant for begin, tenant, _ in Engines([1000] * 4, lambda tenant: 200).run(12_000) if begin > 4000]
    for start in range(0, len(served) - 4, 4):
        assert sorted(served[start:start + 4]) == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("away", [0b00, 0b01], ids=["from the start", "in turns"])
def test_a_tenant_that_was_away_gets_its_share_at_once_and_no_more(away):
    """Tenant 1 asks for nothing, or every other 100 cycles, until 15000."""
    served = Engines([1000, 1000], lambda tenant: 100, waiting=lambda cycle: (
        0b11 if cycle >= 15_000 or (away and cycle // 100 % 2) else 0b01)).run(19_000)
    assert shares(served, 2, 15_200, 16_200) == pytest.approx([0.5, 0.5], abs=0.11)
    assert shares(served, 2, 15_200, 18_200) == pytest.approx([0.5, 0.5], abs=0.04)


@pytest.mark.slow
def test_debt_of_a_tenant_that_went_away_expires_while_others_are_served():
    """Tenant 0 leaves with a debt of one long request; after the others got as much it starts anew."""
    costs = {0: 4000, 1: 50, 2: 50}
    served = Engines([1000] * 3, costs.__getitem__, waiting=lambda cycle: (
        0b111 if cycle < 300 or cycle >= 14_000 else 0b110)).run(16_000)
    assert [tenant for begin, tenant, _ in served if begin < 300].count(0) >= 1
    back = [begin for begin, tenant, _ in served if tenant == 0 and begin >= 13_900]
    assert back
    assert back[0] < 14_000 + ROUND


@pytest.mark.slow
def test_newcomers_to_an_engine_that_one_tenant_had_alone_wait_at_most_for_a_round():
    """The tenant that was alone is in debt for what is under way; its rounds must not have grown."""
    served = Engines([1000] * 4, lambda tenant: (2000, 30, 30, 2000)[tenant], slots=2, waiting=lambda cycle: (
        0b1111 if cycle >= 20_000 else 0b0001)).run(60_000)
    for tenant in (1, 2):
        begins = [begin for begin, who, _ in served if who == tenant]
        assert begins[0] < 20_000 + 2000 + ROUND
        assert max(later - earlier for earlier, later in pairwise(begins)) < 4000 + LARGEST
    assert shares(served, 4, 24_000, 60_000) == pytest.approx([0.25] * 4, abs=2 * 2000 / 72_000)


@pytest.mark.slow
def test_a_tenant_without_weight_still_drains():
    served = Engines([4096, 0], lambda tenant: 40).run(16_000)
    assert shares(served, 2, 2000)[1] == pytest.approx(1024 / 5120, abs=0.03)


@pytest.mark.slow
def test_a_tenant_with_slots_of_its_own_neither_pays_nor_is_paid():
    """Tenant 0 does not contend: it goes whenever it can, and the others share what is left by their weights."""
    served = Engines([9000, 1000, 3000], lambda tenant: 40, contends=lambda cycle: 0b110,
                     waiting=lambda cycle: 0b111 if cycle // 50 % 2 else 0b110).run(24_000)
    others = [entry for entry in served if entry[1]]
    assert shares(others, 3, 2000)[1:] == pytest.approx([0.25, 0.75], abs=0.03)
    assert shares(served, 3, 2000)[0] > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_shares_hold_for_random_costs_and_comings_and_goings(seed):
    rng = random.Random(seed)
    weights = [1000, 4000, 2000, 500]
    masks = [rng.randrange(4) << 2 | 0b11 for _ in range(200)]
    served = Engines(weights, lambda tenant: rng.choice([16, 60, 300]), slots=2,
                     waiting=lambda cycle: masks[cycle // 300 % 200]).run(40_000)
    got = shares([entry for entry in served if entry[1] < 2], 2, 4000)
    assert got == pytest.approx([0.2, 0.8], abs=0.02), f"seed {seed}"


@pytest.mark.slow
def test_a_tenant_that_gives_up_its_slots_shares_those_of_others_at_once_and_owes_nothing():
    """Tenant 0 had all that it asked for while it did not contend."""
    served = Engines([1000, 1000], lambda tenant: 60, slots=2, contends=lambda cycle: 0b11 if cycle >= 8000 else 0b10,
                     waiting=lambda cycle: 0b11 if cycle >= 1000 else 0b01).run(13_000)
    assert shares(served, 2, 8000 + 2 * ROUND, 12_800) == pytest.approx([0.5, 0.5], abs=0.04)


@pytest.mark.slow
def test_weights_hold_again_soon_after_one_of_small_weight_was_alone():
    """Its weight was scaled up to fill rounds; scaled so, the other's is more than an account holds."""
    served = Engines([10, 1000], lambda tenant: 20, waiting=lambda cycle: 0b11 if cycle >= 5000 else 0b01).run(20_000)
    assert shares(served, 2, 9500, 20_000)[0] == pytest.approx(10 / 1010, abs=0.008)
