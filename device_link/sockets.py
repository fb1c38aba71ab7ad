"""The host's end of a socket to a server of devices: a Unix socket of datagrams, or a stream with frames in it.

Whoever connects first *attaches*: it tells who it is and, where the server wants it, proves that it knows the token.
After a connection was lost, the same host attaches again, and the server still knows how far its requests went.
"""

from __future__ import annotations

import errno
import getpass
import json
import os
import secrets
import select
import socket
import ssl
import sys
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morphnic.errors import DeviceNotFound, EnvironmentFault, LinkError, LinkLost, LinkTimeout

from .access import AccessRefused, challenge, proof, proves
from .connections import DATAGRAM_BYTES, tune
from .framing import FrameDecoder, encode_frame
from .operations import Control, MalformedMessage, decode_message
from .pipe import MessagePipe

_BUFFER_BYTES = 1 << 20
_DEAD_AFTER = 20.0  # seconds after which a machine that does not answer any more counts as gone


def holder() -> str:
    """Who we are, for those who find a device in use."""
    program = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path("python")
    name = program.parent.name if program.name == "__main__.py" else program.name
    command = next((word for word in sys.argv[1:] if word.isidentifier()), "")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}, process {os.getpid()} ({' '.join(filter(None, [name, command]))})"


class ServerPipe(MessagePipe):
    """Messages to a server. target: where, for messages. token: what proves that we may connect."""

    reliable = True

    def __init__(self, target: str, *, timeout: float, token: bytes | None = None) -> None:
        self._target = target
        self._timeout = timeout
        self._token = token
        self._identity = secrets.token_hex(16)
        self._writer = False
        self._socket = self._connect()
        self.welcome: dict[str, Any] = {}
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _connect(self) -> socket.socket:
        """A connected socket; raises `DeviceNotFound` or `EnvironmentFault`."""

    @abstractmethod
    def _write(self, messages: Sequence[bytes]) -> None:
        """Send; raises `OSError`."""

    @abstractmethod
    def _read(self) -> list[bytes | None]:
        """Messages of what has arrived, perhaps none; raises `OSError`, or `EOFError` at the end."""

    @property
    def _remedy(self) -> str:
        return "is the server still running?"

    # --- messages ---

    def send(self, messages: Sequence[bytes], *, resynchronise: bool = False, greet: bool = False) -> None:
        """Send each message."""
        try:
            self._write(messages)
        except OSError as error:
            raise self._ended(error) from error

    def receive(self, timeout: float) -> list[bytes | None]:
        """Messages that arrived."""
        deadline = self.now() + timeout
        try:
            while True:
                wait = 0.0 if self._buffered() else max(0.0, deadline - self.now())
                if self.lost:
                    raise self._ended(None)
                if not self._buffered() and not select.select([self._socket], [], [], wait)[0]:
                    return []
                messages = self._read()
                if messages or self.now() >= deadline:
                    return messages
        except (OSError, EOFError) as error:
            raise self._ended(error) from error

    def _buffered(self) -> bool:
        return False

    def fileno(self) -> int:
        """Descriptor of the socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _ended(self, error: OSError | EOFError | None) -> LinkLost:
        self.lost = True
        self._socket.close()
        why = f" ({error.strerror or error})" if isinstance(error, OSError) else ""
        return LinkLost(f"the connection to {self._target} ended{why}: {self._remedy}")

    # --- attaching ---

    def reopen(self, timeout: float) -> None:
        """Connect and attach again; asks for the right to write if we had it (a later write tells if it is gone)."""
        self._socket.close()
        self._socket = self._connect()
        self.lost = False
        self._attach()
        if self._writer:
            self.ask({"op": "acquire"})

    def acquire(self) -> dict[str, Any]:
        """Ask for the right to write; the server's answer."""
        answer = self.ask({"op": "acquire"})
        self._writer = bool(answer.get("ok"))
        return answer

    def _attach(self) -> None:
        nonce = challenge()
        request = {"op": "attach", "client": self._identity, "holder": holder(), "nonce": nonce}
        answer = self.ask(request)
        if answer.get("reason") == "authentication" and "challenge" in answer:
            if self._token is None:
                raise AccessRefused(f"{self._target} wants a token: set MORPHNIC_TOKEN_FILE to the file that holds it, "
                                    "or add ?token_file=FILE to the URL")
            server = str(answer["challenge"])
            answer = self.ask(request | {"proof": proof(self._token, "client", server, nonce)})
            if answer.get("ok") and not proves(self._token, "server", server, nonce, answer.get("proof")):
                raise AccessRefused(f"{self._target} does not know the token itself: it is not the server you mean")
        if not answer.get("ok"):
            raise AccessRefused(f"{self._target} refused the connection: {answer.get('error', 'it gives no reason')}")
        self.welcome = answer

    def ask(self, document: dict[str, Any]) -> dict[str, Any]:
        """Send a control document outside of a session; the answer."""
        self.send([Control(0, 0, json.dumps(document).encode()).encode()])
        deadline = time.monotonic() + self._timeout
        while (wait := deadline - time.monotonic()) > 0:
            for raw in self.receive(wait):
                try:
                    message = None if raw is None else decode_message(raw)
                except MalformedMessage as error:
                    raise LinkError(f"{self._target} is no server of devices: {error}") from error
                if isinstance(message, Control) and message.answer:
                    answer: dict[str, Any] = json.loads(message.document)
                    return answer
        raise LinkTimeout(f"{self._target} takes connections but does not answer within {self._timeout:g} s: is it a "
                          "server of devices, and does it want TLS?", outcome="not applied")


class DatagramPipe(ServerPipe):
    """A `SOCK_SEQPACKET` Unix socket: none is lost, damaged or reordered. noun: what is there, for messages."""

    max_response_words = 8192

    def __init__(self, path: Path, *, timeout: float, noun: str, start: str) -> None:
        self._path, self._noun, self._start = path, noun, start
        super().__init__(f"the {noun} at {path}", timeout=timeout)

    @property
    def _remedy(self) -> str:
        return f"start it again with `{self._start}`"

    def _connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        try:
            made.settimeout(self._timeout)
            made.connect(str(self._path))
        except OSError as error:
            made.close()
            if error.errno in (errno.EACCES, errno.EPERM):
                raise EnvironmentFault(f"no permission to use the socket {self._path}: it is for its owner and group; "
                                       "ask to be added to that group") from error
            gone = error.errno in (errno.ENOENT, errno.ECONNREFUSED)
            remedy = f"start it with `{self._start}`" if gone else "is it a device's socket?"
            raise DeviceNotFound(f"no {self._noun} answers at {self._path} ({error.strerror or error}): "
                                 f"{remedy}") from error
        made.settimeout(None)
        return made

    def _write(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._socket.send(message)

    def _read(self) -> list[bytes | None]:
        messages: list[bytes | None] = []
        while select.select([self._socket], [], [], 0.0)[0]:
            message = self._socket.recv(DATAGRAM_BYTES)
            if not message:
                if messages:
                    return messages  # the next call tells that the other side is gone
                raise EOFError
            messages.append(message)
        return messages


class StreamPipe(ServerPipe):
    """A TCP connection with the frames of a serial line in it, within TLS where `tls` is given."""

    max_response_words = 1024  # so that a slow line behind the server answers each request soon

    def __init__(self, host: str, port: int, *, timeout: float, token: bytes | None = None,
                 tls: ssl.SSLContext | None = None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._decoder = FrameDecoder()
        super().__init__(f"the server at {host}:{port}", timeout=timeout, token=token)

    def _connect(self) -> socket.socket:
        self._decoder = FrameDecoder()
        made: socket.socket | None = None
        try:
            made = socket.create_connection((self._host, self._port), timeout=max(self._timeout, 1.0))
            tune(made, dead_after=_DEAD_AFTER)
            if self._tls is not None:
                made = self._tls.wrap_socket(made, server_hostname=self._host)
            made.settimeout(_DEAD_AFTER)  # of sending; what is received is waited for with select
            return made
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            raise AccessRefused(f"no TLS with the server at {self._host}:{self._port} ({why}): check the certificates, "
                                "and that the server was started with --tls-cert") from error
        except OSError as error:
            if made is not None:
                made.close()
            raise DeviceNotFound(f"no server answers at {self._host}:{self._port} ({error.strerror or error}): start "
                                 "one there with `morphnic serve --listen tcp://...`, or check the address") from error

    def _write(self, messages: Sequence[bytes]) -> None:
        self._socket.sendall(b"".join(map(encode_frame, messages)))

    def _read(self) -> list[bytes | None]:
        try:
            data = self._socket.recv(1 << 16)
        except ssl.SSLWantReadError:
            return []
        if not data:
            raise EOFError
        return list(self._decoder.feed(data))

    def _buffered(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0


__all__ = ["DatagramPipe", "ServerPipe", "StreamPipe", "holder"]
