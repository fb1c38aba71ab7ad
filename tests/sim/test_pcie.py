"""The simulated device behind its PCIe function: registers, DMA and interrupts, as a program of the host has them."""

from __future__ import annotations

import os
import random
import select
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import device_link
from device_link import conformance, rundir
from device_link.discovery import discover
from device_link.operations import Read
from device_link.pcie.transport import BarTransport
from device_link.selftest import run_selftest
from device_link.transport import BusError, Capability
from morphnic.errors import DeviceBusy, DeviceNotFound, LinkLost, UnsupportedCapability
from offload_manager.allocation import Limits
from offload_manager.loop import ControlLoop, LoopSettings
from offload_manager.policy_file import PolicySource
from offload_manager.store import MemoryStore
from sim.process import SimProcess
from tests.sim.pcie_standin import SETTINGS
from tests.sim.pcie_steps import (
    DONE,
    GUEST,
    NO_REGION,
    NO_RIGHT,
    PAYLOAD,
    READ,
    TX,
    UNSUPPORTED,
    WRITE,
    grant,
    post,
    rings,
    sends_to_itself,
    transfer,
)

TOP = ("--top", "tests.sim.pcie_standin:PcieStandIn", *SETTINGS)


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimProcess]:
    """A device that runs freely, in a run directory of this test's own."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    with SimProcess("x", [*TOP, "--no-pty", "--seed", "1"]) as started:
        yield started


def opened(process: SimProcess) -> device_link.Device:
    return device_link.open(f"pcie://{process.name}", writer=True, timeout=20)


@pytest.mark.slow
def test_registers_memory_and_interrupts_over_the_simulated_function(process):
    """One start of the device for what needs one that runs."""
    rng = random.Random(1)
    descriptors = Path(f"/proc/{process.ready.pid}/fd")
    report = conformance.run(f"pcie://{process.name}", timeout=20,
                             only=["identity", "device-time", "scratch", "read-only", "lists"])
    assert [(one.name, one.outcome, one.message) for one in report.results if one.outcome != "pass"] == []
    assert f"pcie://{process.name}" in [candidate.url for candidate in discover()]
    with opened(process) as device:
        held = len(list(descriptors.iterdir()))
        assert Capability.MMIO | Capability.DMA | Capability.INTERRUPTS in device.capabilities
        assert device.identity.config.pcie_width == 64
        with pytest.raises(DeviceBusy, match="held by another process"):
            opened(process)
        # A register that holds ones is no refusal, and a refusal is no value.
        device.id.scratch.write(0xFFFF_FFFF)
        assert int(device.id.scratch.read()) == 0xFFFF_FFFF
        with pytest.raises(BusError, match=r"port\[0\].admitted"):
            device.port[0].admitted.read()

        tested = run_selftest(device, only=["dma", "interrupts"]).results
        assert [(one.outcome, one.message) for one in tested] == [("pass", ""), ("pass", "")]
        assert not int(device.region[0].rights.read())
        with device.transport.map_memory(10_000) as memory:
            content = rng.randbytes(len(memory.view))
            memory.view[:] = content
            grant(device, memory.bus_address, 8192)
            assert transfer(device, READ, GUEST + 4001, 4096) == DONE
            words = device.dma_buffer.words(0, 1024)
            assert b"".join(word.to_bytes(4, "little") for word in words) == content[4001:8097]
            assert transfer(device, WRITE, GUEST + 13, 4000) == DONE
            assert bytes(memory.view) == content[:13] + content[4001:8001] + content[4013:]
            # What is mapped, and not granted, is out of reach; so is what is granted to be read only.
            assert transfer(device, WRITE, GUEST + 8192 - 8, 9) == NO_REGION
            grant(device, memory.bus_address, 8192, rights=1)
            assert transfer(device, WRITE, GUEST, 4) == NO_RIGHT
            assert bytes(memory.view) == content[:13] + content[4001:8001] + content[4013:]
        # What is granted, and not mapped any more, is answered as the IOMMU would.
        assert transfer(device, READ, GUEST, 4) == UNSUPPORTED

        with device.transport.map_memory(0x3000) as memory:
            sends_to_itself(device, memory, tenant=1, rng=rng)
        events = device.transport.interrupts(4)
        window, ended = events[0], events[3]
        assert transfer(device, READ, GUEST, 0) != DONE
        assert select.select([ended], [], [], 20)[0]
        assert os.eventfd_read(ended) == 1
        assert not select.select([window], [], [], 0)[0]
        device.interrupt.enable.write(window=1)
        assert select.select([window], [], [], 20)[0]
        device.interrupt.enable.write(window=0)
    # Whoever lets go of it leaves nothing behind.
    with opened(process) as device:
        assert len(list(descriptors.iterdir())) == held
        assert not device.pcie.link.read().msix_enable
        descriptor = device.transport.function._socket.fileno()
        process.kill()
        assert descriptor >= 0
        with pytest.raises(LinkLost, match="gone"):
            device.id.scratch.read()


def test_a_device_without_an_endpoint_has_no_function(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert rundir.running() == []
    for name in ("sim0", "0000:zz:00.0"):
        with pytest.raises(DeviceNotFound, match="pcie_width=64"):
            device_link.open(f"pcie://{name}")


def test_registers_alone_cannot_do_dma():
    from device_link.pcie.function import Function

    class Registers(Function):
        def read32(self, offset):
            return 0

        def write32(self, offset, word):
            pass

        def close(self):
            pass

    transport = BarTransport(Registers("the function x"), url="pcie://x")
    assert Capability.DMA not in transport.capabilities
    with pytest.raises(UnsupportedCapability, match="vfio-pci"):
        transport.map_memory(1)


CONFORMING = [word for text in (
    "pcie_width=64", "host_queues=1", "ports=2", "tenants=4", "slots=1", "rules=1", "pages=32", "classifier_entries=2",
    "histograms=0", "access_patterns=0", "forecasts=0") for word in ("--set", text)]


@pytest.mark.long
def test_conformance_suite_passes_over_pcie_as_over_the_socket_and_the_serial_port(tmp_path, monkeypatch):
    """The same checks of the same device; over PCIe and over UART at the same time where both may write."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with SimProcess("c", [*CONFORMING, "--seed", "1"]) as process:
        for url in (f"pcie://{process.name}", process.url, f"uart://{process.ready.pty}"):
            report = conformance.run(url, timeout=20)
            assert report.passed, [(one.name, one.message) for one in report.results if one.outcome == "fail"]
            print(url, [f"{one.name} {one.outcome} {one.seconds:.2f} s" for one in report.results])
        with opened(process) as device, device.transport.map_memory(0x3000) as memory:
            # After reset tenant 0 owns everything: its packets go through the fabric and come back.
            sends_to_itself(device, memory, tenant=0, rng=random.Random(2))
            # Tenant 1 is granted nothing: what it posts does not reach anybody.
            rings(device, memory, tenant=1)
            post(memory, TX, 0, (GUEST + PAYLOAD, 0, 64, 0))
            device.queue[1].tx_tail.write(1)
            received = int(device.queue[0].received.read())
            device.transport.execute([Read(device.id.scratch.address)] * 500)
            assert (int(device.queue[0].received.read()), int(device.queue[1].received.read())) == (received, 0)


@pytest.mark.long
def test_a_control_loop_owns_a_device_over_pcie(tmp_path, monkeypatch):
    """Its windows are those that the function tells, one after the other, and its first table is in force in them."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with SimProcess("c", [*CONFORMING, "--no-pty", "--seed", "1"]) as process, opened(process) as device:
        loop = ControlLoop(device, PolicySource(Limits.of(device.identity.config, 16)), MemoryStore(),
                           LoopSettings(window_cycles=100_000))
        loop.start()
        assert loop.commits == 1
        assert not device.link.control.read().push
        windows = [step.window for _ in range(4) if (step := loop.step(60)) is not None]
        assert len(windows) == 4
        assert [one.epoch for one in windows[1:]] == [loop.active.epoch] * 3
        for before, after in pairwise(windows):
            missing = after.number - before.number - 1
            assert missing == after.skipped - before.skipped
