"""The device's side of the link protocol in software: for the simulated device's socket, and as a reference.

The gateware does the same in `gateware/bridge`; the tests drive both with the same stimulus.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from .operations import (
    MAX_REQUEST_BYTES,
    REPEAT_WINDOW,
    Failure,
    Hello,
    HelloResponse,
    MalformedList,
    MalformedMessage,
    Operation,
    Read,
    ReadList,
    Reject,
    RejectReason,
    Request,
    Response,
    Status,
    Write,
    decode_message,
    decode_operations,
    is_write,
    touched,
)


class BusFault(Exception):
    """Raised by a `RegisterBus`: no register answers at the address, or it refuses."""


class RequestFailed(Exception):
    """Raised by a server that cannot have a request carried out; `document` is what the client is told."""

    def __init__(self, document: bytes) -> None:
        super().__init__(document)
        self.document = document


class RegisterBus(Protocol):
    """The registers behind a responder; addresses in bytes."""

    def read(self, address: int) -> int:
        """The word at `address`; raises `BusFault`."""

    def write(self, address: int, word: int) -> None:
        """Write `word`; raises `BusFault`."""


def carry_out(bus: RegisterBus, operations: Sequence[Operation], *, repetition: bool = False) -> tuple[
        list[int], Status, int]:
    """Words read, status and index of carrying out `operations`; a repetition only reads."""
    words: list[int] = []
    for index, operation in enumerate(operations):
        try:
            if isinstance(operation, Read | ReadList):
                for address in touched(operation):
                    words.append(bus.read(address))
            elif not repetition:
                data = operation.words if isinstance(operation, Write) else [word for _, word in operation.pairs]
                for address, word in zip(touched(operation), data, strict=True):
                    bus.write(address, word)
        except BusFault:
            return words, Status.BUS_ERROR, index
    return words, Status.DONE, 0


class Responder(ABC):
    """Sessions, sequence numbers and repetition of one link.

    A message in, the answer out. `repeats` counts repeated requests, like `link.repeats`.
    """

    def __init__(self, *, boot_nonce: int) -> None:
        self.boot_nonce = boot_nonce
        self.repeats = 0
        self.reset()

    @abstractmethod
    def carry_out(self, operations: Sequence[Operation], *, repetition: bool = False) -> tuple[
            list[int], Status, int]:
        """Carry out a request, as the function of that name does on a bus; may raise `RequestFailed`."""

    def reset(self, boot_nonce: int | None = None) -> None:
        """Forget every session, as a reset of the device does."""
        if boot_nonce is not None:
            self.boot_nonce = boot_nonce
        self._session = 0
        self._expected = 0
        self._previous = (0, 0)
        self._remembered: deque[tuple[Status, int] | bytes] = deque(maxlen=REPEAT_WINDOW)

    def corrupt(self) -> bytes:
        """Answer to a frame that was damaged."""
        return Reject(self._session, 0, RejectReason.CORRUPT, self._expected).encode()

    def handle(self, message: bytes) -> bytes:
        """The answer to `message`; one that is too long or of an unknown type is answered like a damaged one."""
        try:
            decoded = decode_message(message)
        except MalformedMessage:
            return self.corrupt()
        if len(message) > MAX_REQUEST_BYTES:
            return self.corrupt()
        match decoded:
            case Hello(session):
                return self._hello(session, message[2])
            case Request(session, sequence, body):
                return self._request(session, sequence, body)
        return self.corrupt()

    def _hello(self, session: int, sequence: int) -> bytes:
        if session == 0:
            return Reject(0, sequence, RejectReason.NO_SESSION, self._expected).encode()
        if session != self._session:
            self._previous = (self._session, self._expected)
            self._session, self._expected = session, 0
            self._remembered.clear()
        return HelloResponse(session, self.boot_nonce, *self._previous).encode()

    def _request(self, session: int, sequence: int, body: bytes) -> bytes:
        if session == 0 or session != self._session:
            return Reject(session, sequence, RejectReason.NO_SESSION, self._expected).encode()
        age = (self._expected - sequence) % 256
        if age > len(self._remembered):
            return Reject(session, sequence, RejectReason.OUT_OF_ORDER, self._expected).encode()
        try:
            if age == 0:
                words, status, index = self._first_time(body)
            else:
                words, status, index = self._again(body, self._remembered[-age])
        except RequestFailed as failure:
            return Failure(session, sequence, failure.document).encode()
        return Response(session, sequence, tuple(words), status, index).encode()

    def _first_time(self, body: bytes) -> tuple[list[int], Status, int]:
        self._expected = (self._expected + 1) % 256
        try:
            words, status, index = self._fresh(body)
        except RequestFailed as failure:
            self._remembered.append(failure.document)
            raise
        self._remembered.append((status, index))
        return words, status, index

    def _fresh(self, body: bytes) -> tuple[list[int], Status, int]:
        try:
            operations = decode_operations(body)
        except MalformedList as error:
            return [], Status.MALFORMED, error.index
        return self.carry_out(operations)

    def _again(self, body: bytes, ended: tuple[Status, int] | bytes) -> tuple[list[int], Status, int]:
        """The answer to a repeated request that `ended` so: what it reads is read again, up to its failure."""
        self.repeats += 1
        if isinstance(ended, bytes):
            raise RequestFailed(ended)
        status, index = ended
        try:
            operations = [] if status == Status.MALFORMED else decode_operations(body)
        except MalformedList:
            operations = []  # other bytes under an old sequence number: the remembered status answers them
        if status == Status.BUS_ERROR:
            failed = operations[index] if index < len(operations) else None
            operations = operations[:index] + ([failed] if failed and not is_write(failed) else [])
        return self.carry_out(operations, repetition=True)[0], status, index


class BusResponder(Responder):
    """A responder that carries requests out on a bus, word by word."""

    def __init__(self, bus: RegisterBus, *, boot_nonce: int) -> None:
        super().__init__(boot_nonce=boot_nonce)
        self._bus = bus

    def carry_out(self, operations: Sequence[Operation], *, repetition: bool = False) -> tuple[
            list[int], Status, int]:
        """On the bus."""
        return carry_out(self._bus, operations, repetition=repetition)
