"""Connections of a server to its clients: whole messages in and out of sockets that never make it wait."""

from __future__ import annotations

import socket
import ssl
from abc import ABC, abstractmethod
from collections import deque

from .framing import FrameDecoder, encode_frame

DATAGRAM_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 20
_STREAM_BUFFER_BYTES = 1 << 18
_KEPT_DATAGRAMS = 512
_KEPT_BYTES = 1 << 20
_AT_ONCE = 8  # messages of one client before the others have their turn
_READ_BYTES = 1 << 14  # a TLS record has no more


class Ended(Exception):
    """The client is gone; the text says how."""


class Connection(ABC):
    """One client's socket."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self.socket = peer
        self._arrived: deque[bytes | None] = deque()

    def receive(self) -> list[bytes | None]:
        """A few of the messages that arrived, None for a damaged one; raises `Ended`."""
        if not self._arrived:
            self._arrived.extend(self._read())
        return [self._arrived.popleft() for _ in range(min(len(self._arrived), _AT_ONCE))]

    @property
    def pending(self) -> bool:
        """Whether messages arrived that `receive` has not given yet, and no selector tells of."""
        return bool(self._arrived)

    @abstractmethod
    def _read(self) -> list[bytes | None]:
        """Messages that arrived since the last time; raises `Ended`."""

    @abstractmethod
    def send(self, message: bytes) -> None:
        """Queue `message`."""

    @abstractmethod
    def flush(self) -> None:
        """Send what the socket takes now; raises `Ended`."""

    @property
    @abstractmethod
    def backlog(self) -> float:
        """How full the queue is: from 1 on no more requests are taken, and no windows queued."""

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class DatagramConnection(Connection):
    """A `SOCK_SEQPACKET` Unix socket: a datagram is a message."""

    def __init__(self, peer: socket.socket) -> None:
        super().__init__(peer)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._outgoing: deque[bytes] = deque()

    def _read(self) -> list[bytes | None]:
        """Datagrams that arrived."""
        messages: list[bytes | None] = []
        try:
            while len(messages) < _AT_ONCE:
                message = self.socket.recv(DATAGRAM_BYTES)
                if not message:
                    if messages:
                        return messages  # the next call tells that the client is gone
                    raise Ended("closed")
                messages.append(message)
        except BlockingIOError:
            pass
        except OSError as error:
            raise Ended(error.strerror or str(error)) from error
        return messages

    def send(self, message: bytes) -> None:
        """Queue a datagram."""
        self._outgoing.append(message)

    def flush(self) -> None:
        """Send what the socket takes now."""
        try:
            while self._outgoing:
                self.socket.send(self._outgoing[0])
                self._outgoing.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            raise Ended(error.strerror or str(error)) from error

    @property
    def backlog(self) -> float:
        """Share of the datagrams that are kept."""
        return len(self._outgoing) / _KEPT_DATAGRAMS


class StreamConnection(Connection):
    """A stream socket with the frames of a serial line in it, within TLS where `tls` is given."""

    def __init__(self, peer: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(peer)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _STREAM_BUFFER_BYTES)
        self._decoder = FrameDecoder()
        self._outgoing = bytearray()
        self._shaken = tls is None
        if tls is not None:
            self.socket = tls.wrap_socket(peer, server_side=True, do_handshake_on_connect=False)

    def _read(self) -> list[bytes | None]:
        """Messages of the frames that arrived."""
        messages: list[bytes | None] = []
        try:
            self._handshake()
            while True:
                data = self.socket.recv(_READ_BYTES)
                if not data:
                    if messages:
                        return messages
                    raise Ended("closed")
                messages += self._decoder.feed(data)
                # What TLS holds back already, no selector tells of.
                if not (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()):
                    break
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            raise Ended(_reason(error)) from error
        return messages

    def send(self, message: bytes) -> None:
        """Queue a frame."""
        self._outgoing += encode_frame(message)

    def flush(self) -> None:
        """Send what the socket takes now."""
        try:
            while self._shaken and self._outgoing:
                del self._outgoing[:self.socket.send(self._outgoing)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            raise Ended(_reason(error)) from error

    @property
    def backlog(self) -> float:
        """Share of the bytes that are kept."""
        return len(self._outgoing) / _KEPT_BYTES

    def _handshake(self) -> None:
        if not self._shaken:
            assert isinstance(self.socket, ssl.SSLSocket)
            self.socket.do_handshake()
            self._shaken = True


def _reason(error: OSError) -> str:
    return getattr(error, "verify_message", "") or getattr(error, "reason", None) or error.strerror or str(error)


def tune(peer: socket.socket, *, dead_after: float) -> None:
    """Send at once, and notice within about `dead_after` seconds that the other machine is gone."""
    seconds = max(int(dead_after / 4), 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, seconds), (socket.TCP_KEEPINTVL, seconds), (socket.TCP_KEEPCNT, 3),
                          (socket.TCP_USER_TIMEOUT, int(1000 * dead_after))):
        peer.setsockopt(socket.IPPROTO_TCP, option, value)


__all__ = ["Connection", "DatagramConnection", "Ended", "StreamConnection", "tune"]
