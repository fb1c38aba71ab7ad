"""The stream detector at a request a cycle, against a list of sectors kept most recent first."""

import random
from collections import defaultdict

import pytest
from amaranth.sim import Simulator

from gateware.analyzer.pattern import StreamDetector
from gateware.config import DeviceConfig
from tests.gateware.analyzer.model import Streams

CONFIG = DeviceConfig(tenants=3)


def verdicts(requests):
    """Answer for each (tenant, sector); None is a cycle without a request."""
    dut, answers = StreamDetector(CONFIG), []
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

    async def bench(ctx):
        for request in requests:
            ctx.set(dut.valid, request is not None)
            if request:
                ctx.set(dut.tenant, request[0])
                ctx.set(dut.sector, request[1])
            await ctx.tick()
            answers.append(ctx.get(dut.sequential))

    simulator.add_testbench(bench)
    simulator.run()
    return answers


def expected(requests):
    streams = defaultdict(Streams)
    return [int(request is not None and streams[request[0]].sequential(request[1])) for request in requests]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("streams", [1, 4, 6])
def test_verdicts_equal_the_model_with_requests_in_every_cycle(seed, streams):
    rng = random.Random(seed)
    sectors = {(tenant, stream): rng.getrandbits(36) for tenant in range(3) for stream in range(streams)}
    requests = []
    for _ in range(400):
        if rng.random() < 0.1:
            requests.append(None)
            continue
        key = rng.choice(list(sectors))
        step = rng.choice([1, 8, 8, 255, 256, 257, 0, -1, -8, 1 << 20])
        sectors[key] = (sectors[key] + step) % (1 << 36)
        requests.append((key[0], sectors[key]))
    assert verdicts(requests) == expected(requests)


def test_four_interleaved_streams_are_all_sequential():
    requests = [(0, 1_000_000 * stream + 8 * step) for step in range(50) for stream in range(4)]
    assert verdicts(requests) == [0] * 4 + [1] * 196


def test_fifth_stream_pushes_the_oldest_out():
    starts = [(0, 1_000_000 * stream) for stream in range(5)]
    again = [(0, 1_000_000 * stream + 8) for stream in (4, 3, 2, 1, 0)]
    assert verdicts(starts + again) == [0] * 5 + [1, 1, 1, 1, 0]


@pytest.mark.parametrize(("step", "sequential"), [(0, 0), (1, 1), (256, 1), (257, 0), (-1, 0), (-256, 0)])
def test_reach_of_a_stream_is_1_to_256_sectors_ahead(step, sequential):
    assert verdicts([(1, 5000), (1, 5000 + step)]) == [0, sequential]


def test_a_table_that_was_never_used_matches_nothing():
    assert verdicts([(2, 1), (2, 100)]) == [0, 1]
    assert verdicts([(2, 256)]) == [0]
