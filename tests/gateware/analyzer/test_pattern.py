"""The stream detector at its full rate, against a list of the last twelve requests."""

import random
from collections import defaultdict

import pytest

from gateware.analyzer.pattern import HORIZON, Access, StreamDetector
from gateware.config import DeviceConfig
from tests.gateware.analyzer.model import Streams
from tests.gateware.simulation import simulate

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

CONFIG = DeviceConfig(tenants=3)
NAMES = {Access.RANDOM: "random", Access.SEQUENTIAL: "sequential", Access.STRIDED: "strided"}
S, T, R = "sequential", "strided", "random"


def verdicts(requests, *, idle=lambda: False):
    """Answer for each (tenant, sector), offered as soon as the detector is ready but for `idle` cycles."""
    dut, answers = StreamDetector(CONFIG), []

    async def drive(ctx):
        for tenant, sector in requests:
            while idle():
                await ctx.tick()
            ctx.set(dut.valid, 1)
            ctx.set(dut.tenant, tenant)
            ctx.set(dut.sector, sector)
            await ctx.tick().until(dut.ready)
            ctx.set(dut.valid, 0)
            ctx.set(dut.tenant, 0)
            ctx.set(dut.sector, 0)
        await ctx.tick().repeat(3)

    async def listen(ctx):
        async for _, _, done, kind in ctx.tick().sample(dut.done, dut.kind):
            if done:
                answers.append(NAMES[kind])

    simulate(dut, drive, background=[listen])
    return answers


def expected(requests):
    streams = defaultdict(Streams)
    return [streams[tenant].classify(sector) for tenant, sector in requests]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("streams", [1, 4, 9])
def test_verdicts_equal_the_model_at_the_full_rate(seed, streams):
    rng = random.Random(seed)
    sectors = {(tenant, stream): rng.getrandbits(36) for tenant in range(3) for stream in range(streams)}
    steps = {key: rng.choice([[1, 8, 255, 256], [257, 1000], [-1, -8], [1000], [-16384], [16383], [-64, 8], [0, 8]])
             for key in sectors}
    requests = []
    for _ in range(500):
        key = rng.choice(list(sectors))
        step = rng.choice([*steps[key], *steps[key], *steps[key], 1 << 20, 257, -16385])
        sectors[key] = (sectors[key] + step) % (1 << 36)
        requests.append((key[0], sectors[key]))
    found = verdicts(requests, idle=lambda: rng.random() < 0.1)
    assert found == expected(requests)
    assert set(found) == {S, T, R}, "the stimulus misses a case"


@pytest.mark.parametrize("seed", [3])
def test_requests_of_one_tenant_within_a_small_area_equal_the_model(seed):
    """Many places match at once: the newest must be chosen."""
    rng = random.Random(seed)
    requests = [(1, 5000 + 8 * rng.randrange(2000)) for _ in range(600)]
    found = verdicts(requests)
    assert found == expected(requests)
    assert set(found) == {S, T, R}


@pytest.mark.parametrize("step", [8, 1000, -64, 16383, -16384])
def test_four_interleaved_streams_are_all_found(step):
    requests = [(0, 1_000_000 * stream + 20_000 + step * number) for number in range(30) for stream in range(4)]
    first = [R] * 4 if step == 8 else [R] * 8
    assert verdicts(requests) == first + [S if step == 8 else T] * (120 - len(first))


@pytest.mark.parametrize(("others", "kind"), [(HORIZON - 1, S), (HORIZON, R)])
def test_stream_is_remembered_for_as_many_requests_as_the_horizon(others, kind):
    requests = [(0, 100), *((0, 10**7 + 10**6 * number) for number in range(others)), (0, 108)]
    assert verdicts(requests)[-1] == kind


def test_other_tenants_requests_do_not_age_a_stream():
    requests = [(0, 100), *((1, 10**7 + 10**6 * number) for number in range(40)), (0, 108)]
    assert verdicts(requests)[-1] == S


@pytest.mark.parametrize(("step", "kind"), [(0, R), (1, S), (256, S), (257, R), (-1, R), (-256, R)])
def test_reach_of_a_stream_is_1_to_256_sectors_ahead(step, kind):
    assert verdicts([(1, 5000), (1, 5000 + step)]) == [R, kind]


@pytest.mark.parametrize(("step", "kind"), [(257, T), (-1, T), (16383, T), (16384, R), (-16384, T), (-16385, R)])
def test_stride_lies_within_its_span(step, kind):
    assert verdicts([(1, 90_000), (1, 90_000 + step), (1, 90_000 + 2 * step)]) == [R, R, kind]


def test_a_request_is_continued_once():
    assert verdicts([(1, 5000), (1, 5008), (1, 5004), (1, 5012), (1, 5013)]) == [R, S, R, S, S]
    assert verdicts([(1, 5000), (1, 5200), (1, 5100)]) == [R, S, R]


def test_a_table_that_was_never_used_matches_nothing():
    assert verdicts([(2, 1), (2, 100)]) == [R, S]
    assert verdicts([(2, 256)]) == [R]


def test_state_of_a_tenant_is_at_most_64_bytes():
    dut = StreamDetector(CONFIG)
    assert dut.state_bytes <= 64
    assert dut.state_bytes * 8 == 504
