"""Operation lists, messages and window snapshots of the link protocol (`docs/reference/link-protocol.md`).

Both sides use this module: a host encodes requests and decodes answers, the simulated device's server decodes
requests, checks them as a whole and encodes answers. Addresses are byte addresses everywhere in Python; lists on
the wire carry word addresses. Nothing here knows about sequence numbers or time: see `session` and `responder`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
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
class WindowPush:
    """A pushed window snapshot, still encoded: see `Window.decode`."""

    payload: bytes

    def encode(self) -> bytes:
        """The message as bytes."""
        return bytes([MessageType.WINDOW, 0, 0]) + self.payload


Message = Hello | Request | Control | HelloResponse | Response | Reject | WindowPush


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
            case MessageType.WINDOW:
                return WindowPush(body)
    except (struct.error, ValueError, IndexError) as error:
        raise MalformedMessage(f"message of type {kind:#04x} with {len(message)} bytes: {error}") from error
    raise MalformedMessage(f"unknown message type {kind:#04x}")


# --- window snapshots -------------------------------------------------------------------------------------------

WINDOW_MAGIC = 0x4D57
WINDOW_SCHEMA = 2
WINDOW_HEADER_WORDS = 8
WINDOW_ROW_WORDS = 16


@dataclass(frozen=True, slots=True)
class WindowRow:
    """What one tenant did in a window; the fields are the registers of `snapshot[t]`, in their order."""

    bytes_in: int
    packets_in: int
    requests: int
    sequential: int
    bytes_out: int
    packets_out: int
    drops: int
    peak: int
    backpressure_cycles: int
    engine_cycles: int
    latency_sum_low: int
    latency_max: int
    slo_misses: int
    queue: int
    predicted_bytes: int
    flags: int

    @property
    def queue_depth_max(self) -> int:
        """Most packets in the fabric at one time."""
        return self.peak & 0xFFFF

    @property
    def burstiness(self) -> float:
        """Variance over mean of the packets admitted in each sixteenth of the window: 1 as if at random (Poisson)."""
        return (self.peak >> 16) / 16

    @property
    def latency_sum(self) -> int:
        """Cycles, added over the packets that left whole; saturates at 2**40 - 1."""
        return self.flags >> 24 << 32 | self.latency_sum_low

    @property
    def depth(self) -> int:
        """Packets in the fabric at the end of the window."""
        return self.queue & 0xFFFF

    @property
    def burst(self) -> int:
        """Most bytes admitted in one sixteenth of the window, in 64-byte units, saturating."""
        return self.queue >> 16

    @property
    def backpressured(self) -> bool:
        """Back-pressured, or without credit and with packets in the fabric, in more than 1/8 of the window."""
        return bool(self.flags & 1)

    @property
    def is_sequential(self) -> bool:
        """More than half of the requests were sequential."""
        return bool(self.flags & 2)

    @property
    def missing_slo(self) -> bool:
        """More than 1/16 of the packets missed the objective."""
        return bool(self.flags & 4)

    @property
    def engine_bound(self) -> bool:
        """Limited by the engine slots that it may use."""
        return bool(self.flags & 8)

    @property
    def bandwidth_bound(self) -> bool:
        """Limited by its rate or by an output that was full."""
        return bool(self.flags & 0x10)

    @property
    def pages_bound(self) -> bool:
        """Limited by its pages: waits for admission, and neither engines nor bandwidth explain it."""
        return bool(self.flags & 0x20)

    @property
    def host_bound(self) -> bool:
        """Limited by its host, as the agent wrote it."""
        return bool(self.flags & 0x40)

    @property
    def is_strided(self) -> bool:
        """More than half of the requests were strided."""
        return bool(self.flags & 0x80)

    @property
    def host_cpu(self) -> int:
        """CPU pressure written by the host agent, 0..255."""
        return self.flags >> 8 & 0xFF

    @property
    def host_memory(self) -> int:
        """Memory pressure written by the host agent, 0..255."""
        return self.flags >> 16 & 0xFF


_ROW_FIELDS = tuple(field.name for field in fields(WindowRow))


@dataclass(frozen=True, slots=True)
class Window:
    """One window snapshot, taken atomically by the device."""

    number: int
    start: int
    cycles: int
    epoch: int
    skipped: int
    active_tag: int
    rows: tuple[WindowRow, ...]

    @classmethod
    def decode(cls, payload: bytes) -> Window:
        """The window in the body of a pushed message; raises `MalformedMessage`."""
        if len(payload) % 4 or len(payload) < 4 * WINDOW_HEADER_WORDS:
            raise MalformedMessage(f"a window snapshot is whole words, at least 8, not {len(payload)} bytes")
        return cls.from_words(struct.unpack(f"<{len(payload) // 4}I", payload))

    @classmethod
    def from_words(cls, words: Sequence[int]) -> Window:
        """The window in `words`; raises `MalformedMessage`."""
        head = words[0] if words else 0
        if head >> 16 != WINDOW_MAGIC or head >> 8 & 0xFF != WINDOW_SCHEMA:
            raise MalformedMessage(f"no window snapshot of schema {WINDOW_SCHEMA}: first word {head:#010x}; "
                                   "this software and the device were built from different versions")
        tenants = head & 0xFF
        if len(words) != WINDOW_HEADER_WORDS + WINDOW_ROW_WORDS * tenants:
            raise MalformedMessage(f"a window snapshot of {tenants} tenants has "
                                   f"{WINDOW_HEADER_WORDS + WINDOW_ROW_WORDS * tenants} words, not {len(words)}")
        number, low, high, cycles, epoch, skipped, tag = words[1:WINDOW_HEADER_WORDS]
        rows = tuple(WindowRow(*words[start:start + WINDOW_ROW_WORDS])
                     for start in range(WINDOW_HEADER_WORDS, len(words), WINDOW_ROW_WORDS))
        return cls(number, low | high << 32, cycles, epoch, skipped, tag, rows)

    def to_words(self) -> list[int]:
        """The words of the snapshot, as a device pushes them."""
        head = WINDOW_MAGIC << 16 | WINDOW_SCHEMA << 8 | len(self.rows)
        words = [head, self.number, self.start & 0xFFFF_FFFF, self.start >> 32, self.cycles, self.epoch,
                 self.skipped, self.active_tag]
        for row in self.rows:
            words += [getattr(row, name) for name in _ROW_FIELDS]
        return words

    def encode(self) -> bytes:
        """The body of a pushed message."""
        words = self.to_words()
        return struct.pack(f"<{len(words)}I", *words)
