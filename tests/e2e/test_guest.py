"""A Linux guest that has the simulated device as a PCIe function: drivers of its kernel, software of this project.

What is printed is of QEMU's emulated processor and of a simulated device: figures of the simulation, not of a card.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import device_link
from device_link import rundir
from sim.guest.machine import Completed, Guest
from sim.guest.packages import FETCH, fetched
from sim.process import SimProcess
from sim.vfio_user import SOCKET_NAME
from tests.sim.test_pcie import CONFORMING

ROOT = Path(__file__).parents[2]
SEED = 1
PACE = "50000"  # cycles a second: the guest needs the processor more
CARD = "pcie://0000:01:00.0"
SECONDS = 1200.0  # for one command, on a busy machine; alone it takes some seconds
#: What the guest imports; compiled here, because there nothing is kept and everything takes long.
IMPORTED = ("device_link", "gateware", "host_agent", "morphnic", "offload_manager", "rtl", "sim", "tests/e2e",
            "tests/sim")
packages = fetched()
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600),
              pytest.mark.skipif(packages is None, reason=f"no guest has been fetched: `make guest`, or `{FETCH}`")]


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    subprocess.run([sys.executable, "-m", "compileall", "-q", *IMPORTED], cwd=ROOT, check=True)


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A device with an endpoint, in a run directory of this test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with SimProcess("card", [*CONFORMING, "--no-pty", "--seed", str(SEED), "--pace", PACE]) as process:
        yield process


@pytest.fixture
def operator(device):
    """Somebody who types in a guest that has the card."""
    with Guest(packages, rundir.device_dir(device.name) / SOCKET_NAME) as guest:
        print(f"seed {SEED}, kernel {guest.kernel}")
        yield Operator(guest, device)


class Operator:
    """Types commands in a guest, as root; how long each took is printed."""

    def __init__(self, guest: Guest, device: SimProcess) -> None:
        self._guest, self._device = guest, device

    def type(self, *words: str) -> Completed:
        """Run a command to its end, which must be a good one."""
        began = time.monotonic()
        patient = ["/usr/bin/env", "MORPHNIC_MANAGER_TIMEOUT=300", *words]
        done = self._guest.run(patient, directory=ROOT, timeout=SECONDS)
        print(f"{time.monotonic() - began:7.1f} s  {shlex.join(words).replace(sys.executable, 'python')}", flush=True)
        assert done.code == 0, f"{done.output}\n{done.errors}\n{self._guest.log()}\n{self._device.errors()}"
        return done

    def ask(self, *words: str) -> dict[str, Any]:
        """The document that a module of this project prints."""
        document: dict[str, Any] = json.loads(self.type(sys.executable, "-m", *words).output)
        return document

    def shell(self, text: str) -> Completed:
        """Run a line of shell."""
        return self.type("/bin/sh", "-c", text)

    def start(self, name: str, ready: str, *words: str) -> None:
        """Run a service in the background, and wait until it is ready (or has ended, which fails)."""
        command = shlex.join([sys.executable, "-m", *words])
        self.shell(f"({command} >/run/{name}.log 2>&1; echo $? >/run/{name}.code) >/dev/null 2>&1 &")
        self.shell(f"until [ -e {ready} ] || [ -e /run/{name}.code ]; do sleep 1; done; "
                   f"[ -e {ready} ] || {{ cat /run/{name}.log; false; }}")

    def stop(self, name: str, ready: str) -> None:
        """Ask a service to end, which it must do in order."""
        read = f"import json; print(json.load(open({ready!r}))['pid'])"
        pid = self.type(sys.executable, "-S", "-c", read).output.strip()
        self.shell(f"kill {pid}; until [ -e /run/{name}.code ]; do sleep 1; done; "
                   f"grep -qx 0 /run/{name}.code || {{ cat /run/{name}.log; false; }}")


def other_link(device: SimProcess) -> device_link.Device:
    """The same device, as seen from outside of the guest."""
    return device_link.open(device.url, timeout=60)


def test_software_in_a_guest_finds_identifies_and_drives_the_card(device, operator):
    """Found, identified, watched, allocated, DMA, interrupts, as another link of the device tells too."""
    assert CARD in [one["url"] for one in operator.ask("morphnic", "list", "--json")["devices"]]
    told = operator.ask("tests.e2e.card_in_guest", str(SEED))
    figures = [("register read, resource0", told["resource0"]["read_us"]), ("register read, vfio-pci", told["read_us"]),
               ("command to its MSI-X interrupt, 0 bytes", told["interrupt_us"]),
               *((f"command to its MSI-X interrupt, DMA of 4,096 bytes {name}", told["dma_us"][name])
                 for name in told["dma_us"])]
    for what, taken in figures:
        rate = f"  {4096 / taken['median']:.3f} MB/s" if "4,096" in what else ""
        print(f"{what:<62} median {taken['median']:8.0f} us  p99 {taken['p99']:8.0f} us{rate}")
    with other_link(device) as other:
        assert (told["identity"]["uid"], told["identity"]["build_id"]) == (other.identity.uid, other.identity.build_id)
        assert told["resource0"]["uid"] == other.identity.uid
        assert told["windows"][0] < told["windows"][1]
        assert told["allocation"] == {"epoch": other.rm.active.read().epoch, "tag": 42, "before": 0}
        assert int(other.rm.active_tag.read()) == 42


def test_manager_and_host_agent_in_a_guest_are_a_servers_own(device, operator):
    """The commands of docs/guides/pcie.md: what the agent finds, reads, asks for and moves is so on the device."""
    bus, manager, agent = "/sys/bus/pci", "/run/manager/ready", "/run/morphnic/host-agent.json"
    address = CARD.removeprefix("pcie://")
    operator.shell(f"echo vfio-pci >{bus}/devices/{address}/driver_override; echo {address} >{bus}/drivers_probe")
    operator.start("manager", manager, "offload_manager", "--device", CARD, "--window", "500000",
                   "--ready-file", manager)
    operator.start("agent", agent, "morphnic", "agent", "run", "--interval", "10")
    with other_link(device) as other:
        found = operator.ask("morphnic", "agent", "devices", "--json")
        assert [(one["url"], one["managed"]) for one in found["devices"]] == [(CARD, True)]
        assert (int(found["device"]["uid"], 16), int(found["device"]["build_id"], 16)) == (
            other.identity.uid, other.identity.build_id)

        seen = operator.ask("morphnic", "agent", "watch", "--once", "--json")
        assert 0 < seen["window"]["number"] <= int(other.analyzer.sequence.read())
        assert len(seen["tenants"]) == other.identity.config.tenants

        before = other.rm.active.read().epoch
        answer = operator.ask("morphnic", "agent", "request", "1", "--weight", "+50%", "--json")
        assert (answer["granted"], answer["reason"]) == (True, "granted")
        assert answer["after"] - answer["before"] == pytest.approx(50, abs=0.1)
        assert in_force(operator, other) > before
        weights = [row.weight for row in other.read(
            other.active[tenant].weight for tenant in range(other.identity.config.tenants))]
        assert weights[1] / int(other.rm.weight_capacity.read()) >= answer["after"] / 100 - 0.001

        assert not other.link.control.read().push  # the serial line is not this manager's
        moved = int(other.dma.transfers.read())
        tests = ["identity", "scratch", "allocation", "dma", "interrupts"]
        report = operator.ask("morphnic", "agent", "selftest", *(word for one in tests for word in ("--only", one)),
                              "--json")
        assert [(one["name"], one["outcome"], one["message"]) for one in report["results"]] == [
            (one, "pass", "") for one in tests]
        assert int(other.dma.transfers.read()) - moved == 4

        # What the agent measured of this guest meanwhile, which was never idle, has come to the device.
        assert other.objective[0].host.read().cpu > 0
    operator.stop("agent", agent)
    operator.stop("manager", manager)


def in_force(operator: Operator, other: device_link.Device) -> int:
    """The epoch in force, whose table the agent prints as the device has it."""
    for _ in range(5):
        before = other.rm.active.read().epoch
        table = operator.ask("morphnic", "agent", "allocation", "--json")
        rows = [[int(value) for value in other.read([getattr(other.active[row["tenant"]], name) for name in (
            "weight", "pages", "slots")])] for row in table["rows"]]
        if before == table["epoch"] == other.rm.active.read().epoch:
            assert [[row["weight"], row["pages"], row["slots"]] for row in table["rows"]] == rows
            return before
    raise AssertionError("the table changed again and again while nobody asked for anything")
