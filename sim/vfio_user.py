"""The PCIe function of a simulated device as a vfio-user server: QEMU (10.1 or later) shows it to a guest.

The messages are those of QEMU's "vfio-user Protocol Specification", version 0.0; a name here is its name there. The
client's memory arrives as file descriptors and is mapped, so that DMA costs no message; memory that comes without one
stays out of the device's reach. Vectors are event descriptors. Of the configuration space there is what a card's
hard IP would have (`sim.config_space`); the guest's MSI-X table is kept by QEMU, and the device's is written here, as a
host's kernel does for vfio-pci. When the client goes, the function is reset and nothing of it stays.
"""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
import selectors
import socket
import struct
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from device_link.registers import register_map
from morphnic.errors import InputError, LinkTimeout

from .config_space import SPACE_BYTES, ConfigSpace
from .function_socket import FunctionSocket, close_all
from .root_complex import BAR_BYTES, RootComplex

log = logging.getLogger(__name__)

SOCKET_NAME = "vfio-user.sock"
HEADER = struct.Struct("<HHIII")  # message id, command, size, flags, error
REPLY, NO_REPLY, ERROR = 0x1, 0x10, 0x20
DMA_MAP = struct.Struct("<IIQQQ")  # argsz, flags, offset, address, size
DMA_UNMAP = struct.Struct("<IIQQ")  # argsz, flags, address, size
DEVICE_INFO = struct.Struct("<IIII")  # argsz, flags, regions, interrupts
REGION_INFO = struct.Struct("<IIIIQQ")  # argsz, flags, index, capabilities, size, offset
IRQ_INFO = struct.Struct("<IIII")  # argsz, flags, index, count
IRQ_SET = struct.Struct("<IIIII")  # argsz, flags, index, start, count
ACCESS = struct.Struct("<QII")  # offset, region, count
BAR0, CONFIG, REGIONS = 0, 7, 9
MSIX, INTERRUPTS = 2, 5
DATA_NONE, DATA_EVENTFD, ACTION_TRIGGER = 1 << 0, 1 << 2, 1 << 5
_RESETTABLE_PCI = 0b11
_READ_WRITE = 0b11
_UNMAP_ALL = 0b10
_LARGEST = 1 << 16  # bytes of a message
_MOST_DESCRIPTORS = 16  # the most that QEMU takes


class Command(IntEnum):
    """What a client asks for."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DEVICE_RESET = 13


class GuestFunction:
    """The function as one client has it: its configuration space, its memory, its interrupts."""

    def __init__(self, root: RootComplex) -> None:
        self._root = root
        table = register_map().block("msix").address
        pending = table + (16 << (root.available - 1).bit_length())
        self._config = ConfigSpace(root.available, table, pending, BAR_BYTES)
        self._memory: dict[int, tuple[int, mmap.mmap | None]] = {}
        self._events: dict[int, int] = {}
        self._commands: dict[int, Callable[[bytes, list[int]], bytes]] = {
            Command.VERSION: self._version, Command.DMA_MAP: self._map, Command.DMA_UNMAP: self._unmap,
            Command.DEVICE_GET_INFO: self._device_info, Command.DEVICE_GET_REGION_INFO: self._region_info,
            Command.DEVICE_GET_IRQ_INFO: self._interrupt_info, Command.DEVICE_SET_IRQS: self._set_interrupts,
            Command.REGION_READ: self._read, Command.REGION_WRITE: self._write, Command.DEVICE_RESET: self._reset}
        self._configure()

    def carry_out(self, command: int, payload: bytes, descriptors: list[int]) -> bytes:
        """The payload of the answer; takes out of `descriptors` what it keeps. What is wrong raises."""
        if command not in self._commands:
            raise InputError(f"command {command} is not known")
        return self._commands[command](payload, descriptors)

    def deliver(self, vectors: list[int]) -> None:
        """Tell the client of interrupts."""
        for vector in vectors:
            if vector in self._events:
                os.eventfd_write(self._events[vector], 1)

    def release(self) -> None:
        """As before the client came."""
        for address in list(self._memory):
            self._forget(address)
        self._close_events(list(self._events))
        self._root.reset()

    def _configure(self) -> None:
        self._root.configure(bus_master=self._config.bus_master, max_payload=self._config.max_payload,
                             max_read=self._config.max_read)

    def _version(self, payload: bytes, _: list[int]) -> bytes:
        major, minor = struct.unpack_from("<HH", payload)
        if major != 0:
            raise InputError(f"version {major}.{minor} is not spoken here")
        told = {"capabilities": {"max_msg_fds": _MOST_DESCRIPTORS, "max_data_xfer_size": _LARGEST - 64}}
        return struct.pack("<HH", 0, 0) + json.dumps(told).encode() + b"\0"

    def _map(self, payload: bytes, descriptors: list[int]) -> bytes:
        _, flags, offset, address, size = DMA_MAP.unpack(payload)
        shared = None
        if descriptors:
            shared = mmap.mmap(descriptors[0], size, offset=offset)
            try:
                self._root.map(address, shared, flags & _READ_WRITE)
            except InputError:
                shared.close()
                raise
        self._memory[address] = (size, shared)
        return b""

    def _unmap(self, payload: bytes, _: list[int]) -> bytes:
        _, flags, address, size = DMA_UNMAP.unpack(payload)
        for start, (length, _shared) in list(self._memory.items()):
            if flags & _UNMAP_ALL or (address <= start and start + length <= address + size):
                self._forget(start)
        return payload

    def _forget(self, address: int) -> None:
        _, shared = self._memory.pop(address)
        if shared is not None:
            self._root.unmap(address)
            shared.close()

    def _device_info(self, _: bytes, __: list[int]) -> bytes:
        return DEVICE_INFO.pack(DEVICE_INFO.size, _RESETTABLE_PCI, REGIONS, INTERRUPTS)

    def _region_info(self, payload: bytes, _: list[int]) -> bytes:
        index = REGION_INFO.unpack(payload)[2]
        if index >= REGIONS:
            raise InputError(f"region {index} does not exist")
        size = {BAR0: BAR_BYTES, CONFIG: SPACE_BYTES}.get(index, 0)
        return REGION_INFO.pack(REGION_INFO.size, _READ_WRITE if size else 0, index, 0, size, 0)

    def _interrupt_info(self, payload: bytes, _: list[int]) -> bytes:
        index = IRQ_INFO.unpack(payload)[2]
        if index >= INTERRUPTS:
            raise InputError(f"interrupts of kind {index} do not exist")
        return IRQ_INFO.pack(IRQ_INFO.size, int(index == MSIX), index, self._root.available if index == MSIX else 0)

    def _set_interrupts(self, payload: bytes, descriptors: list[int]) -> bytes:
        _, flags, index, start, count = IRQ_SET.unpack_from(payload)
        if index != MSIX or start + count > self._root.available:
            raise InputError(f"interrupts {start} to {start + count} of kind {index} do not exist")
        if flags == DATA_NONE | ACTION_TRIGGER and count == 0:
            self._close_events(list(self._events))
        elif flags == DATA_EVENTFD | ACTION_TRIGGER and len(descriptors) in (0, count):
            self._close_events([vector for vector in range(start, start + count) if vector in self._events])
            self._events.update(zip(range(start, start + count), descriptors, strict=False))
            descriptors.clear()
        else:
            raise InputError(f"interrupts cannot be set with flags {flags:#x} and {len(descriptors)} descriptors")
        self._enable_vectors()
        return b""

    def _enable_vectors(self) -> None:
        self._root.enable_vectors(max(self._events, default=-1) + 1)

    def _close_events(self, vectors: list[int]) -> None:
        for vector in vectors:
            os.close(self._events.pop(vector))

    def _read(self, payload: bytes, _: list[int]) -> bytes:
        offset, region, count = ACCESS.unpack(payload)
        if region == CONFIG:
            return payload + self._config.read(offset, count)
        self._check_words(region, offset, count)
        words = (self._root.read(address) for address in range(offset, offset + count, 4))
        return payload + b"".join(word.to_bytes(4, "little") for word in words)

    def _write(self, payload: bytes, _: list[int]) -> bytes:
        offset, region, count = ACCESS.unpack_from(payload)
        content = payload[ACCESS.size:]
        if len(content) != count:
            raise InputError(f"a write of {count} bytes has {len(content)}")
        if region == CONFIG:
            if self._config.write(offset, content):
                self._reset(b"", [])
            self._configure()
            return payload[:ACCESS.size]
        self._check_words(region, offset, count)
        for at in range(0, count, 4):
            self._root.write(offset + at, int.from_bytes(content[at:at + 4], "little"))
        return payload[:ACCESS.size]

    @staticmethod
    def _check_words(region: int, offset: int, count: int) -> None:
        if region != BAR0 or offset % 4 or count % 4 or offset + count > BAR_BYTES:
            raise InputError(f"{count} bytes at {offset:#x} of region {region} are no words of BAR0")

    def _reset(self, _: bytes, __: list[int]) -> bytes:
        """A reset of the function; memory stays mapped, and vectors are set up anew, as a host's kernel does it."""
        self._config.reset()
        self._root.reset()
        self._configure()
        self._enable_vectors()
        return b""


class VfioUserSocket(FunctionSocket):
    """The function for a guest, through its QEMU."""

    most_descriptors = _MOST_DESCRIPTORS

    def __init__(self, root: RootComplex, path: Path, selector: selectors.BaseSelector) -> None:
        super().__init__(root, path, socket.SOCK_STREAM, selector)
        self._function: GuestFunction | None = None
        self._waiting = bytearray()
        self._descriptors: list[int] = []

    def deliver(self, vectors: list[int]) -> None:
        """As `FunctionSocket`."""
        if self._function is not None:
            self._function.deliver(vectors)

    def _greet(self, peer: socket.socket, *, taken: bool) -> None:
        if not taken:
            self._function = GuestFunction(self._root)

    def _wanted(self) -> int:
        """Bytes of the header, or with it of the message, that have not come.

        Header and payload are read apart, so that descriptors, which come with the first byte of a message, are those
        of this one.
        """
        return (self._size() if len(self._waiting) >= HEADER.size else HEADER.size) - len(self._waiting)

    def _size(self) -> int:
        return int(HEADER.unpack_from(self._waiting)[2])

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        self._descriptors += descriptors
        self._waiting += data
        if len(self._waiting) >= HEADER.size and not HEADER.size <= self._size() <= _LARGEST:
            self._drop(f"a message of {self._size()} bytes is none")
        elif not self._wanted():
            self._serve()

    def _serve(self) -> None:
        number, command, _, flags, _ = HEADER.unpack_from(self._waiting)
        payload, descriptors = bytes(self._waiting[HEADER.size:]), self._descriptors
        self._waiting, self._descriptors = bytearray(), []
        assert self._function is not None
        kind, fault, result = REPLY, 0, b""
        try:
            result = self._function.carry_out(command, payload, descriptors)
        except (InputError, ValueError, OSError, struct.error) as error:
            log.warning("command %d of the guest's was refused: %s", command, error)
            kind, fault = REPLY | ERROR, errno.EINVAL
        except LinkTimeout as error:
            log.error("%s", error)
            kind, fault = REPLY | ERROR, errno.ETIMEDOUT
        finally:
            close_all(descriptors)
        if not flags & NO_REPLY:
            self._answer(HEADER.pack(number, command, HEADER.size + len(result), kind, fault) + result)

    def _release(self) -> None:
        function, self._function = self._function, None
        close_all(self._descriptors)
        self._waiting = bytearray()
        assert function is not None
        function.release()
