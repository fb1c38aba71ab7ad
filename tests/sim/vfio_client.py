"""`VfioClient`: the client's side of vfio-user, as QEMU's is, without a guest behind it."""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
from pathlib import Path

from device_link.pcie.function import ALL_ONES, DMA_FIRST, Function, HostMemory
from sim.vfio_user import (
    ACCESS,
    BAR0,
    CONFIG,
    DATA_EVENTFD,
    DATA_NONE,
    DMA_MAP,
    DMA_UNMAP,
    ERROR,
    HEADER,
    IRQ_SET,
    MSIX,
    NO_REPLY,
    Command,
)

TRIGGER = 1 << 5


class Refused(Exception):
    """The server answered with an error number."""


class VfioClient(Function):
    """A function over the socket at `path`; what a guest's kernel does with it, a test asks for."""

    dma = True
    message_interrupts = True

    def __init__(self, path: Path):
        super().__init__(f"the function at {path}")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        self.number = 0
        self.events: list[int] = []
        self.next_address = DMA_FIRST

    def ask(self, command: int, payload: bytes, descriptors: list[int] | None = None) -> bytes:
        """The payload of the answer; raises `Refused`."""
        self.send(command, payload, descriptors)
        return self.answer(command)

    def send(self, command: int, payload: bytes, descriptors: list[int] | None = None, flags: int = 0) -> None:
        self.number += 1
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.socket.sendmsg([HEADER.pack(self.number, command, HEADER.size + len(payload), flags, 0), payload], rights)

    def answer(self, command: int) -> bytes:
        number, told, size, flags, fault = HEADER.unpack(self._exactly(HEADER.size))
        payload = self._exactly(size - HEADER.size)
        assert (number, told, flags & 0xF) == (self.number, command, 1)
        if flags & ERROR:
            raise Refused(fault)
        return payload

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return data

    def read(self, region: int, offset: int, size: int) -> bytes:
        head = ACCESS.pack(offset, region, size)
        answer = self.ask(Command.REGION_READ, head)
        assert answer[:ACCESS.size] == head
        return answer[ACCESS.size:]

    def write(self, region: int, offset: int, content: bytes, *, posted: bool = False) -> None:
        payload = ACCESS.pack(offset, region, len(content)) + content
        if posted:
            self.send(Command.REGION_WRITE, payload, flags=NO_REPLY)
        else:
            assert self.ask(Command.REGION_WRITE, payload) == payload[:ACCESS.size]

    def read32(self, offset: int) -> int:
        return int.from_bytes(self.read(BAR0, offset, 4), "little")

    def write32(self, offset: int, word: int) -> None:
        self.write(BAR0, offset, (word & ALL_ONES).to_bytes(4, "little"), posted=True)

    def command(self, word: int) -> None:
        """Write the command register."""
        self.write(CONFIG, 4, word.to_bytes(2, "little"))

    def map(self, address: int, size: int, descriptor: int | None, rights: int = 3, offset: int = 0) -> None:
        self.ask(Command.DMA_MAP, DMA_MAP.pack(DMA_MAP.size, rights, offset, address, size),
                 [] if descriptor is None else [descriptor])

    def unmap(self, address: int, size: int) -> None:
        self.ask(Command.DMA_UNMAP, DMA_UNMAP.pack(DMA_UNMAP.size, 0, address, size))

    def map_memory(self, size: int) -> HostMemory:
        """In pages that are mapped one by one, from a file in which they lie behind others, as an IOMMU has it."""
        size = -(-size // 4096) * 4096
        address = self.next_address
        self.next_address += size
        descriptor = os.memfd_create("guest")
        os.ftruncate(descriptor, 8192 + size)
        shared = mmap.mmap(descriptor, 8192 + size)
        for at in range(0, size, 4096):
            self.map(address + at, 4096, descriptor, offset=8192 + at)
        os.close(descriptor)
        return HostMemory(memoryview(shared)[8192:], address, lambda: self.unmap(address, size))

    def interrupts(self, count: int) -> list[int]:
        """One message a vector, as QEMU adds them."""
        self.ask(Command.DEVICE_SET_IRQS, IRQ_SET.pack(IRQ_SET.size, DATA_NONE | TRIGGER, MSIX, 0, 0))
        self.events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
        for vector, event in enumerate(self.events):
            self.ask(Command.DEVICE_SET_IRQS, IRQ_SET.pack(IRQ_SET.size, DATA_EVENTFD | TRIGGER, MSIX, vector, 1),
                     [event])
        return list(self.events)

    def reset(self) -> None:
        self.ask(Command.DEVICE_RESET, b"")

    def capability(self, number: int) -> int:
        """Place of a capability, by the list in the configuration space."""
        place = self.read(CONFIG, 0x34, 1)[0]
        while place:
            found, following = struct.unpack("<BB", self.read(CONFIG, place, 2))
            if found == number:
                return place
            place = following
        raise AssertionError(f"no capability {number:#x}")

    def close(self) -> None:
        self.socket.close()
