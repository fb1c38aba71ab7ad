"""`morphnic sim` as a user types it, on a small whole device: run, look, waveform, signals by hand."""

import subprocess
import sys
import time

import pytest

#: The smallest device with a network port: its three builds take seconds, not minutes.
SMALL = [f"--set={one}" for one in ("ports=3", "data_width=32", "tenants=2", "slots=1", "pages=32",
                                    "classifier_entries=1")]
MAGIC = 0x46524F4D


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """Run `morphnic ...` in a run directory of its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def run(*arguments, stdin=None):
        return subprocess.run([sys.executable, "-m", "morphnic", *arguments], input=stdin, capture_output=True,
                              text=True, timeout=500, check=False)

    return run


@pytest.fixture
def running(typed, tmp_path):
    """A simulated device named `small`, until the test is over."""
    log = tmp_path / "run.log"
    with open(log, "w") as file:
        device = subprocess.Popen([sys.executable, "-m", "morphnic", "sim", "run", "--name", "small", *SMALL],
                                  stdout=file, stderr=file)
    try:
        while "sim://small" not in typed("list").stdout:
            assert device.poll() is None, log.read_text()
            time.sleep(0.5)
        yield
    finally:
        device.terminate()
        assert device.wait(30) == 0, log.read_text()


@pytest.mark.long
@pytest.mark.slow
def test_waveform_of_a_running_device_shows_its_signals_change(typed, running, tmp_path):
    path = tmp_path / "out.vcd"
    ran = typed("sim", "wave", str(path), "--start", "200", "--cycles", "50", "--device", "sim://small")
    assert ran.returncode == 0, ran.stderr
    assert "cycles 200 to 250" in ran.stdout
    assert f"gtkwave {path.with_suffix('.gtkw')}" in ran.stdout
    assert ".dut.host_rx__header__payload.tenant[5:0]\n" in path.with_suffix(".gtkw").read_text()
    definitions, _, changes = path.read_text().partition("$enddefinitions")
    assert " cycle [63:0] " in definitions
    assert sum(line.startswith("#") for line in changes.splitlines()) >= 100, "two edges of the clock a cycle"
    assert typed("info", "--device", "sim://small").returncode == 0, "the device goes on serving"


@pytest.mark.long
@pytest.mark.slow
def test_prompt_steps_the_device_and_reads_its_registers(typed):
    ran = typed("sim", "repl", *SMALL, stdin="sim.step(10)\nprint(sim['cycle'])\nprint(hex(sim.read(0)))\n")
    assert ran.returncode == 0, ran.stderr
    assert "10" in ran.stdout
    assert hex(MAGIC) in ran.stdout
