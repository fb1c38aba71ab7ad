"""The fabric in the C++ rig: long runs that Amaranth's simulator is too slow for. Every beat is checked there."""

import random

import numpy as np
import pytest

from gateware.config import DeviceConfig
from sim.rig import ANY, Flow, Rig, Row

pytestmark = pytest.mark.slow  # builds a model once

CONFIG = DeviceConfig(ports=3, data_width=32, tenants=4, pages=32)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1,), (1, 4, 16), (1, 256), (7, 9)])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_saturated_inputs_and_full_buffers_lose_and_mix_up_nothing(sizes, seed):
    """Tables change, sinks stall and return, pages run out; what is admitted comes out once, in order, unchanged."""
    rng = random.Random(f"{sizes} {seed}")
    with Rig(CONFIG, seed=seed + 1) as rig:
        rig.commit([Row(pages=4)] * 4)
        rig.offer(*(Flow(port, ANY, ANY, sizes) for port in range(3)))
        for _ in range(60):
            for output in range(3):
                rig.sink(output, every=rng.choice([1, 1, 2, 7]), stuck=rng.random() < 0.1)
            rig.run(rng.randrange(1, 600))
            if rng.random() < 0.5:
                cuts = sorted(rng.randrange(33) for _ in range(4))
                pages = [cuts[0], *np.diff(cuts)]
                rig.commit([Row(weight=rng.choice([1, 100, 4096, 0]), pages=int(count)) for count in pages])
        for output in range(3):
            rig.sink(output)
        # Nobody may be left without weight and with packets behind a header that waits.
        rig.commit([Row(pages=8)] * 4)
        rig.drain()
        assert rig.admitted * np.mean(sizes) > 20_000   # beats: a third of what the inputs could have brought
        assert rig.faults == 0
        # Every page has come home: each tenant finds its own again.
        rig.run(100)
        for tenant in range(4):
            rig.sink(1, stuck=True)
            rig.offer(Flow(0, tenant, 1, (16,), window=8 * 16))
        rig.run(2000)
        assert rig.inside >= 4 * 8
        rig.sink(1)
        rig.drain()
        assert rig.faults == 0


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "seed", "most"), [
    ((1,), 1, 284), ((4,), 1, 0), ((16,), 1, 0), ((1, 4, 16), 1, 107),
    *(pytest.param(*case, marks=pytest.mark.long) for case in (((1,), 2, 257), ((1, 4, 16), 2, 119))),
])
def test_a_permutation_leaves_no_more_beats_idle_than_before(sizes, seed, most):
    """Every input sends to an output of its own. Of 40,000 beats, `most` were missing when this was written: a tenant's
    only packet is granted twice while the first grant is on its way. Who loses fewer lowers the figures.
    """
    config = DeviceConfig(ports=2, tenants=4, pages=32)
    with Rig(config, seed=seed) as rig:
        rig.commit([Row(weight=1000, pages=8)] * 4)
        rig.offer(*(Flow(port, ANY, 1 - port, sizes) for port in range(2)))
        rig.run(4000)
        rig.run(-rig.cycle % 1000)   # windows end at multiples of their length
        rig.sample(1000)
        rig.run(20_000)
        idle = 2 * 20_000 - int(rig.samples()[0].sum())
        rig.drain()
        assert rig.faults == 0
        assert idle <= most


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1,), (4,), (1, 4, 16)])
def test_random_traffic_reaches_line_rate(sizes):
    config = DeviceConfig(ports=2, tenants=4, pages=32)
    with Rig(config) as rig:
        rig.commit([Row(weight=1000, pages=2)] * 4)
        rig.offer(*(Flow(port, ANY, ANY, sizes) for port in range(2)))
        rig.run(3000)
        rig.sample(0)
        rig.run(20_000)
        assert rig.records()["beats"].sum() >= 0.95 * 2 * 20_000
        rig.drain()
        assert rig.faults == 0
