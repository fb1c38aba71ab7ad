"""A Linux guest that has the simulated device as a PCIe function: drivers of its kernel, software of this project."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import device_link
from device_link import rundir
from sim.guest.machine import Guest
from sim.guest.packages import FETCH, fetched
from sim.process import SimProcess
from sim.vfio_user import SOCKET_NAME
from tests.sim.test_pcie import CONFORMING

ROOT = Path(__file__).parents[2]
SEED = 1
PACE = "200000"  # cycles a second: the guest needs the processor more
packages = fetched()
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800),
              pytest.mark.skipif(packages is None, reason=f"no guest has been fetched: `make guest`, or `{FETCH}`")]


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A device with an endpoint, in a run directory of this test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with SimProcess("card", [*CONFORMING, "--no-pty", "--seed", "1", "--pace", PACE]) as process:
        yield process


def script(guest: Guest, device: SimProcess, name: str, *arguments: str) -> dict[str, Any]:
    """What a script beside this one prints in the guest."""
    done = guest.run([sys.executable, "-m", f"tests.e2e.{name}", *arguments], directory=ROOT, timeout=1200)
    assert done.code == 0, f"{done.errors}\n{guest.log()}\n{device.errors()}"
    document: dict[str, Any] = json.loads(done.output)
    return document


def test_software_in_a_guest_finds_identifies_and_drives_the_card(device):
    """Found, identified, watched, allocated, DMA, interrupts, as another link of the device tells too."""
    print(f"seed {SEED}")
    with Guest(packages, rundir.device_dir(device.name) / SOCKET_NAME) as guest:
        listed = guest.run([sys.executable, "-m", "morphnic", "list", "--json"], directory=ROOT, timeout=600)
        assert listed.code == 0, listed.errors
        assert "pcie://0000:01:00.0" in listed.output
        told = script(guest, device, "card_in_guest", str(SEED))
        print(guest.kernel, json.dumps({name: told[name] for name in (
            "seconds", "resource0", "read_us", "dma_4096_us", "interrupt_us")}, indent=1))
        with device_link.open(device.url, timeout=20) as other:
            assert (told["identity"]["uid"], told["identity"]["build_id"]) == (
                other.identity.uid, other.identity.build_id)
            assert told["resource0"]["uid"] == other.identity.uid
            assert told["windows"][0] < told["windows"][1]
            assert told["allocation"] == {"epoch": other.rm.active.read().epoch, "tag": 42, "before": 0}
            assert int(other.rm.active_tag.read()) == 42
