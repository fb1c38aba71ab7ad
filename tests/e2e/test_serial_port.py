"""A whole simulated device on its serial port, a real pseudo-terminal: the logic analyzer, and resets of every kind
while an exchange is under way."""

import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest
import pywellen

import device_link
from device_link import rundir
from device_link.pcie.simulated import SimulatedFunction
from device_link.scope import LogicAnalyzer, State
from device_link.session import DeviceReset
from morphnic.errors import LinkError, LinkLost
from sim.process import SimProcess

#: A small device with a logic analyzer and a PCIe function.
PARAMETERS = ["ports=2", "data_width=32", "tenants=2", "slots=1", "pages=32", "classifier_entries=1", "rules=1",
              "histograms=0", "access_patterns=0", "forecasts=0", "pcie_width=64", "scope_rows=256",
              "scope_probes=link.rx,manager.changed"]
LONG = 60.0  # seconds, where something is expected to come: how long it takes is the machine's affair

#: Building the model takes minutes on a machine that does other things besides.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


class Bench:
    """The device; its serial port has the same name when it is started again."""

    def __init__(self):
        self.process = None
        self.start()

    def start(self):
        self.process = SimProcess("port", [f"--set={one}" for one in PARAMETERS])

    def open(self, **options):
        """On the serial port."""
        path = rundir.device_dir("port") / "uart"
        return device_link.open(f"uart://{path}?baud=3000000", timeout=LONG, **options)

    def press_reset(self):
        """As a user does, who does not know what goes on at the serial port."""
        done = morphnic("sim", "reset", "--device", "sim://port", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["boot_nonce"]


def morphnic(*arguments):
    return subprocess.run([sys.executable, "-m", "morphnic", *arguments], capture_output=True, text=True, timeout=300,
                          check=False)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("run"))
    made = Bench()
    yield made
    made.process.stop()
    os.environ.pop("XDG_RUNTIME_DIR") if before is None else os.environ.update(XDG_RUNTIME_DIR=before)


class Writing:
    """Writes `id.scratch` with rising numbers, one call after another, until one fails."""

    def __init__(self, device):
        self.device, self.error, self.done = device, None, 0
        self.under_way = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self):
        deadline = time.monotonic() + 4 * LONG
        try:
            while time.monotonic() < deadline:
                self.device.id.scratch.write(self.done + 1)
                self.done += 1
                if self.done == 5:
                    self.under_way.set()
        except LinkError as error:
            self.error = error

    def failure(self):
        """The error that ended it."""
        self._thread.join(5 * LONG)
        assert not self._thread.is_alive()
        return self.error


@pytest.mark.parametrize("seed", range(3))
def test_reset_while_writes_are_under_way_is_told_with_their_outcome_and_the_link_comes_back(bench, seed):
    print(f"seed {seed}")
    with bench.open(writer=True) as device:
        nonce = device.transport.boot_nonce
        writing = Writing(device)
        assert writing.under_way.wait(LONG)
        time.sleep(random.Random(seed).random() * 0.05)
        told = bench.press_reset()
        error = writing.failure()
        assert type(error) is DeviceReset, error
        assert "the device was reset" in str(error)
        assert error.outcome in ("unknown", "not applied")
        assert device.transport.boot_nonce == told != nonce
        # Nothing of what was written before was written again into the device that began anew.
        assert device.id.scratch.read() == 0
        device.id.scratch.write(seed + 100)
        assert device.id.scratch.read() == seed + 100


def test_reset_of_an_idle_device_costs_one_exchange(bench):
    with bench.open(writer=True) as device:
        device.id.scratch.write(7)
        bench.press_reset()
        with pytest.raises(DeviceReset):
            device.id.scratch.write(8)
        assert device.id.scratch.read() == 0, "the write that was answered with the reset is not done behind it"
        device.id.scratch.write(9)
        assert device.id.scratch.read() == 9


def test_device_that_loses_its_power_in_an_exchange_is_waited_for_under_its_name(bench):
    with bench.open(writer=True) as device:
        writing = Writing(device)
        assert writing.under_way.wait(LONG)
        bench.process.kill()
        bench.start()
        error = writing.failure()
        assert isinstance(error, DeviceReset | LinkLost), error
        assert error.outcome in ("unknown", "not applied")
        assert device.id.scratch.read() == 0
        device.id.scratch.write(5)
        assert device.id.scratch.read() == 5


def test_reset_of_the_function_disturbs_no_exchange_on_the_serial_port(bench):
    """A function-level reset touches the function: what the serial port wrote stays, and no write fails meanwhile."""
    function = SimulatedFunction.find("port", timeout=LONG)
    try:
        with bench.open(writer=True) as device:
            nonce, epoch = device.transport.boot_nonce, device.rm.active.read().epoch
            writing = Writing(device)
            assert writing.under_way.wait(LONG)
            for _ in range(3):
                before = writing.done
                function.reset()
                deadline = time.monotonic() + LONG
                while writing.done < before + 3 and time.monotonic() < deadline:
                    time.sleep(0.001)
                assert writing.done >= before + 3, writing.error
            bench.press_reset()  # ends the writing
            assert isinstance(writing.failure(), DeviceReset)
            assert device.transport.boot_nonce != nonce, "only that reset was told"
            assert device.rm.active.read().epoch == epoch
    finally:
        function.close()


def test_reset_is_refused_while_another_program_holds_the_right_to_write(bench):
    with device_link.open("sim://port", writer=True, timeout=LONG) as held:
        held.id.scratch.write(3)
        done = morphnic("sim", "reset", "--device", "sim://port")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "holds the right to write" in done.stderr
        assert held.id.scratch.read() == 3


def test_capture_over_the_serial_port_is_the_one_that_the_socket_reads(bench, tmp_path):
    path = rundir.device_dir("port") / "uart"
    url = f"uart://{path}?baud=3000000"
    listed = [json.loads(morphnic("scope", "probes", "--json", "--device", one).stdout) for one in (url, "sim://port")]
    assert listed[0]["probes"] == listed[1]["probes"]
    # What the trigger waits for is the serial port's own traffic: 'wait' asks for the state again and again.
    file = tmp_path / "out.vcd"
    done = morphnic("scope", "capture", str(file), "--trigger", "rise(link.rx.valid) & link.rx.ready times 3",
                    "--cycles", "300", "--timeout", "60", "--json", "--device", url)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    with device_link.open("sim://port", timeout=LONG) as device:
        scope = LogicAnalyzer(device)
        assert scope.status().state is State.COMPLETE
        capture = scope.read()
    assert (capture.start, capture.trigger, capture.end) == (facts["first"], facts["trigger"], facts["end"])
    valid = next(probe for probe in capture.probes if probe.name == "link.rx.valid")
    at = capture.trigger - capture.start
    samples = [valid.extract(sample) for sample in capture.samples()]
    assert samples[at - 1:at + 1] == [0, 1]
    variable = next(one for one in pywellen.Waveform(str(file)).all_vars() if one.full_name == "link.rx.valid")
    changes = [(moment, int(str(value), 2)) for moment, value in variable.tv]
    period = 10_000  # of the device's clock, in the file's unit
    for step, sample in enumerate(samples):
        shown = [value for moment, value in changes if moment <= (capture.start + step) * period][-1]
        assert shown == sample, step
