"""Holt's method with the best of four gains, in fixed point, bit by bit, at ordinary values and at the limits."""

import itertools
import random

import pytest

from gateware.analyzer.trend import CYCLES, GAINS, Trend
from gateware.config import DeviceConfig
from tests.gateware.analyzer.model import Forecast
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(tenants=3)


def predictions(updates):
    """What the block predicts after each (tenant, value)."""
    dut, answers = Trend(CONFIG), []

    async def bench(ctx):
        for tenant, value in updates:
            ctx.set(dut.tenant, tenant)
            ctx.set(dut.value, value)
            ctx.set(dut.update, 1)
            await ctx.tick()
            ctx.set(dut.update, 0)
            for _ in range(CYCLES - 1):
                assert not ctx.get(dut.done)
                await ctx.tick()
            assert ctx.get(dut.done)
            answers.append(ctx.get(dut.predicted))
            ctx.set(dut.value, 0)
            await ctx.tick()

    simulate(dut, bench)
    return answers


def expected(updates):
    models = [Forecast() for _ in range(CONFIG.tenants)]
    return [models[tenant].predict(value) for tenant, value in updates]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_prediction_equals_the_formula(seed):
    rng = random.Random(seed)
    updates = [(rng.randrange(3), rng.getrandbits(rng.choice([0, 4, 12, 24, 32]))) for _ in range(300)]
    assert predictions(updates) == expected(updates)


@pytest.mark.parametrize("values", [
    [0xFFFFFFFF, 0] * 12, [0] * 8 + [0xFFFFFFFF] * 12 + [0] * 12, list(range(0, 1 << 32, 1 << 28)) * 2])
def test_prediction_is_cut_at_both_limits_and_recovers(values):
    updates = [(1, value) for value in values]
    answers = predictions(updates)
    assert answers == expected(updates)


def test_limits_are_reached():
    falling = expected([(0, 0xFFFFFFFF)] + [(0, 0)] * 10)
    rising = expected([(0, 0)] + [(0, 0xFFFFFFFF)] * 10)
    assert 0 in falling[1:]
    assert 0xFFFFFFFF in rising


def test_ramp_is_followed_ahead():
    updates = [(2, 100_000 + 5_000 * step) for step in range(60)]
    last = predictions(updates)[-1]
    assert abs(last - (100_000 + 5_000 * 60)) < 50, "the forecast is one step ahead of the ramp"


@pytest.mark.parametrize("seed", [1])
def test_noise_is_averaged_and_a_ramp_followed_by_the_pair_that_fits(seed):
    """Each pair of gains is chosen somewhere, and the forecast errs less than both extremes alone."""
    rng = random.Random(seed)
    values = [50_000 + rng.randrange(-20_000, 20_000) for _ in range(120)]
    values += [50_000 + 4_000 * step for step in range(60)] + [290_000] * 40
    model, chosen = Forecast(), set()
    alone, together = [0] * len(GAINS), 0
    for value, following in itertools.pairwise(values):
        forecast = model.predict(value)
        chosen.add(min(range(len(GAINS)), key=lambda number: model.pairs[number].recent))
        together += abs(following - forecast)
        alone = [total + abs(following - pair.ahead()) for total, pair in zip(alone, model.pairs, strict=True)]
    assert predictions([(0, value) for value in values]) == expected([(0, value) for value in values])
    assert len(chosen) >= 3
    assert together < 1.1 * min(alone)
