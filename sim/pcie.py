"""The PCIe function of a simulated device, served to one process at a time.

The messages are those of `device_link.pcie.simulated`. This is what vfio-pci and the kernel below it do on a host: the
client's memory is mapped for DMA, its event descriptors are told of interrupt messages, and when it goes, however that
happens, the function is reset and nothing of it stays.
"""

from __future__ import annotations

import array
import contextlib
import errno
import logging
import mmap
import os
import select
import selectors
import socket
from pathlib import Path

from device_link.pcie.simulated import ANSWER, REQUEST, Op
from morphnic.errors import InputError, LinkTimeout

from .root_complex import BAR_BYTES, RootComplex

log = logging.getLogger(__name__)

MOST_VECTORS = 253  # descriptors that Linux takes in one message
_BATCH = 256  # requests that are carried out before others get their turn
_LINGER = 0.001  # seconds in which the next request of the same program is waited for


class PcieSocket:
    """Listens at `path`; `selector` calls it, with the callback as data, when something arrives."""

    def __init__(self, root: RootComplex, path: Path, selector: selectors.BaseSelector) -> None:
        self._root, self._path, self._selector = root, path, selector
        self._client: socket.socket | None = None
        self._events: list[int] = []
        self._memory: dict[int, mmap.mmap] = {}
        self._listener = listener(path, socket.SOCK_SEQPACKET)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Let the client go, and stop listening."""
        self._drop("the device stops")
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def deliver(self, vectors: list[int]) -> None:
        """Tell the client of interrupts."""
        for vector in vectors:
            if vector < len(self._events):
                os.eventfd_write(self._events[vector], 1)

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return  # gone before it was taken
        free = self._client is None and self._root.take(self)
        with contextlib.suppress(OSError):
            peer.send(ANSWER.pack(0 if free else errno.EBUSY, 0))
        if not free:
            peer.close()
            return
        peer.setblocking(False)
        self._client = peer
        self._selector.register(peer, selectors.EVENT_READ, self._receive)

    def _receive(self) -> None:
        for _ in range(_BATCH):
            if self._client is None:
                return
            try:
                message, ancillary, _, _ = self._client.recvmsg(REQUEST.size, socket.CMSG_SPACE(4 * MOST_VECTORS))
            except BlockingIOError:
                # A program that reads one register after another must not wait for a slice of device time each time.
                if select.select([self._client], [], [], _LINGER)[0]:
                    continue
                return
            except OSError as error:
                self._drop(str(error))
                return
            descriptors = received_descriptors(ancillary)
            if len(message) != REQUEST.size:
                for descriptor in descriptors:
                    os.close(descriptor)
                self._drop("it left" if not message else "what it sent is no request")
                return
            self._serve(message, descriptors)

    def _serve(self, message: bytes, descriptors: list[int]) -> None:
        op, word, address, size = REQUEST.unpack(message)
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
            for descriptor in descriptors:
                os.close(descriptor)
        if op != Op.WRITE and self._client is not None:
            try:
                self._client.send(ANSWER.pack(status, result))
            except OSError as error:
                self._drop(str(error))

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
                self._close_events()
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

    def _drop(self, why: str) -> None:
        if self._client is None:
            return
        log.info("the PCIe function's holder is gone: %s", why)
        self._selector.unregister(self._client)
        self._client.close()
        self._client = None
        self._release()
        self._root.give_back(self)

    def _release(self) -> None:
        """As before it was taken: no memory, no interrupts."""
        for address in list(self._memory):
            self._unmap(address)
        try:
            self._root.reset()
        except LinkTimeout as error:
            log.error("%s", error)
        self._close_events()

    def _close_events(self) -> None:
        for descriptor in self._events:
            os.close(descriptor)
        self._events = []


def listener(path: Path, kind: int) -> socket.socket:
    """A socket of this user alone that listens at `path`; the caller holds the name's lock: who made one is gone."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    finally:
        os.umask(before)
    made.listen(4)
    made.setblocking(False)
    return made


def received_descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The file descriptors that came with a message."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[:len(data) // found.itemsize * found.itemsize])
    return found.tolist()
