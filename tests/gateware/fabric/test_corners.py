"""The corners of the parameter space: each elaborates, lints clean, and passes traffic of every tenant to every port.

The largest one takes minutes: `make corners`.
"""

import os
import random
import subprocess

import pytest

from gateware.config import DeviceConfig
from gateware.fabric.fabric import Fabric
from sim.build import to_verilog
from sim.toolchain import find_toolchain
from tests.gateware.fabric.bench import Bench, Packet, open_rows
from tests.gateware.fabric.test_fabric import check_all_delivered

pytestmark = pytest.mark.slow

#: ports, bits of a beat, tenants, pages
CORNERS = [(2, 32, 4, 32), (2, 32, 64, 64), (2, 512, 4, 32), (3, 128, 5, 32), (4, 64, 16, 64)]
#: Minutes each: `make corners`.
LARGE = [pytest.param(corner, marks=pytest.mark.long) for corner in ((8, 512, 4, 32), (8, 512, 64, 64))]
#: What `verilator -Wall` says of any Verilog that Amaranth writes -> why that is no fault.
WAIVED = {
    "DECLFILENAME": "one file for all modules",
    "UNUSEDSIGNAL": "every name of the source becomes a signal, and blocks are connected by whole signatures",
    "PROCASSINIT": "registers begin with their reset value, as they do in an FPGA",
    "WIDTHEXPAND": "widths follow Amaranth's rules: constants are as short as they can be",
    "WIDTHTRUNC": "an operator's condition may be wider than a bit: it is tested against 0",
    "CASEINCOMPLETE": "the default comes before the case",
}


def config_of(corner):
    ports, width, tenants, pages = corner
    return DeviceConfig(ports=ports, data_width=width, tenants=tenants, pages=pages)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("corner", [*CORNERS, *LARGE], ids=str)
def test_every_corner_delivers(corner):
    config = config_of(corner)
    ports, size = config.ports, config.beat_bytes
    rng = random.Random(str(corner))
    bench = Bench(Fabric(config), config)
    sent = [[Packet((n * ports + port) % config.tenants, (port + n) % ports,
                    rng.randbytes(rng.choice([1, size, 3 * size])), flow_hash=n)
             for n in range(max(ports, config.tenants // ports) + 2)] for port in range(ports)]
    for port in range(ports):
        bench.source(port, sent[port])
        bench.sink(port, lambda: rng.random() < 0.2)
    bench.run(open_rows(config, pages=0))
    check_all_delivered(bench, sent)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("corner", [*CORNERS, *LARGE], ids=str)
def test_every_corner_lints_clean(corner, tmp_path):
    """No latch, loop, open input, second driver or index out of range, which a simulation might never show."""
    tools = find_toolchain()
    source = tmp_path / "fabric.v"
    source.write_text(to_verilog(Fabric(config_of(corner))))
    command = [tools.verilator_binary, "--lint-only", "-Wall", *(f"-Wno-{name}" for name in WAIVED), "--top-module",
               "top", source]
    environment = os.environ | {"VERILATOR_ROOT": str(tools.verilator_root)}
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr[-4000:]
    assert not found.stderr
