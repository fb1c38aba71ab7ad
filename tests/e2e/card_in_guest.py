"""What `test_guest` has done inside a guest: the whole way of a server's software with a card, step by step.

Runs as root of a guest whose slot 1 has the function. Prints one JSON document; a step that fails raises.
"""

from __future__ import annotations

import json
import os
import random
import select
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import device_link
from device_link import conformance
from device_link.discovery import discover
from device_link.pcie.linux import SysfsFunction
from device_link.pcie.vfio import VfioFunction
from device_link.transport import BusError, Capability
from morphnic.commands.watch import windows
from morphnic.errors import AllocationRefused, UnsupportedCapability
from offload_manager.allocation import Guarantee
from offload_manager.driver import AllocationDriver
from tests.sim.pcie_steps import DONE, GUEST, NO_REGION, READ, UNSUPPORTED, WRITE, grant, sends_to_itself, transfer

SYSFS = Path("/sys/bus/pci")
WINDOW_CYCLES = 100_000


def microseconds(action: Callable[[], object], times: int = 200) -> dict[str, float]:
    """Median and 99th percentile of one call of `action`."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append((time.perf_counter() - start) * 1e6)
    return {"median": statistics.median(taken), "p99": statistics.quantiles(taken, n=100, method="inclusive")[-1]}


def must_raise(kind: type[Exception], action: Callable[[], object]) -> None:
    """As `pytest.raises`, without seconds of import."""
    try:
        action()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def found() -> str:
    """The URL of the one function that discovery finds."""
    (candidate,) = [one for one in discover() if one.kind == "pcie"]
    return candidate.url


def through_resource0(url: str) -> dict[str, object]:
    """Registers alone, with the driver of nobody."""
    switch = SYSFS / "devices" / url.removeprefix("pcie://") / "enable"
    switch.write_text("1")
    with device_link.open(url, writer=True, timeout=20) as device:
        assert isinstance(device.transport.function, SysfsFunction)
        device.id.scratch.write(0xFFFF_FFFF)
        assert int(device.id.scratch.read()) == 0xFFFF_FFFF
        must_raise(BusError, lambda: device.transport.read(0x200))
        must_raise(UnsupportedCapability, lambda: device.transport.map_memory(1))
        read = device.transport.function.read32
        told = {"uid": device.identity.uid, "read_us": microseconds(lambda: read(0))}
    switch.write_text("0")
    return told


def bind_to_vfio(address: str) -> None:
    """As the guide says."""
    (SYSFS / "devices" / address / "driver_override").write_text("vfio-pci")
    (SYSFS / "drivers_probe").write_text(address)


def telemetry(device: device_link.Device) -> list[int]:
    """Numbers of two windows that ended while this looked on."""
    device.analyzer.window.write(WINDOW_CYCLES)
    seen = []
    for window in windows(device, timeout=120):
        seen.append(window["number"])
        assert len(window["tenants"]) == device.identity.config.tenants
        if len(seen) == 2:
            return seen
    raise AssertionError


def allocation(device: device_link.Device) -> dict[str, object]:
    """Commit a table that gives tenant 1 the host port and its memory, and have a wrong one refused."""
    driver = AllocationDriver(device, token=11)
    driver.claim()
    none = [Guarantee()] * driver.limits.tenants
    base = driver.read_active()
    half = replace(base.rows[0], weight=base.rows[0].weight // 2, pages=base.rows[0].pages // 2)
    target = base.with_rows({0: half, 1: replace(half, slots=0)})
    driver.prepare(target, base, 42, none)
    done = driver.commit(100_000_000)
    driver.confirm()
    assert driver.read_active() == replace(target, epoch=done.epoch)

    def on_the_table_of_before() -> None:
        driver.prepare(base, base, 43, none)
        driver.commit(0)

    must_raise(AllocationRefused, on_the_table_of_before)
    state = driver.state()
    return {"epoch": state.epoch, "tag": state.active_tag, "before": base.epoch}


def dma(device: device_link.Device, rng: random.Random) -> None:
    """Both ways, within what is granted and not beyond it; then through the queue of the tenant."""
    with device.transport.map_memory(3 * 4096) as memory:
        content = rng.randbytes(len(memory.view))
        memory.view[:] = content
        grant(device, memory.bus_address, 2 * 4096)
        assert transfer(device, READ, GUEST + 3001, 4096) == DONE
        words = device.dma_buffer.words(0, 1024)
        assert b"".join(word.to_bytes(4, "little") for word in words) == content[3001:7097]
        assert transfer(device, WRITE, GUEST + 13, 4000) == DONE
        assert bytes(memory.view) == content[:13] + content[3001:7001] + content[4013:]
        assert transfer(device, WRITE, GUEST + 8192 - 8, 9) == NO_REGION
        assert bytes(memory.view[8192:]) == content[8192:]
    assert transfer(device, READ, GUEST, 4) == UNSUPPORTED  # the IOMMU has it no more
    with device.transport.map_memory(0x3000) as memory:
        sends_to_itself(device, memory, tenant=1, rng=rng)


def interrupts(device: device_link.Device) -> dict[str, object]:
    """Vector 3 comes when a transfer ends, once each time, and no other does; how long after its command was posted."""
    events = device.transport.interrupts(4)
    register = device.dma.command.register.address

    def ended() -> None:
        assert select.select([events[3]], [], [], 60)[0]
        assert os.eventfd_read(events[3]) == 1

    def round_trip(command: int) -> None:
        device.transport.function.write32(register, command)
        ended()

    with device.transport.map_memory(4096) as memory:
        grant(device, memory.bus_address, len(memory.view))
        assert transfer(device, WRITE, GUEST, 4096) == DONE
        ended()
        moved = {"to host": microseconds(lambda: round_trip(WRITE), 50),
                 "to device": microseconds(lambda: round_trip(READ), 50)}
        assert device.dma.status.read().outcome == DONE
        device.region[8].rights.write(0)
    nothing = microseconds(lambda: round_trip(READ), 50)
    assert device.dma.status.read().outcome == NO_REGION
    assert not select.select(events, [], [], 0)[0]
    device.transport.interrupts(0)
    return {"interrupt_us": nothing, "dma_us": moved}


def drive(seed: int) -> dict[str, object]:
    """All steps, in order; what was found and measured."""
    rng, clock = random.Random(seed), time.monotonic()
    url = found()
    told: dict[str, object] = {"resource0": through_resource0(url)}
    bind_to_vfio(url.removeprefix("pcie://"))
    report = conformance.run(url, timeout=20, only=["identity", "device-time", "scratch", "read-only", "lists"])
    assert report.passed, [(one.name, one.message) for one in report.results if one.outcome == "fail"]
    with device_link.open(url, writer=True, timeout=20) as device:
        function = device.transport.function
        assert isinstance(function, VfioFunction)
        assert Capability.MMIO | Capability.DMA | Capability.INTERRUPTS in device.capabilities
        told["identity"] = asdict(device.identity)
        told["read_us"] = microseconds(lambda: function.read32(0))
        told["windows"] = telemetry(device)
        told["allocation"] = allocation(device)
        dma(device, rng)
        told |= interrupts(device)
    return told | {"seconds": time.monotonic() - clock}


if __name__ == "__main__":
    print(json.dumps(drive(int(sys.argv[1]))))
