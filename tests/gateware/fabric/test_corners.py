"""The corners of the parameter space: each elaborates, and passes traffic of every tenant to every port."""

import random

import pytest

from gateware.config import DeviceConfig
from gateware.fabric.fabric import Fabric
from tests.gateware.fabric.bench import Bench, Packet, open_rows
from tests.gateware.fabric.test_fabric import check_all_delivered

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("ports", "width", "tenants", "pages"), [
    (2, 32, 4, 32), (2, 32, 64, 64), (2, 512, 4, 32), (3, 128, 5, 32), (4, 64, 16, 64), (8, 512, 4, 32),
])
@pytest.mark.slow
def test_every_corner_delivers(ports, width, tenants, pages):
    config = DeviceConfig(ports=ports, data_width=width, tenants=tenants, pages=pages)
    rng = random.Random(f"{ports} {width} {tenants}")
    bench = Bench(Fabric(config), config)
    size = config.beat_bytes
    sent = [[Packet((n * ports + port) % tenants, (port + n) % ports, rng.randbytes(rng.choice([1, size, 3 * size])),
                    flow_hash=n) for n in range(max(ports, tenants // ports) + 2)] for port in range(ports)]
    for port in range(ports):
        bench.source(port, sent[port])
        bench.sink(port, lambda: rng.random() < 0.2)
    bench.run(open_rows(config, pages=0))
    check_all_delivered(bench, sent)
