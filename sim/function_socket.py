"""`FunctionSocket`: a socket by which one process at a time has the PCIe function of a simulated device.

What messages look like is its subclasses' affair. Here is what they share: who has the function keeps it, another is
turned away; and when the holder goes, however that happens, what it had is released and the function is given back.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import select
import selectors
import socket
from abc import ABC, abstractmethod
from pathlib import Path

from morphnic.errors import LinkTimeout

from .root_complex import RootComplex

__all__ = ["FunctionSocket"]

log = logging.getLogger(__name__)

_BATCH = 256  # messages that are carried out before others get their turn
_LINGER = 0.001  # seconds in which the next message of the same program is waited for


class FunctionSocket(ABC):
    """Listens at `path`; `selector` calls it, with the callback as data, when something arrives.

    kind: `SOCK_SEQPACKET` or `SOCK_STREAM`. Subclasses say what is read (`_wanted`), what is done with it (`_take`),
    and what a holder leaves behind (`_release`).
    """

    #: The most descriptors that come with a message; each kind of socket says.
    most_descriptors: int

    def __init__(self, root: RootComplex, path: Path, kind: int, selector: selectors.BaseSelector) -> None:
        self._root, self._path, self._selector = root, path, selector
        self._client: socket.socket | None = None
        self._listener = _listener(path, kind)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Let the holder go, and stop listening."""
        self._drop("the device stops")
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    @abstractmethod
    def deliver(self, vectors: list[int]) -> None:
        """Tell the holder, if there is one, of interrupts."""

    @abstractmethod
    def _greet(self, peer: socket.socket, *, taken: bool) -> None:
        """`peer` has come, and has the function from now on or (`taken`) does not get it; errors of its socket pass."""

    @abstractmethod
    def _wanted(self) -> int:
        """Bytes to read, at most."""

    @abstractmethod
    def _take(self, data: bytes, descriptors: list[int]) -> None:
        """Something of the holder's has arrived, with file descriptors that must be kept or closed."""

    @abstractmethod
    def _release(self) -> None:
        """As before the holder came: no memory, no interrupts, a function that was reset."""

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return  # gone before it was taken
        taken = self._client is not None or not self._root.take(self)
        with contextlib.suppress(OSError):
            self._greet(peer, taken=taken)
        if taken:
            log.warning("%s: the PCIe function is wanted, which is held by another", self._path.name)
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
                data, ancillary, _, _ = self._client.recvmsg(
                    self._wanted(), socket.CMSG_SPACE(4 * self.most_descriptors))
            except BlockingIOError:
                # A program that reads one register after another must not wait for a slice of device time each time.
                if select.select([self._client], [], [], _LINGER)[0]:
                    continue
                return
            except OSError as error:
                self._drop(str(error))
                return
            descriptors = _received(ancillary)
            if data:
                self._take(data, descriptors)
            else:
                close_all(descriptors)
                self._drop("it left")

    def _answer(self, message: bytes) -> None:
        """Send it; who does not take it is dropped."""
        if self._client is None:
            return
        try:
            self._client.sendall(message)
        except OSError as error:
            self._drop(str(error))

    def _drop(self, why: str) -> None:
        if self._client is None:
            return
        log.info("%s: the PCIe function's holder is gone: %s", self._path.name, why)
        self._selector.unregister(self._client)
        self._client.close()
        self._client = None
        try:
            self._release()
        except LinkTimeout as error:
            log.error("%s", error)
        self._root.give_back(self)


def close_all(descriptors: list[int]) -> None:
    """Close them, and forget them."""
    while descriptors:
        os.close(descriptors.pop())


def _listener(path: Path, kind: int) -> socket.socket:
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


def _received(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The file descriptors that came with a message."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[:len(data) // found.itemsize * found.itemsize])
    return found.tolist()
