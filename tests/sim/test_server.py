"""The simulated device as a process: socket, sessions, right to write, time, serial port, life."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import serial

from device_link import rundir
from device_link.connect import open_transport
from device_link.operations import Control
from device_link.session import DeviceReset
from device_link.transport import BusError, Capability, Transport
from morphnic.errors import DeviceBusy, DeviceNotFound, EnvironmentFault, LinkError
from sim.board import COMPLETION
from sim.process import SimProcess
from sim.workloads import WORKLOAD_REQUEST as REQUEST_ROWS
from sim.workloads import Workload
from tests.sim.conftest import host_packets, standin_model
from tests.sim.standin import MAGIC, WINDOW_CYCLES

TOP = ["--top", "tests.sim.standin:StandIn"]
Start = Callable[..., SimProcess]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts devices in a run directory of this test's own."""
    standin_model()
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    started: list[SimProcess] = []

    def make(name: str = "x", *arguments: str) -> SimProcess:
        process = SimProcess(name, [*TOP, *arguments], timeout=120)
        started.append(process)
        return process

    yield make
    for process in started:
        if process._process.poll() is None:
            process.kill()


def transport(process: SimProcess, *, writer: bool = False) -> Transport:
    return open_transport(process.url, writer=writer, timeout=20)


@pytest.mark.slow
def test_lockstep_device_moves_only_when_granted(start):
    process = start("x", "--mode", "lockstep", "--no-pty", "--seed", "1")
    with transport(process, writer=True) as link:
        assert Capability.TIME_GRANTS in link.capabilities
        cycle = link.control({"op": "status"})["cycle"]
        assert link.read(0) == [MAGIC]
        after = link.control({"op": "status"})["cycle"]
        assert cycle < after <= cycle + 8
        assert link.control({"op": "status"})["cycle"] == after
        answer = link.advance(10 * WINDOW_CYCLES)
        assert (answer["ran"], answer["cycle"]) == (10_000, after + 10_000)
        words = link.session.windows(0.0)  # they came before the answer
        assert len(words) == 10 + (cycle <= 0)


def test_one_writer_at_a_time_and_readers_are_free(start):
    process = start("x", "--mode", "lockstep", "--no-pty")
    with transport(process, writer=True) as first:
        first.write(0x30, 5)
        with pytest.raises(DeviceBusy, match=rf"process {os.getpid()} .* holds the right to write sim://x"):
            transport(process, writer=True)
        with transport(process) as reader:
            assert reader.read(0x30) == [5]
            reader.writer = True  # a client that does not care is refused by the server
            with pytest.raises(DeviceBusy, match="does not hold the right to write"):
                reader.write(0x30, 6)
            assert reader.read(0x30) == [5]
            refused = reader.control({"op": "advance", "cycles": 10})
            assert (refused["ok"], refused["reason"]) == (False, "busy")
    with transport(process, writer=True) as second:
        second.write(0x30, 7)
        assert second.read(0x30) == [7]


@pytest.mark.slow
def test_bus_errors_and_bad_documents_are_answered(start):
    process = start("x", "--mode", "lockstep", "--no-pty")
    with transport(process) as link:
        with pytest.raises(BusError):
            link.read(0x14)
        assert link.read(0) == [MAGIC]
        for document, word in (({"op": "fly"}, "op must be one of"), ({"op": "advance"}, "cycles"),
                               ({"op": "advance", "cycles": -1}, "at least 0"), ({"schema": 9}, "schema 1"),
                               ({"op": "load", "path": "/nowhere.npz"}, "no such workload file"),
                               ({"op": "waveform", "path": "/tmp/x.vcd", "start": 10**9}, "has not happened")):
            answer = link.control(document)
            assert answer["ok"] is False
            assert word in answer["error"]


@pytest.mark.slow
def test_workload_runs_and_its_records_come_back(start, tmp_path):
    process = start("x", "--mode", "lockstep", "--no-pty")
    packets = host_packets(100, 3)
    packets["request_index"] = np.arange(100)
    made = Workload("made", "0" * 64, packets, np.zeros(100, REQUEST_ROWS))
    path = made.save(tmp_path / "w.npz")
    with transport(process) as link:
        loaded = link.control({"op": "load", "path": str(path)})
        assert (loaded["ok"], loaded["packets"], loaded["first"]) == (True, 100, 0)
        assert link.advance(20_000)["ran"] == 20_000
        traffic = link.control({"op": "traffic"})
        assert traffic["stats"]["completions"] == 100
        assert sum(row["done_packets"] for row in traffic["tenants"]) == 100
        target = tmp_path / "records.npy"
        assert link.control({"op": "records", "kind": "completions", "path": str(target)})["count"] == 100
        assert np.load(target).dtype == COMPLETION


@pytest.mark.slow
def test_same_seed_and_grants_give_the_same_windows(start):
    def run(name: str) -> list[bytes]:
        process = start(name, "--mode", "lockstep", "--no-pty", "--seed", "5")
        with transport(process) as link:
            link.advance(5000)
            link.read(0)
            link.advance(5000)
            return link.session.windows(0.0)

    assert run("one") == run("two") != []


@pytest.mark.slow
def test_free_running_device_runs_and_grants_no_time(start):
    process = start("x", "--mode", "free", "--pace", "200000", "--no-pty")
    with transport(process) as link:
        assert Capability.TIME_GRANTS not in link.capabilities
        before = link.control({"op": "status"})["cycle"]
        assert link.session.windows(20.0)
        assert link.control({"op": "status"})["cycle"] > before
        refused = link.control({"op": "advance", "cycles": 10})
        assert (refused["ok"], refused["reason"]) == (False, "state")
        assert link.control({"op": "wait", "for": "interrupt"}, timeout=20)["ok"] is True


def test_serial_port_opens_with_pyserial_and_passes_bytes(start):
    process = start("x", "--mode", "free", "--pace", "500000")
    assert process.ready.pty is not None
    data = bytes(range(256)) * 4
    with serial.Serial(process.ready.pty, 1_000_000, timeout=20) as port:
        port.write(data)
        assert port.read(len(data)) == data
    link_name = rundir.device_dir("x") / "uart"
    with serial.Serial(str(link_name), 1_000_000, timeout=20) as port:  # again, by the name that stays
        port.write(b"\x00\x0d\x0a\x03\x11\x13")
        assert port.read(6) == b"\x00\x0d\x0a\x03\x11\x13"


@pytest.mark.slow
def test_serial_port_bit_by_bit_passes_bytes(start):
    process = start("x", "--mode", "free", "--pace", "0", "--uart-bits")
    with serial.Serial(process.ready.pty, 1_000_000, timeout=30) as port:
        port.write(b"bits \x00\xff")
        assert port.read(7) == b"bits \x00\xff"


@pytest.mark.slow
def test_name_in_use_is_told_with_the_process(start):
    process = start("x", "--mode", "lockstep", "--no-pty")
    with pytest.raises(EnvironmentFault, match=f"'x' is in use by process {process.pid}"):
        start("x", "--no-pty")
    with transport(process) as link:
        assert link.read(0) == [MAGIC]


@pytest.mark.slow
def test_sigterm_leaves_nothing_behind(start):
    process = start("x", "--mode", "free")
    folder = rundir.device_dir("x")
    assert process.stop() == 0
    assert sorted(path.name for path in folder.iterdir()) == ["lock"]
    with pytest.raises(DeviceNotFound):
        open_transport("sim://x")


@pytest.mark.slow
def test_killed_device_can_be_started_again(start):
    start("x", "--mode", "lockstep").kill()
    assert (rundir.device_dir("x") / rundir.SOCKET_NAME).exists()
    with pytest.raises(DeviceNotFound):
        open_transport("sim://x")
    with transport(start("x", "--mode", "lockstep")) as link:
        assert link.read(0) == [MAGIC]


@pytest.mark.slow
def test_client_sees_the_end_of_a_killed_device(start):
    process = start("x", "--mode", "lockstep", "--no-pty")
    with transport(process) as link:
        process.kill()
        with pytest.raises(LinkError, match="ended"):
            link.read(0)


@pytest.mark.slow
def test_shutdown_by_control_document(start):
    process = start("x", "--mode", "lockstep", "--no-pty")
    with transport(process) as link:
        assert link.control({"op": "shutdown"})["ok"] is True
    assert process._process.wait(20) == 0


@pytest.mark.slow
def test_reset_begins_the_device_anew_and_leaves_its_port_and_its_clients(start):
    """Registers, clock and sessions are gone; the serial port has the same name, and passes bytes again."""
    process = start("x", "--mode", "lockstep", "--seed", "1")
    with transport(process, writer=True) as link:
        link.write(0x30, 5)
        link.advance(5_000)
        nonce = link.boot_nonce
        with open_transport(process.url, timeout=20) as other:
            answer = other.control({"op": "reset"})
            assert (answer["ok"], answer["reason"]) == (False, "busy")
            assert link.read(0x30) == [5]
        answer = link.control({"op": "reset"})
        assert answer["ok"] is True
        status = link.control({"op": "status"})
        assert (status["cycle"], status["boot_nonce"]) == (0, answer["boot_nonce"])
        with pytest.raises(DeviceReset) as raised:
            link.write(0x30, 6)
        assert raised.value.outcome in ("unknown", "not applied")
        assert link.boot_nonce == answer["boot_nonce"] != nonce
        assert link.read(0x30) == [0]
        with serial.Serial(process.ready.pty, 1_000_000, timeout=0.2) as port:
            port.write(b"again")
            passed = b""
            for _ in range(100):   # a grant of time may be used up before the bytes are there
                link.advance(5_000)
                passed += port.read(5 - len(passed))
                if len(passed) == 5:
                    break
            assert passed == b"again"


@pytest.mark.slow
def test_grant_of_time_that_a_reset_cuts_short_is_answered(start):
    process = start("x", "--mode", "lockstep", "--no-pty")
    with transport(process, writer=True) as link:
        for sequence, document in ((200, {"op": "advance", "cycles": 1 << 40}), (201, {"op": "reset"})):
            link.session.pipe.send([Control(0, sequence, json.dumps(document).encode()).encode()])
        answers: dict[int, dict[str, object]] = {}
        deadline = time.monotonic() + 20
        while len(answers) < 2 and time.monotonic() < deadline:
            for message in link.session.received(1.0):
                if isinstance(message, Control):
                    answers[message.sequence] = json.loads(message.document)
        assert (answers[200]["ok"], answers[200]["error"]) == (False, "the device was reset")
        assert answers[201]["ok"] is True
        assert link.control({"op": "status"})["cycle"] == 0


@pytest.mark.slow
def test_device_stops_with_the_process_that_started_it(start, tmp_path):
    script = ("import os, time; from sim.process import SimProcess; "
              f"p = SimProcess('orphan', {TOP!r}); print(p.pid, flush=True); time.sleep(600)")
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while (rundir.device_dir("orphan") / rundir.READY_NAME).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    gone = not (rundir.device_dir("orphan") / rundir.READY_NAME).exists()
    if not gone:
        os.kill(pid, signal.SIGKILL)
    assert gone


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "words"), [
    (["--set", "tenants=1"], "tenants must be in 2..64"), (["--set", "wings=2"], "--set must be PARAMETER=NUMBER"),
    (["--pace", "-1"], "--pace must be at least 0"), (["--name", "a/b"], "name must be"),
    (["--top", "nowhere:Nothing"], "top must be MODULE:CLASS"),
])
def test_bad_options_end_with_one_error_and_no_traceback(start, arguments, words):
    run = subprocess.run([sys.executable, "-m", "sim.server", *arguments], capture_output=True, text=True, timeout=60)
    assert run.returncode in (1, 3)
    assert words in run.stderr
    assert "Traceback" not in run.stderr
