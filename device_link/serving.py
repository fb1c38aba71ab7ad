"""What every server of a device shares: clients with their sessions, the right to write, control documents.

The simulated device and `morphnic serve` both are a `LinkServer`: the messages are those of the link protocol, on a
Unix socket of datagrams or, framed, on a stream. One thread; nothing here waits for a client.

A client is who it says it is: one that attaches again under its name after its connection was lost finds its session,
and so how far its requests went. One client at a time holds the right to write, until it gives it back, its
connection ends, or it was silent for the lease's time and another asks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morphnic.errors import MorphnicError

from . import access
from .connections import Connection, DatagramConnection, Ended, StreamConnection, tune
from .operations import Control, Hello, MalformedMessage, Operation, Status, decode_message, is_write
from .responder import RequestFailed, Responder

log = logging.getLogger(__name__)

MAX_CLIENTS = 64
_REMEMBERED_CLIENTS = 64  # that left, with how far their requests went
_ATTACH_SECONDS = 10.0
_DEAD_AFTER = 20.0


class Refusal(MorphnicError):
    """A control document that is refused; `reason` is for programs, the text for people."""

    def __init__(self, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.reason = reason
        self.details = details


class ClientResponder(Responder):
    """The sessions of one client, which outlive its connection."""

    def __init__(self, server: LinkServer, client: Client) -> None:
        self._server, self.client = server, client
        super().__init__(boot_nonce=server.boot_nonce)

    def carry_out(self, operations: Sequence[Operation], *, repetition: bool = False) -> tuple[
            list[int], Status, int]:
        """On the server's device, if the client may."""
        if not repetition and any(map(is_write, operations)):
            self._server.check_writer(self.client)
        return self._server.carry_out(operations, repetition=repetition)


class Client:
    """One connection and who is behind it. token: what it must prove to know when it attaches."""

    def __init__(self, connection: Connection, server: LinkServer, *, token: bytes | None) -> None:
        self.connection = connection
        self.token = token
        self.attached = False
        self.challenge = access.challenge()
        self.identity: str | None = None
        self.name = "another connection"
        self.hello = False
        self.dropped_windows = 0
        self.since = self.heard = time.monotonic()
        self.responder = ClientResponder(server, self)

    @property
    def listened_to(self) -> bool:
        """Not while it asks and does not read the answers."""
        return self.connection.backlog < 1

    def push(self, message: bytes) -> None:
        """Queue a window, unless the client has stopped reading."""
        if not self.hello:
            return
        if self.listened_to:
            self.connection.send(message)
        else:
            self.dropped_windows += 1


class LinkServer(ABC):
    """Listens, and carries out what clients ask for. name: of the device. url: how it is reached, for messages.

    capabilities: names of `transport.Capability` that clients have beyond registers.
    lease: seconds of silence after which the right to write goes to another who asks; None: never.
    """

    def __init__(self, name: str, *, url: str, boot_nonce: int, capabilities: Sequence[str] = (),
                 lease: float | None = None) -> None:
        self.name, self.url, self.boot_nonce, self.lease = name, url, boot_nonce, lease
        self.capabilities = tuple(capabilities)
        self.writer: Client | None = None
        self.clients: dict[int, Client] = {}
        self.selector = selectors.DefaultSelector()
        self.stopped = False
        self._left: dict[str, ClientResponder] = {}
        self._listeners: list[tuple[socket.socket, Path | None]] = []
        wake, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self.selector.register(wake, selectors.EVENT_READ, lambda: os.read(wake, 64))
        self._wake_reader = wake

    # --- what a server implements ---

    @abstractmethod
    def carry_out(self, operations: Sequence[Operation], *, repetition: bool = False) -> tuple[
            list[int], Status, int]:
        """Carry out a request, as `responder.carry_out` does; raises `RequestFailed`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What `describe` answers about the device."""

    def operate(self, client: Client, sequence: int, document: dict[str, Any]) -> dict[str, Any] | None:
        """Answer to a control document that is not of the link itself; None when it is answered later."""
        raise Refusal("unknown", f"op must be one of attach, acquire, release, describe, not {document.get('op')!r}")

    # --- life ---

    def listen_unix(self, path: Path, mode: int = 0o600) -> None:
        """Listen on a Unix socket; whoever may open it may use the device."""
        path.unlink(missing_ok=True)  # the caller holds the name's lock: whoever made it is gone
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Never open to others between bind and chmod.
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        os.chmod(path, mode)
        self._listen(listener, path, DatagramConnection, None)

    def listen_tcp(self, address: tuple[str, int], *, token: bytes | None = None,
                   tls: ssl.SSLContext | None = None) -> int:
        """Listen on a TCP port; the port. token: what clients must prove to know."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listener = socket.create_server(address, family=family)

        def connection(peer: socket.socket) -> Connection:
            tune(peer, dead_after=_DEAD_AFTER)
            return StreamConnection(peer, tls=tls)

        self._listen(listener, None, connection, token)
        port: int = listener.getsockname()[1]
        return port

    def _listen(self, listener: socket.socket, path: Path | None, connection: Any, token: bytes | None) -> None:
        listener.listen(16)
        listener.setblocking(False)
        self._listeners.append((listener, path))
        self.selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener, connection, token))

    def stop(self, *_: object) -> None:
        """End `run`; also a signal handler, and for other threads."""
        self.stopped = True
        with contextlib.suppress(OSError):
            os.write(self._wake, b"x")

    def step(self, timeout: float | None) -> None:
        """Wait up to `timeout` seconds for clients, and do some of what each asks for."""
        waiting = [client for client in self.clients.values() if client.connection.pending and client.listened_to]
        for key, _ in self.selector.select(0.0 if waiting else timeout):
            key.data()
        for client in waiting:
            self._receive(client)
        now = time.monotonic()
        for client in [one for one in self.clients.values()
                       if not one.attached and now - one.since > _ATTACH_SECONDS]:
            self.drop(client, "did not attach")

    def deliver(self) -> None:
        """Send what clients take now."""
        for client in list(self.clients.values()):
            self._flush(client)

    def close(self) -> None:
        """Close everything."""
        for client in list(self.clients.values()):
            self.drop(client, "the server stops")
        for listener, path in self._listeners:
            listener.close()
            if path is not None:
                path.unlink(missing_ok=True)
        self.selector.close()
        for end in (self._wake, self._wake_reader):
            os.close(end)
        self._wake = -1

    def reset(self, boot_nonce: int) -> None:
        """The device was reset: no session is known any more."""
        self.boot_nonce = boot_nonce
        self._left.clear()
        for client in self.clients.values():
            client.responder.reset(boot_nonce)

    # --- clients ---

    def _accept(self, listener: socket.socket, connection: Any, token: bytes | None) -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            return  # gone before it was taken
        if len(self.clients) >= MAX_CLIENTS:
            log.warning("a connection was refused: there are %d already", MAX_CLIENTS)
            peer.close()
            return
        try:
            client = Client(connection(peer), self, token=token)
        except OSError as error:
            log.info("a connection ended at once: %s", error)
            peer.close()
            return
        self.clients[client.connection.socket.fileno()] = client
        self.selector.register(client.connection.socket, selectors.EVENT_READ, lambda: self._receive(client))

    def _receive(self, client: Client) -> None:
        if client.connection.socket.fileno() < 0 or not client.listened_to:
            return  # gone meanwhile; or the socket is ready for writing only
        try:
            for message in client.connection.receive():
                if client.connection.socket.fileno() < 0:
                    return  # dropped by what it asked for
                self._handle(client, message)
        except Ended as end:
            self.drop(client, str(end))

    def _handle(self, client: Client, message: bytes | None) -> None:
        client.heard = time.monotonic()
        decoded = None
        with contextlib.suppress(MalformedMessage):  # answered by the responder, as the device would
            decoded = decode_message(message or b"")
        if isinstance(decoded, Control) and not decoded.answer:
            self._control(client, decoded)
        elif not client.attached:
            self.drop(client, "did not attach first")
        else:
            client.hello |= isinstance(decoded, Hello)
            client.connection.send(client.responder.corrupt() if message is None else client.responder.handle(message))

    def _flush(self, client: Client) -> None:
        try:
            client.connection.flush()
        except Ended as end:
            self.drop(client, str(end))
            return
        events = ((selectors.EVENT_READ if client.listened_to else 0)
                  | (selectors.EVENT_WRITE if client.connection.backlog else 0))
        key = self.selector.get_key(client.connection.socket)
        if key.events != events:
            self.selector.modify(client.connection.socket, events, key.data)

    def drop(self, client: Client, why: str) -> None:
        """Let go of a client; its right to write ends."""
        if self.clients.pop(client.connection.socket.fileno(), None) is None:
            return
        log.info("%s left: %s", client.name, why)
        self.selector.unregister(client.connection.socket)
        client.connection.close()
        if self.writer is client:
            self.writer = None
        if client.identity is not None:
            self._left[client.identity] = client.responder
            while len(self._left) > _REMEMBERED_CLIENTS:
                del self._left[next(iter(self._left))]

    def push(self, message: bytes) -> None:
        """Queue a pushed window for every client that said hello."""
        for client in self.clients.values():
            client.push(message)

    # --- the right to write ---

    def check_writer(self, client: Client) -> None:
        """Raise `RequestFailed` unless `client` holds the right to write."""
        if self.writer is not client:
            who = f"{self.writer.name} holds it" if self.writer else "ask for it first"
            raise failed("DeviceBusy", f"this connection does not hold the right to write {self.url}: {who}",
                         "not applied")

    def _acquire(self, client: Client) -> dict[str, Any]:
        held = self.writer
        if held is not None and held is not client:
            silent = time.monotonic() - held.heard
            if self.lease is None or silent < self.lease:
                raise Refusal("busy", f"{held.name} holds the right to write {self.url}")
            log.warning("%s was silent for %.1f s: the right to write goes to %s", held.name, silent, client.name)
        self.writer = client
        return {"ok": True}

    # --- control documents ---

    def _control(self, client: Client, message: Control) -> None:
        try:
            document = json.loads(message.document)
            if not isinstance(document, dict):
                raise Refusal("input", "a control document is a JSON object")
            answer = self._operate(client, message.sequence, document)
        except Refusal as error:
            answer = {"ok": False, "reason": error.reason, "error": str(error), **error.details}
        except (ValueError, KeyError, TypeError) as error:
            answer = {"ok": False, "reason": "input", "error": f"control document: {error}"}
        except (MorphnicError, OSError) as error:
            answer = {"ok": False, "reason": "input", "error": str(error)}
        if answer is not None:
            self.answer(client, message.sequence, answer)

    def answer(self, client: Client, sequence: int, answer: dict[str, Any]) -> None:
        """Queue the answer to a control document."""
        document = json.dumps({"schema": 1, **answer}).encode()
        client.connection.send(Control(0, sequence, document, answer=True).encode())

    def _operate(self, client: Client, sequence: int, document: dict[str, Any]) -> dict[str, Any] | None:
        if document.get("schema", 1) != 1:
            raise Refusal("input", f"control documents have schema 1 here, not {document['schema']!r}")
        match document.get("op"):
            case "attach":
                return self._attach(client, document)
            case _ if not client.attached:
                raise Refusal("authentication", "attach first", challenge=client.challenge)
            case "acquire":
                return self._acquire(client)
            case "release":
                self.writer = None if self.writer is client else self.writer
                return {"ok": True}
            case "describe":
                return {"ok": True, "name": self.name, "capabilities": self.capabilities, **self.describe(),
                        "writer": self.writer.name if self.writer else None, "clients": len(self.clients)}
        return self.operate(client, sequence, document)

    def _attach(self, client: Client, document: dict[str, Any]) -> dict[str, Any]:
        identity, nonce = str(document["client"])[:64], str(document.get("nonce", ""))[:64]
        answer = {"ok": True, "name": self.name, "capabilities": self.capabilities}
        if client.token is not None:
            if "proof" not in document:
                raise Refusal("authentication", "a token is needed", challenge=client.challenge)
            if not access.proves(client.token, "client", client.challenge, nonce, document["proof"]):
                log.warning("a connection with a wrong token was refused")
                client.challenge = access.challenge()  # each is good for one try
                raise Refusal("refused", "the token is not the server's: compare the files on both sides")
            answer["proof"] = access.proof(client.token, "server", client.challenge, nonce)
        client.attached = True
        client.name = str(document.get("holder", client.name))[:200]
        self._resume(client, identity)
        return answer

    def _resume(self, client: Client, identity: str) -> None:
        """Give `client` the sessions that it left behind, on a connection that may not have ended yet."""
        for other in list(self.clients.values()):
            if other is not client and other.identity == identity:
                self.drop(other, "connected again")
        client.identity = identity
        if left := self._left.pop(identity, None):
            left.client = client
            client.responder = left


def failed(kind: str, error: str, outcome: str) -> RequestFailed:
    """What tells a client that its request was not, or perhaps not, carried out."""
    return RequestFailed(json.dumps({"kind": kind, "error": error, "outcome": outcome}).encode())


__all__ = ["Client", "LinkServer", "Refusal", "failed"]
