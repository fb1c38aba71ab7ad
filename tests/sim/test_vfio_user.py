"""The function of a simulated device as QEMU has it: configuration space, registers, memory, vectors, and resets."""

from __future__ import annotations

import os
import random
import select
import struct
import time

import pytest

import device_link
from device_link import rundir
from device_link.pcie.transport import BarTransport
from device_link.registers import MAGIC, register_map
from gateware.pcie.endpoint import MSIX_ADDRESS, Endpoint
from gateware.pcie.host import vectors as vectors_of
from morphnic.errors import DeviceBusy
from sim.config_space import ConfigSpace
from sim.process import SimProcess
from sim.vfio_user import (
    BAR0,
    CONFIG,
    DATA_EVENTFD,
    DEVICE_INFO,
    HEADER,
    IRQ_INFO,
    IRQ_SET,
    MSIX,
    REGION_INFO,
    SOCKET_NAME,
    Command,
)
from tests.sim.pcie_standin import CONFIG as CONFIG_OF_DEVICE
from tests.sim.pcie_steps import DONE, GUEST, READ, UNSUPPORTED, WRITE, grant, sends_to_itself, transfer
from tests.sim.test_pcie import TOP, opened
from tests.sim.vfio_client import TRIGGER, Refused, VfioClient

STOPPED = 4
VECTORS = vectors_of(CONFIG_OF_DEVICE)
MEMORY, BUS_MASTER = 2, 4


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """One device for the tests of this file: each leaves its function as it was."""
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        with SimProcess("x", [*TOP, "--no-pty", "--seed", "1"]) as started:
            yield started


@pytest.fixture
def client(process):
    made = connected(process)
    yield made
    made.close()


def connected(process) -> VfioClient:
    """The server may have to notice first that the client of before has gone."""
    deadline = time.monotonic() + 20
    while True:
        made = VfioClient(rundir.device_dir(process.name) / SOCKET_NAME)
        try:
            answer = made.ask(Command.VERSION, struct.pack("<HH", 0, 0) + b"{}\0")
        except (ConnectionError, BrokenPipeError):
            made.close()
            assert time.monotonic() < deadline
            continue
        assert struct.unpack_from("<HH", answer) == (0, 0)
        return made


def device_of(client: VfioClient) -> device_link.Device:
    return device_link.Device(BarTransport(client, url="pcie://guest", writer=True))


@pytest.mark.slow
def test_what_a_kernel_looks_for_in_the_configuration_space_is_there(client):
    def field(place: int, kind: str) -> int:
        return struct.unpack("<" + kind, client.read(CONFIG, place, struct.calcsize(kind)))[0]

    assert (field(0, "H"), field(2, "H")) == (0x1AF4, 0x10F4)
    assert field(6, "H") & 0x10  # a list of capabilities
    assert (field(0x0E, "B"), field(0x3D, "B")) == (0, 0)  # an endpoint without a pin
    client.write(CONFIG, 0x10, b"\xff" * 4)
    assert field(0x10, "I") == 0x1_0000_0000 - (1 << 18)
    table = client.capability(0x11)
    vectors = (field(table + 2, "H") & 0x7FF) + 1
    express = client.capability(0x10)
    assert field(express + 4, "I") & 1 << 28  # function-level reset
    endpoint = Endpoint(CONFIG_OF_DEVICE.pcie_width, CONFIG_OF_DEVICE.tenants, VECTORS)
    assert (field(table + 4, "I"), field(table + 8, "I")) == (MSIX_ADDRESS, endpoint.pba_address)
    with device_of(client) as device:
        assert int(device.pcie.link.read().vectors) == vectors == VECTORS
        client.write(CONFIG, express + 8, struct.pack("<H", 5 << 12 | 5 << 5))
        link = device.pcie.link.read()
        assert (link.max_read, link.max_payload) == (5, 1)


@pytest.mark.slow
def test_regions_and_interrupts_are_those_of_a_pci_device(client):
    assert DEVICE_INFO.unpack(client.ask(Command.DEVICE_GET_INFO, DEVICE_INFO.pack(16, 0, 0, 0)))[1:] == (3, 9, 5)
    sizes = [REGION_INFO.unpack(client.ask(Command.DEVICE_GET_REGION_INFO, REGION_INFO.pack(32, 0, index, 0, 0, 0)))
             for index in range(9)]
    assert [(one[1], one[4]) for one in sizes] == [(3, 1 << 18)] + 6 * [(0, 0)] + [(3, 4096), (0, 0)]
    counts = [IRQ_INFO.unpack(client.ask(Command.DEVICE_GET_IRQ_INFO, IRQ_INFO.pack(16, 0, index, 0)))
              for index in range(5)]
    assert [one[3] for one in counts] == [0, 0, VECTORS, 0, 0]


@pytest.mark.slow
def test_dma_reaches_what_is_mapped_while_the_guest_lets_it(client):
    """With memory in single pages, anywhere in a file, as behind an IOMMU."""
    rng = random.Random(3)
    client.command(MEMORY)
    with device_of(client) as device, device.transport.map_memory(3 * 4096) as memory:
        content = rng.randbytes(len(memory.view))
        memory.view[:] = content
        grant(device, memory.bus_address, len(memory.view))
        assert transfer(device, READ, GUEST, 64) == STOPPED
        client.command(MEMORY | BUS_MASTER)
        assert transfer(device, READ, GUEST + 3001, 4096) == DONE
        words = device.dma_buffer.words(0, 1024)
        assert b"".join(word.to_bytes(4, "little") for word in words) == content[3001:7097]
        assert transfer(device, WRITE, GUEST + 7, 4090) == DONE
        assert bytes(memory.view) == content[:7] + content[3001:7091] + content[4097:]
        sends_to_itself(device, memory, tenant=1, rng=rng)
        client.unmap(memory.bus_address + 4096, 4096)
        assert transfer(device, READ, GUEST, 64) == DONE
        assert transfer(device, READ, GUEST + 4096, 64) == UNSUPPORTED
        # Memory that comes without a descriptor is out of reach, and is taken back without a complaint.
        client.map(memory.bus_address + 4096, 4096, None)
        assert transfer(device, READ, GUEST + 4096, 64) == UNSUPPORTED


@pytest.mark.slow
def test_a_reset_takes_bus_mastering_and_leaves_memory_and_vectors(client):
    client.command(MEMORY | BUS_MASTER)
    express = client.capability(0x10)
    with device_of(client) as device, device.transport.map_memory(4096) as memory:
        events = client.interrupts(4)
        grant(device, memory.bus_address, 4096)
        assert transfer(device, READ, GUEST, 64) == DONE
        assert select.select([events[3]], [], [], 20)[0]
        os.eventfd_read(events[3])
        device.id.scratch.write(77)
        for reset in (client.reset, lambda: client.write(CONFIG, express + 8, struct.pack("<H", 0x8000))):
            reset()
            assert client.read(CONFIG, 4, 2) == bytes(2)
            assert transfer(device, READ, GUEST, 64) == STOPPED
            assert not select.select(events, [], [], 0)[0]  # a message is a request too
            client.command(MEMORY | BUS_MASTER)
            assert transfer(device, READ, GUEST, 64) == DONE
            assert select.select([events[3]], [], [], 20)[0]
            os.eventfd_read(events[3])
            assert int(device.id.scratch.read()) == 77
        assert not select.select(events[:3], [], [], 0)[0]
        client.interrupts(0)
        assert not device.pcie.link.read().msix_enable


@pytest.mark.slow
@pytest.mark.parametrize(("command", "payload"), [
    (99, b""), (Command.REGION_READ, b"short"), (Command.REGION_READ, struct.pack("<QII", 1 << 18, BAR0, 4)),
    (Command.REGION_READ, struct.pack("<QII", 2, BAR0, 4)), (Command.REGION_READ, struct.pack("<QII", 0, 3, 4)),
    (Command.REGION_READ, struct.pack("<QII", 4094, CONFIG, 4)),
    (Command.REGION_WRITE, struct.pack("<QII", 0, BAR0, 8) + bytes(4)),
    (Command.DMA_MAP, bytes(5)), (Command.VERSION, struct.pack("<HH", 1, 0)),
    (Command.DEVICE_GET_REGION_INFO, REGION_INFO.pack(32, 0, 9, 0, 0, 0)),
    (Command.DEVICE_GET_IRQ_INFO, IRQ_INFO.pack(16, 0, 5, 0)),
    (Command.DEVICE_SET_IRQS, IRQ_SET.pack(20, DATA_EVENTFD | TRIGGER, MSIX, VECTORS - 1, 2)),
    (Command.DEVICE_SET_IRQS, IRQ_SET.pack(20, TRIGGER, MSIX, 0, 1)),
])
def test_what_cannot_be_carried_out_is_answered_with_an_error(client, command, payload):
    with pytest.raises(Refused, match="22"):
        client.ask(command, payload)
    assert client.read32(0) == MAGIC


@pytest.mark.slow
def test_one_at_a_time_holds_the_function_and_leaves_nothing_behind(process, client):
    second = VfioClient(rundir.device_dir(process.name) / SOCKET_NAME)
    with pytest.raises((ConnectionError, BrokenPipeError)):
        second.ask(Command.VERSION, struct.pack("<HH", 0, 0) + b"{}\0")
    second.close()
    with pytest.raises(DeviceBusy):
        opened(process)
    descriptor = os.memfd_create("guest")
    os.ftruncate(descriptor, 4096)
    client.map(0x10_0000, 4096, descriptor)
    os.close(descriptor)
    client.interrupts(2)
    client.socket.send(HEADER.pack(1, Command.DEVICE_RESET, 8, 0, 0))  # shorter than a header: it is thrown out
    with pytest.raises(ConnectionError):
        client.answer(Command.DEVICE_RESET)
    client.close()
    deadline = time.monotonic() + 20
    while True:
        try:
            with opened(process) as device:
                assert not device.pcie.link.read().msix_enable
                grant(device, 0x10_0000, 4096)
                assert transfer(device, READ, GUEST, 4) == UNSUPPORTED
            break
        except DeviceBusy:
            assert time.monotonic() < deadline


def test_read_only_bytes_of_the_configuration_space_stay_as_they_are():
    space = ConfigSpace(6, 0x20000, 0x20080, 1 << 18)
    before = space.read(0, 4096)
    reset = space.write(0, bytes(255 for _ in range(4096)))
    assert reset
    changed = [index for index, (old, new) in enumerate(zip(before, space.read(0, 4096), strict=True)) if old != new]
    assert changed == [4, 5, 0x12, 0x13, 0x48, 0x49, 0x83]
    assert register_map().block("msix").address == 0x20000
    space.reset()
    assert space.read(0, 4096) == before
    with pytest.raises(ValueError, match="not in the configuration space"):
        space.read(4093, 4)
