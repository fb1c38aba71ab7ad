"""The PCIe function of a simulated device, served to one process at a time.

The messages are those of `device_link.pcie.simulated`. This is what vfio-pci and the kernel below it do on a host: the
client's memory is mapped for DMA, its event descriptors are told of interrupt messages, and when it goes, however that
happens, the function is reset and nothing of it stays.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import selectors
import socket
from pathlib import Path

from device_link.pcie.simulated import ANSWER, REQUEST, Op
from morphnic.errors import InputError, LinkTimeout

from .function_socket import FunctionSocket, close_all
from .root_complex import BAR_BYTES, RootComplex

__all__ = ["PcieSocket"]

log = logging.getLogger(__name__)


class PcieSocket(FunctionSocket):
    """The function for programs of this machine, through `device_link.pcie.simulated`."""

    most_descriptors = 253  # that Linux takes in one message

    def __init__(self, root: RootComplex, path: Path, selector: selectors.BaseSelector) -> None:
        super().__init__(root, path, socket.SOCK_SEQPACKET, selector)
        self._events: list[int] = []
        self._memory: dict[int, mmap.mmap] = {}

    def deliver(self, vectors: list[int]) -> None:
        """Tell the client of interrupts."""
        for vector in vectors:
            if vector < len(self._events):
                os.eventfd_write(self._events[vector], 1)

    def _greet(self, peer: socket.socket, *, taken: bool) -> None:
        peer.send(ANSWER.pack(errno.EBUSY if taken else 0, 0))

    def _wanted(self) -> int:
        return REQUEST.size

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        if len(data) != REQUEST.size:
            close_all(descriptors)
            self._drop("what it sent is no request")
            return
        op, word, address, size = REQUEST.unpack(data)
        status, result = 0, 0
        try:
            result = self._carry_out(op, word, address, size, descriptors)
        except (InputError, ValueError, OSError) as error:
            log.info("a request of the PCIe function's holder was refused: %s", error)
            status = errno.EINVAL
        except LinkTimeout as error:
            log.error("%s", error)
            status = errno.ETIMEDOUT
        finally:
            close_all(descriptors)
        if op != Op.WRITE:
            self._answer(ANSWER.pack(status, result))

    def _carry_out(self, op: int, word: int, address: int, size: int, descriptors: list[int]) -> int:
        """The word that the answer carries; takes out of `descriptors` what it keeps."""
        if op in (Op.READ, Op.WRITE) and (address % 4 or address >= BAR_BYTES):
            raise InputError(f"address must be a multiple of 4 below {BAR_BYTES:#x}, not {address:#x}")
        match op:
            case Op.READ:
                return self._root.read(address)
            case Op.WRITE:
                self._root.write(address, word)
            case Op.MAP:
                self._map(word, address, size, descriptors)
            case Op.UNMAP:
                self._unmap(address)
            case Op.INTERRUPTS:
                if len(descriptors) != word:
                    raise InputError(f"{word} vectors want as many descriptors, not {len(descriptors)}")
                self._root.enable_vectors(word)
                close_all(self._events)
                self._events, descriptors[:] = descriptors[:], []
            case Op.RESET:
                self._release()
            case _:
                raise InputError(f"op must be one of {', '.join(map(str, Op))}, not {op}")
        return 0

    def _map(self, rights: int, address: int, size: int, descriptors: list[int]) -> None:
        if len(descriptors) != 1 or not rights & 3:
            raise InputError("memory wants one descriptor, and a right")
        shared = mmap.mmap(descriptors[0], size)
        self._root.map(address, shared, rights)
        self._memory[address] = shared

    def _unmap(self, address: int) -> None:
        if not self._root.unmap(address):
            raise InputError(f"nothing is mapped at {address:#x}")
        self._memory.pop(address).close()

    def _release(self) -> None:
        for address in list(self._memory):
            self._unmap(address)
        close_all(self._events)
        self._root.reset()
