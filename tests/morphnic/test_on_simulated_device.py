"""The commands on the real simulated device, its manager and the agent, each started as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_link import rundir

ROOT = Path(__file__).parents[2]
BUILD_S = 900  # the first start builds the model


def start(*arguments, log):
    return subprocess.Popen([sys.executable, "-m", "morphnic", *arguments], cwd=ROOT, stdout=log, stderr=log,
                            stdin=subprocess.DEVNULL, start_new_session=True)


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def wait_until(ready, process, seconds, log_path):
    """Until `ready()`; a process that ended before is a failure with its log."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, log_path.read_text()
        assert time.monotonic() < deadline, log_path.read_text()
        time.sleep(0.05)


@pytest.fixture
def device(home):
    """`morphnic sim run` in a process of its own."""
    path = home / "device.log"
    with path.open("w") as log:
        process = start("sim", "run", "--name", "cli", "--seed", "7", log=log)
        try:
            wait_until(rundir.running, process, BUILD_S, path)
            yield process
        finally:
            code = stop(process)
    assert code == 0, path.read_text()
    assert rundir.running() == []


@pytest.fixture
def manager(home, device, monkeypatch):
    """`morphnic manager` in a process of its own, at a Unix socket."""
    path, ready = home / "manager.log", home / "manager.json"
    monkeypatch.setenv("MORPHNIC_MANAGER_URL", f"unix:{os.environ['XDG_RUNTIME_DIR']}/m.sock")
    with path.open("w") as log:
        process = start("manager", "--device", "sim://cli", "--listen", os.environ["MORPHNIC_MANAGER_URL"],
                        "--ready-file", str(ready), log=log)
        try:
            wait_until(ready.exists, process, 120, path)
            yield process
        finally:
            stop(process)


def document(typed, *arguments, code=0):
    done = typed(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(BUILD_S + 300)
def test_device_is_found_read_driven_and_watched(typed, device):
    devices = document(typed, "list", "--probe")["devices"]
    assert {one["url"].partition(":")[0] for one in devices} == {"sim", "uart"}
    assert len({one["identity"]["uid"] for one in devices}) == 1, "socket and serial port reach the same device"
    info = document(typed, "info")
    assert info["identity"]["config"]["tenants"] == 16
    # 100 packets of 128 bytes from the generator to the host port, where its checker sees them again
    assert typed("regs", "write", "generator.packet=0x00800000", "generator.count=100", "generator.control=3",
                 ).returncode == 0
    deadline = time.monotonic() + 60
    while True:
        names = ("generator.sent", "generator.received", "generator.corrupted", "generator.missequenced")
        words = [one["value"] for one in document(typed, "regs", "read", *names)["registers"]]
        if words[1] == 100 or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert words == [100, 100, 0, 0]
    window = document(typed, "watch", "--windows", "1")
    assert len(window["tenants"]) == 16
    dump = document(typed, "regs", "dump")["registers"]
    assert {one["name"] for one in dump} >= {"id.magic", "staging[15].weight", "port[3].admitted", "slot[1].shard"}


@pytest.mark.slow
@pytest.mark.timeout(BUILD_S + 300)
def test_suite_passes_on_socket_and_serial_port_and_its_record_replays(typed, device, tmp_path):
    for url in ("sim://cli", next(one["url"] for one in document(typed, "list")["devices"]
                                  if one["url"].startswith("uart://"))):
        record = tmp_path / "session.jsonl"
        found = document(typed, "test", "--device", url, "--record", str(record), "--timeout", "10")
        assert found["passed"], found
        again = document(typed, "test", "--device", f"replay://{record}")
        assert [one["outcome"] for one in again["results"]] == [one["outcome"] for one in found["results"]]


@pytest.mark.slow
@pytest.mark.timeout(BUILD_S + 300)
def test_suite_passes_on_the_serial_port_shared_over_tcp_while_others_read(typed, device, home):
    port = next(one["url"] for one in document(typed, "list")["devices"] if one["url"].startswith("uart://"))
    path = home / "serve.log"
    with path.open("w") as log:
        process = start("serve", "--device", f"{port}?baud=3000000", "--listen", "tcp://:0", "--timeout", "5", log=log)
        try:
            wait_until(lambda: "tcp://" in path.read_text(), process, 60, path)
            url = next(line for line in path.read_text().splitlines() if line.startswith("tcp://"))
            reader = start("regs", "watch", "--device", url, "rm.active", "--every", "0.01", log=log)
            try:
                found = document(typed, "test", "--device", url, "--timeout", "10")
                assert found["passed"], found
                assert found["counts"]["pass"] == len(found["results"])
                well = document(typed, "selftest", "--device", url)
                assert well["counts"]["fail"] == 0, well
                served = {one["url"]: one for one in document(typed, "list")["devices"]}
                assert f"process {process.pid}" in served[port]["in_use"]
                assert reader.poll() is None, path.read_text()
            finally:
                reader.kill()
                reader.wait(20)
        finally:
            code = stop(process)
    assert code == 0, path.read_text()


@pytest.mark.slow
@pytest.mark.timeout(BUILD_S + 300)
def test_operator_reports_asks_and_is_kept_from_the_registers(typed, manager):
    assert document(typed, "agent", "status")["health"]["status"] == "ok"
    assert document(typed, "agent", "run", "--once", "--interval", "0.1")["kind"] == "agent-run"
    done = typed("regs", "write", "id.scratch=5")
    assert done.returncode == 1
    assert "host-agent request" in done.stderr
    granted = document(typed, "agent", "request", "3", "--pages", "2", "--reason", "test")
    assert (granted["granted"], granted["after"]) == (True, granted["before"] + 2)
    (pages,) = document(typed, "regs", "read", "active[3].pages")["registers"]
    assert pages["value"] >= granted["after"], "what was granted is in the device's table"
    refused = document(typed, "agent", "request", "3", "--pages", "5000", code=1)
    assert not refused["granted"]
    seen = document(typed, "agent", "watch", "--once")
    assert granted["decision"] in [one["id"] for one in seen["decisions"]]
