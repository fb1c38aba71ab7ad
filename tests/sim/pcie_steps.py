"""What a driver does with the PCIe function, step by step, for tests on both sides of a guest's wall.

Little is imported: a guest under emulation takes many seconds over each large package.
"""

from __future__ import annotations

import random
import select
import struct
import time

import device_link
from device_link.pcie.function import HostMemory

READ, WRITE = 1, 2
DONE, NO_REGION, NO_RIGHT, UNSUPPORTED, BAD_INDEX = 0, 1, 2, 7, 13
GUEST, GENERATION = 0x7000_0000, 4
TX, RX, PAYLOAD, INBOX, ENTRIES = 0x000, 0x100, 0x400, 0x1000, 4


def grant(device: device_link.Device, bus: int, size: int, rights: int = 3, tenant: int = 1) -> None:
    """Region 0 of the tenant."""
    row = device.region[8 * tenant]
    device.write([(row.rights, 0), (row.base_lo, GUEST), (row.base_hi, 0), (row.size_lo, size), (row.size_hi, 0),
                  (row.bus_lo, bus), (row.bus_hi, 0), (row.rights, GENERATION << 8 | rights)])


def transfer(device: device_link.Device, command: int, address: int, length: int) -> int:
    """Outcome of a transfer of the buffer, for tenant 1."""
    dma = device.dma
    device.write([(dma.address_lo, address), (dma.address_hi, 0), (dma.length, length),
                  (dma.owner, {"tenant": 1, "generation": GENERATION}), (dma.command, command)])
    while (status := dma.status.read()).busy:
        pass
    return int(status.outcome)


def rings(device: device_link.Device, memory: HostMemory, tenant: int) -> None:
    """Grant `memory` to the tenant, and enable its queue with empty rings."""
    grant(device, memory.bus_address, len(memory.view), tenant=tenant)
    memory.view[:PAYLOAD] = bytes(PAYLOAD)
    queue = device.queue[tenant]
    device.write([(queue.control, 0), (queue.tx_tail, 0), (queue.rx_tail, 0), (queue.tx_lo, GUEST + TX),
                  (queue.tx_hi, 0), (queue.rx_lo, GUEST + RX), (queue.rx_hi, 0),
                  (queue.control, {"enable": 1, "order": 2, "generation": GENERATION})])


def post(memory: HostMemory, ring: int, index: int, words: tuple[int, int, int, int]) -> None:
    struct.pack_into("<4I", memory.view, ring + 16 * (index % ENTRIES), *words)


def given_back(memory: HostMemory, ring: int, index: int) -> tuple[int, int]:
    """Length and status, once the descriptor is done."""
    deadline, place = time.monotonic() + 20, ring + 16 * (index % ENTRIES) + 8
    while time.monotonic() < deadline:
        (word,) = struct.unpack_from("<I", memory.view, place + 4)
        if word >> 31:  # the length is read behind that, as a driver does: both at once may be half old
            return struct.unpack_from("<I", memory.view, place)[0], word >> 16 & 15
    raise AssertionError("a descriptor is not given back")


def sends_to_itself(device: device_link.Device, memory: HostMemory, tenant: int, rng: random.Random) -> None:
    """Packets to the host port, between them one that names memory out of reach, come back in order and whole."""
    rings(device, memory, tenant)
    queue, vector = device.queue[tenant], device.transport.interrupts(16)[4 + tenant]
    for index in range(2 * ENTRIES):
        content = rng.randbytes(rng.randrange(1, 257))
        memory.view[PAYLOAD:PAYLOAD + len(content)] = content
        if index == 3:
            post(memory, TX, index, (GUEST + 0x3000 - len(content) + 1, 0, len(content), 0))
            queue.tx_tail.write(index + 1)
            assert given_back(memory, TX, index) == (0, NO_REGION)
            continue
        place = index - (index > 3)
        post(memory, RX, place, (GUEST + INBOX, 0, 256, 0))
        queue.rx_tail.write(place + 1)
        post(memory, TX, index, (GUEST + PAYLOAD, 0, len(content), 0))  # to port 0, the host's
        queue.tx_tail.write(index + 1)
        assert given_back(memory, TX, index) == (len(content), DONE)
        assert given_back(memory, RX, place) == (len(content), DONE)
        assert bytes(memory.view[INBOX:INBOX + len(content)]) == content
    assert [int(value) for value in device.read([queue.sent, queue.received, queue.refused, queue.dropped])] == [
        2 * ENTRIES - 1, 2 * ENTRIES - 1, 1, 0]
    assert select.select([vector], [], [], 20)[0]
    queue.tx_tail.write(2 * ENTRIES + ENTRIES + 1)
    deadline = time.monotonic() + 20
    while queue.control.read().enable:
        assert time.monotonic() < deadline
    assert int(queue.fault.read()) == BAD_INDEX
