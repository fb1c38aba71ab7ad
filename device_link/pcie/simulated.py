"""The PCIe function of a simulated device: its socket, as a client uses it and as `sim.pcie` serves it.

Each datagram is one message; the first is an answer that says whether the function is free. What an operating system
would do is asked for in the way of vfio-pci: memory for DMA and event descriptors for interrupts are made here and
handed over (SCM_RIGHTS), so that DMA and interrupts go without this process being asked. One client at a time holds the
function, and when it goes the function is reset.
"""

from __future__ import annotations

import array
import contextlib
import errno
import mmap
import os
import socket
import struct
from enum import IntEnum
from pathlib import Path

from morphnic.errors import DeviceBusy, DeviceNotFound, LinkError, LinkLost, LinkTimeout

from .. import rundir
from .function import Function, HostMemory, whole_pages

SOCKET_NAME = "pcie.sock"
#: operation, word or number, address, size. A write is not answered.
REQUEST = struct.Struct("<B3xIQQ")
#: 0 or an error number, word.
ANSWER = struct.Struct("<iI")


class Op(IntEnum):
    """What is asked for; the descriptors that come with it."""

    READ = 1
    WRITE = 2
    MAP = 3  # word: 1 readable, 2 writable; the memory
    UNMAP = 4
    INTERRUPTS = 5  # word: how many vectors; as many event descriptors
    RESET = 6


class SimulatedFunction(Function):
    """The function of a running simulated device, by the path of its socket. timeout: seconds for an answer."""

    dma = True
    message_interrupts = True

    def __init__(self, path: Path, *, timeout: float = 1.0) -> None:
        super().__init__(f"the simulated PCIe function at {path}")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(max(timeout, 0.1))
        self._events: list[int] = []
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise DeviceNotFound(f"{self.name} does not answer ({error.strerror}): start the device with `morphnic sim "
                                 "run --set pcie_width=64`") from error
        try:
            self._answer()  # the server says first whether another has the function
        except BaseException:
            self.close()
            raise

    @classmethod
    def find(cls, name: str, *, timeout: float) -> SimulatedFunction:
        """That of the running simulated device `name`."""
        path = rundir.device_dir(name) / SOCKET_NAME if _names_a_device(name) else None
        if path is None or not path.exists():
            raise DeviceNotFound(f"there is no PCIe function {name!r}: give its address as in pcie://0000:03:00.0, or "
                                 "the name of a simulated device that was started with --set pcie_width=64; `morphnic "
                                 "list` shows what there is")
        return cls(path, timeout=timeout)

    def read32(self, offset: int) -> int:
        """As `Function`."""
        return self._ask(Op.READ, address=offset)

    def write32(self, offset: int, word: int) -> None:
        """As `Function`."""
        self._send(Op.WRITE, word, offset)

    def map_memory(self, size: int) -> HostMemory:
        """As `Function`: memory of a file that only the descriptors name."""
        size = whole_pages(size)
        bus_address = self._take_bus_address(size)
        descriptor = os.memfd_create("morphnic-dma")
        try:
            os.ftruncate(descriptor, size)
            shared = mmap.mmap(descriptor, size)
            self._ask(Op.MAP, 3, bus_address, size, [descriptor])
        finally:
            os.close(descriptor)

        def release() -> None:
            with contextlib.suppress(LinkError, OSError):  # with the device everything was unmapped
                self._ask(Op.UNMAP, address=bus_address)
            shared.close()

        return HostMemory(memoryview(shared), bus_address, release)

    def interrupts(self, count: int) -> list[int]:
        """As `Function`."""
        self._close_events()
        self._events = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]
        self._ask(Op.INTERRUPTS, count, descriptors=self._events)
        return list(self._events)

    def reset(self) -> None:
        """As `Function`."""
        self._ask(Op.RESET)
        self._close_events()

    def close(self) -> None:
        """As `Function`."""
        self._close_events()
        self._socket.close()

    def _close_events(self) -> None:
        for descriptor in self._events:
            os.close(descriptor)
        self._events = []

    def _ask(self, op: Op, word: int = 0, address: int = 0, size: int = 0, descriptors: list[int] | None = None) -> int:
        self._send(op, word, address, size, descriptors)
        return self._answer(op.name)

    def _answer(self, what: str = "the connection") -> int:
        try:
            answer = self._socket.recv(ANSWER.size)
        except TimeoutError as error:
            raise LinkTimeout(f"{self.name} does not answer") from error
        except OSError as error:
            raise LinkLost(f"{self.name} is gone ({error.strerror})") from error
        if not answer:
            raise LinkLost(f"{self.name} is gone: the simulated device has stopped")
        status, result = ANSWER.unpack(answer)
        if status == errno.EBUSY:
            raise DeviceBusy(f"{self.name} is held by another process: close it there first")
        if status:
            raise LinkError(f"{self.name} refused {what}: {os.strerror(status)}")
        return int(result)

    def _send(self, op: Op, word: int = 0, address: int = 0, size: int = 0,
              descriptors: list[int] | None = None) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._socket.sendmsg([REQUEST.pack(op, word, address, size)], rights)
        except TimeoutError as error:
            raise LinkTimeout(f"{self.name} takes no more writes") from error
        except OSError as error:
            raise LinkLost(f"{self.name} is gone ({error.strerror}): the simulated device has stopped") from error


def _names_a_device(name: str) -> bool:
    try:
        return bool(rundir.check_name(name))
    except ValueError:
        return False


__all__ = ["ANSWER", "REQUEST", "SOCKET_NAME", "Op", "SimulatedFunction"]
