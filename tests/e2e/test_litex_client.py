"""The real tools of LiteX against the simulated device whose link speaks UARTBone: list, read and write by name."""

import os
import re
import socket
import subprocess
import sys
import time

import pytest
from litex import RemoteClient

import device_link
from device_link.registers import is_built, register_map, rows_of
from device_link.transport import BusError
from gateware.bridge.uartbone import REFUSED
from gateware.config import DeviceConfig
from sim.options import parse_config
from sim.process import SimProcess

#: A small device, whose clock makes 100 ms of silence 100,000 cycles.
PARAMETERS = ["uartbone=1", "ports=3", "data_width=32", "tenants=2", "slots=1", "pages=32", "classifier_entries=1",
              "rules=1", "histograms=0", "access_patterns=0", "forecasts=0", "clock_hz=1000000", "uart_baud=115200"]
CONFIG: DeviceConfig = parse_config(PARAMETERS)

#: Building the model waits for others that build the same one; a busy machine makes LiteX's time-out of 2 s short.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def tool(module, *arguments):
    """What a command of LiteX prints."""
    run = subprocess.run([sys.executable, "-m", f"litex.tools.{module}", *arguments], capture_output=True, text=True,
                         timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class Bench:
    """The device, LiteX's server on its serial port, and the map in LiteX's form."""

    def __init__(self, folder):
        self.device = SimProcess("bone", [f"--set={one}" for one in PARAMETERS])
        self.port = str(free_port())
        self.csr_csv = str(folder / "csr.csv")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "litex.tools.litex_server", "--uart", "--uart-port", self.device.ready.pty,
             "--bind-port", self.port], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        exported = subprocess.run([sys.executable, "-m", "morphnic", "regs", "export", "--csr-csv", self.csr_csv,
                                   *(f"--set={one}" for one in PARAMETERS)], capture_output=True, check=False)
        assert exported.returncode == 0, exported.stderr
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("localhost", int(self.port)), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "LiteX's server does not listen"
                assert self._server.poll() is None, "LiteX's server ended"
                time.sleep(0.1)

    def cli(self, *arguments):
        return tool("litex_client", "--csr-csv", self.csr_csv, "--port", self.port, *arguments)

    def read(self, name):
        """A register's word, by `litex_cli --read`."""
        return int(re.fullmatch(r"0x[0-9a-f]+ : (0x[0-9a-f]+)\n", self.cli("--read", name)).group(1), 16)

    def close(self):
        self._server.terminate()
        self._server.wait(10)
        self.device.stop()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("litex")
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    made = Bench(folder)
    yield made
    made.close()
    os.environ.pop("XDG_RUNTIME_DIR") if before is None else os.environ.update(XDG_RUNTIME_DIR=before)


@pytest.fixture
def direct(bench):
    """The same device, reached beside its serial link; a busy machine may leave it without an answer for seconds."""
    with device_link.open(bench.device.url, writer=True, timeout=20) as device:
        yield device


@pytest.fixture
def client(bench):
    """LiteX's client library, as its users' scripts have it."""
    made = RemoteClient(csr_csv=bench.csr_csv, port=int(bench.port))
    made.open()
    yield made
    made.close()


def words_of(device):
    """Every register that this configuration has, by LiteX's name; None for one that refuses."""
    found = {}
    for block in (one for one in register_map() if is_built(one.name, CONFIG)):
        for row in [None] if block.count is None else range(rows_of(block, CONFIG)):
            for register in block.registers(row):
                name = f"{block.name}{'' if row is None else row}_{register.name.rpartition('.')[2]}"
                try:
                    found[name] = int(device.read([register.name])[0])
                except BusError:
                    found[name] = None
    return found


def test_registers_are_listed_by_name_with_the_words_that_the_device_has(bench, direct):
    before = words_of(direct)
    printed = re.findall(r"0x([0-9a-f]{8}) : 0x([0-9a-f]{8}) (\w+)\n", bench.cli("--regs"))
    after = words_of(direct)
    listed = {name: int(word, 16) for _, word, name in printed}
    assert list(listed) == list(before)
    moving = {name for name in before if before[name] != after[name]}
    assert all(name.startswith(("id_cycle", "link_", "analyzer_", "interrupt_")) for name in moving), moving
    assert {name: REFUSED if word is None else word for name, word in before.items() if name not in moving} == {
        name: word for name, word in listed.items() if name not in moving}
    assert listed["id_magic"] == 0x46524F4D
    assert listed["staging0_weight"] == REFUSED, "outside a transaction the device refuses it"


def test_register_is_written_and_read_by_name(bench, direct):
    bench.cli("--write", "id_scratch", "0xc0ffee42")
    assert bench.read("id_scratch") == 0xC0FFEE42
    assert int(direct.id.scratch.read()) == 0xC0FFEE42
    direct.id.scratch.write(0x11)
    assert bench.read("id_scratch") == 0x11


def test_script_moves_blocks_by_names_and_addresses(client, direct):
    """A block of writes is longer than the client's eight words, one of reads lies in consecutive registers."""
    base = client.bases.objective
    words = [1000, 0x2010, 2000, 0x4030]
    client.write(base, words)
    assert client.read(base, length=4) == words
    assert [int(direct.objective[row].slo.read()) for row in range(2)] == [1000, 2000]
    client.write(base, 3 * [1, 2, 3, 4])  # beyond the second row no register answers
    assert client.regs.objective1_slo.read() == 3
    assert client.read(client.bases.id, length=8) == direct.read_words(0, 8)


def test_address_without_a_register_reads_all_ones_and_is_counted(client):
    before = client.regs.link_bus_errors.read()
    assert client.read(0x3_FFFC) == REFUSED
    assert client.read(0x4_0000) == REFUSED, "beyond the space, not its first word"
    client.write(0x3_FFFC, 1)
    assert client.regs.link_bus_errors.read() - before == 3


def test_half_a_command_is_forgotten_within_a_tenth_of_a_second_of_device_time(bench, client, direct):
    cycle, faults = direct.cycle(), int(direct.link.framing_errors.read())
    with open(bench.device.ready.pty, "wb", buffering=0) as port:
        port.write(bytes([1, 1, 0, 0]))
    while direct.cycle() < cycle + 300_000:
        time.sleep(0.05)
    assert client.regs.id_magic.read() == 0x46524F4D
    assert int(direct.link.framing_errors.read()) == faults + 1
