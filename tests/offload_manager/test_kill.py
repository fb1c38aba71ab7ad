"""`kill -9` of a real manager process on a simulated device, at named points and at random.

After each kill a new manager starts on what is left: device and store must agree, whatever instant it was.
Each run wants another table than the one before (the latency class moves between tenants), so that each has a
transaction to die in.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import device_link
from device_link import Device
from morphnic.errors import DeviceBusy
from offload_manager.api import Outcome
from offload_manager.driver import Phase
from offload_manager.fault import POINTS
from offload_manager.loop import ControlLoop, LoopSettings
from offload_manager.policy_file import PolicyFile, PolicySource
from offload_manager.store import SqliteStore
from offload_manager.timing import DecisionLatency
from tests.offload_manager.conftest import SimulatedDevice

# The first test may have to wait for the model to be built.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WINDOW_CYCLES = 4096
KILLS_A_POINT = 5
RANDOM_KILLS = 20


class Bench:
    """A simulated device, a store, and managers that come and go."""

    def __init__(self, device: SimulatedDevice, folder: Path) -> None:
        self.device, self.folder = device, folder
        self.store_path = folder / "store.db"
        self.policy_path = folder / "policy.yaml"
        self.run = 0
        self._token = 1000

    def next_policy(self) -> None:
        """A policy that wants another table than the one before."""
        self.run += 1
        text = PolicyFile.default().text + f"  {1 + self.run % 3}: {{class: latency, slo_us: 20}}\n"
        self.policy_path.write_text(text.replace("baseline_windows: 2", "baseline_windows: 1"))

    @contextlib.contextmanager
    def manager(self, fault: str | None) -> Iterator[subprocess.Popen[str]]:
        """A manager process, which lives until it is killed."""
        environment = dict(self.device.environment)
        if fault:
            environment["MORPHNIC_FAULT"] = fault
        log = self.folder / f"manager{self.run}.log"
        with log.open("w") as output, subprocess.Popen(
                [sys.executable, "-m", "offload_manager", "--device", self.device.url, "--listen", "127.0.0.1:0",
                 "--store", str(self.store_path), "--policy", str(self.policy_path), "--window", str(WINDOW_CYCLES),
                 "--decision-latency", "50us", "--ready-file", str(self.folder / "ready.json")],
                stdout=output, stderr=output, text=True, env=environment) as process:
            try:
                yield process
            finally:
                process.kill()
                process.wait(30)

    def open(self) -> Device:
        """The device; the server may take a moment to notice that its writer was killed."""
        end = time.monotonic() + 10
        while True:
            try:
                return device_link.open(self.device.url, writer=True, timeout=10)
            except DeviceBusy:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def check_restart(self) -> None:
        """Start again as the manager does, and compare device and store."""
        self._token += 1
        store = SqliteStore(self.store_path)
        with self.open() as device:
            source = PolicySource(AllocationLimits.of(device), self.policy_path)
            control = ControlLoop(device, source, store, LoopSettings(
                decision_latency=DecisionLatency.parse("0"), window_cycles=WINDOW_CYCLES, token=self._token))
            control.start()
            state = control.driver.state()
            assert state.phase is Phase.IDLE
            assert not state.busy
            assert state.owner_token == self._token
            assert store.unsettled() == []
            record = store.record(state.active_tag)
            assert record is not None
            assert record.decision.outcome is Outcome.CONFIRMED
            assert record.after.same_table(control.driver.read_active())
            for other in store.records(limit=1000):
                expected = other.decision.tag == state.active_tag
                assert not expected or other.decision.outcome is Outcome.CONFIRMED
        store.close()


class AllocationLimits:
    """Limits of an open device."""

    @staticmethod
    def of(device: Device):  # type: ignore[no-untyped-def]
        from offload_manager.allocation import Limits
        return Limits.of(device.identity.config)


@pytest.fixture
def bench(simulated_device: SimulatedDevice, tmp_path: Path) -> Bench:
    """A bench with a manager's store of its own; the device goes on from test to test."""
    made = Bench(simulated_device, tmp_path)
    made.next_policy()
    made.check_restart()
    return made


@pytest.mark.parametrize("point", POINTS)
def test_device_and_store_agree_after_a_kill_at(bench: Bench, point: str) -> None:
    for attempt in range(KILLS_A_POINT):
        bench.next_policy()
        # A decision writes the store three times: intent, outcome, confirmation.
        count = attempt % 3 + 1 if point == "store" else 1
        with bench.manager(f"{point}:{count}") as process:
            assert process.wait(60) == -signal.SIGKILL, (bench.folder / f"manager{bench.run}.log").read_text()
        bench.check_restart()


def test_device_and_store_agree_after_kills_at_random(bench: Bench) -> None:
    seed = 20261121
    rng = random.Random(seed)
    ready = bench.folder / "ready.json"
    decisions = 0
    for _ in range(RANDOM_KILLS):
        bench.next_policy()
        ready.unlink(missing_ok=True)
        with bench.manager(None) as process:
            end = time.monotonic() + 60
            while not ready.exists():
                assert process.poll() is None, (bench.folder / f"manager{bench.run}.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.005)
            time.sleep(rng.random() * 0.6)
        bench.check_restart()
        decisions = len(SqliteStore(bench.store_path).records(limit=1000))
    assert decisions > RANDOM_KILLS // 2, f"seed {seed}: too few transactions were under way to say anything"


def test_manager_answers_on_a_simulated_device_and_stops_in_order(bench: Bench) -> None:
    import httpx
    ready = bench.folder / "ready.json"
    with bench.manager(None) as process:
        end = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None, (bench.folder / f"manager{bench.run}.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        url = json.loads(ready.read_text())["url"]
        with httpx.Client(base_url=url + "/v1", timeout=20) as client:
            health = client.get("/health").json()
            assert health["status"] == "ok", health
            answer = client.post("/requests", json={"tenant": 5, "resource": "pages", "direction": "more", "amount": 2})
            assert answer.json()["granted"], answer.text
            assert client.get("/allocation").json()["rows"][5]["pages"] >= 2
            while client.get("/loop").json()["commits"] < 2:
                assert time.monotonic() < end
                time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (bench.folder / f"manager{bench.run}.log").read_text()
    assert not ready.exists()
    bench.check_restart()
