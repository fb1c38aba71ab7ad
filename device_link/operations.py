"""Operation lists and messages of the link protocol (`docs/reference/link-protocol.md`).

Both sides use this module: a host encodes requests and decodes answers, the simulated device's server decodes
requests, checks them as a whole and encodes answers. Addresses are byte addresses everywhere in Python; lists on
the wire carry word addresses. Nothing here knows about sequence numbers or time: see `session` and `responder`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from morphnic.errors import LinkError

PROTOCOL_VERSION = 2
SPACE_WORDS = 1 << 16
SPACE_BYTES = 4 * SPACE_WORDS
MAX_REQUEST_BYTES = 512
REPEAT_WINDOW = 128
BUFFER_BYTES = 4096  # of requests that wait in a device
BUFFER_MESSAGES = 64
MAX_WORDS = 255  # of one operation on the wire
HEADER_BYTES = 3


class MessageType(IntEnum):
    """Byte 0 of a message; the upper bit says that it comes from the device."""

    REQUEST = 0x01
    HELLO = 0x02
    CONTROL = 0x10
    RESPONSE = 0x81
    HELLO_RESPONSE = 0x82
    WINDOW = 0x83
    REJECT = 0x84
    FAILURE = 0x85
    CONTROL_RESPONSE = 0x90


class Status(IntEnum):
    """How a request ended."""

    DONE = 0
    BUS_ERROR = 1
    MALFORMED = 2


class RejectReason(IntEnum):
    """Why a message was not taken at all."""

    NO_SESSION = 1
    OUT_OF_ORDER = 2
    CORRUPT = 3


class MalformedList(LinkError):
    """An operation list that a device answers with `Status.MALFORMED`; `index` is the operation at fault."""

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


class MalformedMessage(LinkError):
    """Bytes that are no message of the protocol."""


# --- operations -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """Read `count` words from consecutive addresses."""

    address: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class ReadList:
    """Read one word from each address."""

    addresses: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """Write `words` to consecutive addresses."""

    address: int
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WriteList:
    """Write each (address, word)."""

    pairs: tuple[tuple[int, int], ...]


Operation = Read | ReadList | Write | WriteList

_OPCODES: dict[type[Operation], int] = {Read: 1, ReadList: 2, Write: 3, WriteList: 4}
_TYPES = {opcode: kind for kind, opcode in _OPCODES.items()}
#: Bytes after opcode and n: (fixed, for each of n).
_BODY_BYTES = {1: (4, 0), 2: (0, 2), 3: (4, 4), 4: (0, 6)}


def word_count(operation: Operation) -> int:
    """Words that the operation moves."""
    match operation:
        case Read(count=count):
            return count
        case ReadList(addresses=addresses):
            return len(addresses)
        case Write(words=words):
            return len(words)
        case WriteList(pairs=pairs):
            return len(pairs)


def is_write(operation: Operation) -> bool:
    """Whether the operation changes the device."""
    return isinstance(operation, Write | WriteList)


def read_count(operation: Operation) -> int:
    """Words that the operation returns."""
    return 0 if is_write(operation) else word_count(operation)


def touched(operation: Operation) -> list[int]:
    """Byte addresses that the operation accesses, in order."""
    match operation:
        case Read(address=address, count=count):
            return list(range(address, address + 4 * count, 4))
        case ReadList(addresses=addresses):
            return list(addresses)
        case Write(address=address, words=words):
            return list(range(address, address + 4 * len(words), 4))
        case WriteList(pairs=pairs):
            return [address for address, _ in pairs]


def encoded_size(operation: Operation) -> int:
    """Bytes that the operation takes in a request."""
    fixed, each = _BODY_BYTES[_OPCODES[type(operation)]]
    return 2 + fixed + each * word_count(operation)


def encode_operations(operations: Sequence[Operation]) -> bytes:
    """Body of a request. Every operation must move 1..255 words and stay within the register space."""
    parts = bytearray()
    for operation in operations:
        count = word_count(operation)
        if not 1 <= count <= MAX_WORDS:
            raise ValueError(f"words of one operation must be in 1..{MAX_WORDS}, not {count!r}")
        for address in touched(operation):
            if address % 4 or not 0 <= address < SPACE_BYTES:
                raise ValueError(f"address must be a multiple of 4 below {SPACE_BYTES:#x}, not {address:#x}")
        parts += bytes([_OPCODES[type(operation)], count])
        match operation:
            case Read(address=address):
                parts += struct.pack("<I", address)
            case ReadList(addresses=addresses):
                parts += struct.pack(f"<{count}H", *(address // 4 for address in addresses))
            case Write(address=address, words=words):
                parts += struct.pack(f"<I{count}I", address, *words)
            case WriteList(pairs=pairs):
                for address, word in pairs:
                    parts += struct.pack("<HI", address // 4, word)
    return bytes(parts)


def decode_operations(body: bytes) -> list[Operation]:
    """Operations of a request's body; raises `MalformedList` where a device answers *malformed*.

    The whole list is checked, so that a server carries out nothing of a bad one.
    """
    operations: list[Operation] = []
    position = 0
    while position < len(body):
        index = len(operations)
        opcode = body[position]
        if opcode not in _TYPES:
            raise MalformedList(f"operation {index}: opcode must be 1..4, not {opcode}", index=index)
        if position + 2 > len(body) or body[position + 1] == 0:
            raise MalformedList(f"operation {index}: n is missing or 0", index=index)
        count = body[position + 1]
        fixed, each = _BODY_BYTES[opcode]
        start, position = position + 2, position + 2 + fixed + each * count
        if position > len(body):
            raise MalformedList(f"operation {index}: truncated by {position - len(body)} bytes", index=index)
        operations.append(_decode_one(opcode, count, body[start:position], index))
    return operations


def _decode_one(opcode: int, count: int, payload: bytes, index: int) -> Operation:
    if opcode == 2:
        return ReadList(tuple(4 * word for word in struct.unpack(f"<{count}H", payload)))
    if opcode == 4:
        return WriteList(tuple((4 * word, data) for word, data in struct.iter_unpack("<HI", payload)))
    address = int.from_bytes(payload[:4], "little")
    if address % 4:
        raise MalformedList(f"operation {index}: address {address:#x} is not a multiple of 4", index=index)
    if address + 4 * count > SPACE_BYTES:
        raise MalformedList(f"operation {index}: {count} words from {address:#x} leave the space", index=index)
    if opcode == 1:
        return Read(address, count)
    return Write(address, struct.unpack(f"<{count}I", payload[4:]))


# --- messages ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """Begin session `session`, or ask again about it."""

    session: int

    def encode(self) -> bytes:
        """The message as bytes."""
        return bytes([MessageType.HELLO, self.session, 0, 0])


@dataclass(frozen=True, slots=True)
class Request:
    """An operation list under a sequence number; `body` is still encoded."""

    session: int
    sequence: int
    body: bytes

    def encode(self) -> bytes:
        """The message as bytes."""
        return bytes([MessageType.REQUEST, self.session, self.sequence]) + self.body


@dataclass(frozen=True, slots=True)
class Control:
    """A JSON document for or from the simulation; no device on a wire knows it."""

    session: int
    sequence: int
    document: bytes
    answer: bool = False

    def encode(self) -> bytes:
        """The message as bytes."""
        kind = MessageType.CONTROL_RESPONSE if self.answer else MessageType.CONTROL
        return bytes([kind, self.session, self.sequence]) + self.document


@dataclass(frozen=True, slots=True)
class HelloResponse:
    """What a device tells about itself and about the session before."""

    session: int
    boot_nonce: int
    previous_session: int
    previous_expected: int
    version: int = PROTOCOL_VERSION
    window: int = REPEAT_WINDOW
    largest_request: int = MAX_REQUEST_BYTES
    buffer_bytes: int = BUFFER_BYTES
    buffer_messages: int = BUFFER_MESSAGES

    def encode(self) -> bytes:
        """The message as bytes."""
        return bytes([MessageType.HELLO_RESPONSE, self.session, 0]) + struct.pack(
            "<BBHIBBHB", self.version, self.window, self.largest_request, self.boot_nonce,
            self.previous_session, self.previous_expected, self.buffer_bytes, self.buffer_messages)


@dataclass(frozen=True, slots=True)
class Response:
    """How a request ended, and the words that it read (up to the failure, when there was one)."""

    session: int
    sequence: int
    words: tuple[int, ...]
    status: Status
    index: int

    def encode(self) -> bytes:
        """The message as bytes."""
        data = struct.pack(f"<{len(self.words)}I", *self.words)
        return bytes([MessageType.RESPONSE, self.session, self.sequence]) + data + bytes([self.status, self.index])


@dataclass(frozen=True, slots=True)
class Reject:
    """A message was not taken; `expected` is the sequence that the device wants next."""

    session: int
    sequence: int
    reason: RejectReason
    expected: int

    def encode(self) -> bytes:
        """The message as bytes."""
        return bytes([MessageType.REJECT, self.session, self.sequence, self.reason, self.expected])


@dataclass(frozen=True, slots=True)
class Failure:
    """A server could not have a request carried out; `document` is JSON: kind, error, outcome. No device sends it."""

    session: int
    sequence: int
    document: bytes

    def encode(self) -> bytes:
        """The message as bytes."""
        return bytes([MessageType.FAILURE, self.session, self.sequence]) + self.document


@dataclass(frozen=True, slots=True)
class WindowPush:
    """A pushed window snapshot, still encoded: see `window.Window.decode`."""

    payload: bytes

    def encode(self) -> bytes:
        """The message as bytes."""
        return bytes([MessageType.WINDOW, 0, 0]) + self.payload


Message = Hello | Request | Control | HelloResponse | Response | Reject | Failure | WindowPush


def decode_message(message: bytes) -> Message:
    """The message in `message`; raises `MalformedMessage`."""
    if len(message) < HEADER_BYTES:
        raise MalformedMessage(f"a message has at least {HEADER_BYTES} bytes, not {len(message)}")
    kind, session, sequence, body = message[0], message[1], message[2], message[HEADER_BYTES:]
    try:
        match kind:
            case MessageType.REQUEST:
                return Request(session, sequence, body)
            case MessageType.HELLO:
                return Hello(session)
            case MessageType.CONTROL | MessageType.CONTROL_RESPONSE:
                return Control(session, sequence, body, answer=kind == MessageType.CONTROL_RESPONSE)
            case MessageType.RESPONSE:
                words = struct.unpack(f"<{(len(body) - 2) // 4}I", body[:-2])
                return Response(session, sequence, words, Status(body[-2]), body[-1])
            case MessageType.HELLO_RESPONSE:
                version, window, largest, nonce, previous, expected, size, count = struct.unpack("<BBHIBBHB", body)
                return HelloResponse(session, nonce, previous, expected, version, window, largest, size, count)
            case MessageType.REJECT:
                reason, expected = struct.unpack("<BB", body)
                return Reject(session, sequence, RejectReason(reason), expected)
            case MessageType.FAILURE:
                return Failure(session, sequence, body)
            case MessageType.WINDOW:
                return WindowPush(body)
    except (struct.error, ValueError, IndexError) as error:
        raise MalformedMessage(f"message of type {kind:#04x} with {len(message)} bytes: {error}") from error
    raise MalformedMessage(f"unknown message type {kind:#04x}")
