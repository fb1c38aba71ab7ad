"""From operations to requests: cut to what one message holds, in order.

A list of addresses takes half as many bytes as its answer. On a line where both directions run at once, the answers are
what counts, and they cannot begin before the first request has arrived as a whole: so lists begin with a short request,
and each following one is twice as long, arriving just while the one before it is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .operations import (
    HEADER_BYTES,
    MAX_WORDS,
    Failure,
    Operation,
    Read,
    ReadList,
    Response,
    Write,
    WriteList,
    encoded_size,
    is_write,
    read_count,
    word_count,
)

_WORTH_CUTTING = 8  # words of an operation that must fit into the rest of a request to be put there
_FIRST_LIST = 32  # bytes of the first request that carries a list, where lists grow
_LIST_FRAME = 8  # bytes of a request and its answer that are not doubled: n addresses of two bytes, n words of four


@dataclass
class Piece:
    """Part of one of the caller's operations that fits into a request; `index` is that operation's."""

    index: int
    operation: Operation


@dataclass
class Flight:
    """One request on its way."""

    pieces: list[Piece] = field(default_factory=list)
    size: int = HEADER_BYTES
    words: int = 0
    sequence: int = 0
    message: bytes = b""
    response: Response | Failure | None = None
    lost_after: float = 0.0  # before then a missing answer may still come
    damaged_after: float = 0.0  # before then a damaged frame is not its answer

    @property
    def writes(self) -> bool:
        """Whether it changes the device."""
        return any(is_write(piece.operation) for piece in self.pieces)

    @property
    def reads(self) -> bool:
        """Whether it asks for words."""
        return self.words > 0

    @property
    def wire_bytes(self) -> int:
        """Bytes of the request and its answer."""
        return self.size + HEADER_BYTES + 2 + 4 * self.words

    def add(self, piece: Piece) -> None:
        """Append `piece`."""
        self.pieces.append(piece)
        self.size += encoded_size(piece.operation)
        self.words += read_count(piece.operation)


def plan(operations: Sequence[Operation], *, largest: int, max_words: int, mixed: bool,
         growing: bool = False) -> list[Flight]:
    """Requests that carry `operations` in order.

    largest: bytes of a request. max_words: words of an answer. mixed: a request may write after it has read.
    growing: read lists begin with a short request (for a line that takes time; a datagram is there at once).
    """
    flights: list[Flight] = []
    for index, operation in enumerate(operations):
        rest: Operation | None = operation
        while rest is not None:
            flight = flights[-1] if flights else Flight(size=largest)
            limit = _limit(rest, len(flights), largest) if growing else largest
            fit = _words_that_fit(rest, limit - flight.size, max_words - flight.words)
            hazard = is_write(rest) and flight.reads and not mixed
            if hazard or fit < min(word_count(rest), _WORTH_CUTTING):
                flights.append(Flight())
                limit = _limit(rest, len(flights), largest) if growing else largest
                fit = _words_that_fit(rest, limit - HEADER_BYTES, max_words)
            piece, rest = _cut(rest, fit)
            flights[-1].add(Piece(index, piece))
    return flights


def _limit(operation: Operation, number: int, largest: int) -> int:
    """Bytes of the `number`-th request (from 1) where it carries `operation`."""
    if not isinstance(operation, ReadList):
        return largest
    return min(largest, _LIST_FRAME + ((_FIRST_LIST - _LIST_FRAME) << min(max(number - 1, 0), 8)))


def _words_that_fit(operation: Operation, room: int, words_left: int) -> int:
    count = word_count(operation)
    fixed = encoded_size(Read(0) if isinstance(operation, Read) else _cut(operation, 1)[0])
    each = {Read: 0, ReadList: 2, Write: 4, WriteList: 6}[type(operation)]
    fit = 0 if room < fixed else MAX_WORDS if each == 0 else 1 + (room - fixed) // each
    if not is_write(operation):
        fit = min(fit, words_left)
    return min(fit, count, MAX_WORDS)


def _cut(operation: Operation, count: int) -> tuple[Operation, Operation | None]:
    """The first `count` words of `operation`, and the rest or None."""
    if count >= word_count(operation):
        return operation, None
    match operation:
        case Read(address, total):
            return Read(address, count), Read(address + 4 * count, total - count)
        case ReadList(addresses):
            return ReadList(addresses[:count]), ReadList(addresses[count:])
        case Write(address, words):
            return Write(address, words[:count]), Write(address + 4 * count, words[count:])
        case WriteList(pairs):
            return WriteList(pairs[:count]), WriteList(pairs[count:])
