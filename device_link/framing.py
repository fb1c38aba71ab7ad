"""Frames on a serial line: COBS over the message and its CRC-32C, ended by a zero byte.

The decoder takes bytes in pieces of any size and finds the next frame after anything: a zero byte never occurs
inside a frame, so noise costs the frame that it hits and no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c

CRC_BYTES = 4
MIN_MESSAGE_BYTES = 3


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`."""
    return int(google_crc32c.value(data))


def cobs_encode(data: bytes) -> bytes:
    """`data` without zero bytes: each group of up to 254 non-zero bytes behind its length plus one."""
    encoded = bytearray()
    groups = data.split(b"\0")
    for position, group in enumerate(groups):
        while len(group) >= 254:
            encoded += b"\xff" + group[:254]
            group = group[254:]
            if not group and position == len(groups) - 1:
                return bytes(encoded)  # a full last group implies no zero
        encoded += bytes([len(group) + 1]) + group
    return bytes(encoded)


def cobs_decode(encoded: bytes) -> bytes:
    """Inverse of `cobs_encode`; raises `ValueError` for bytes that it cannot have made."""
    decoded = bytearray()
    position = 0
    while position < len(encoded):
        code = encoded[position]
        group = encoded[position + 1:position + code]
        if code == 0 or len(group) != code - 1 or 0 in group:
            raise ValueError(f"COBS group at byte {position} must hold {code - 1} non-zero bytes")
        decoded += group
        position += code
        if code < 0xFF and position < len(encoded):
            decoded.append(0)
    return bytes(decoded)


def encode_frame(message: bytes) -> bytes:
    """`message` as it goes over a line, the ending zero byte included."""
    return cobs_encode(message + crc32c(message).to_bytes(CRC_BYTES, "little")) + b"\0"


@dataclass
class FrameDecoder:
    """Turns bytes into messages; what is wrong is dropped and counted.

    limit: most bytes that a frame may have before it is dropped, so that noise without zeros costs no memory.
    """

    limit: int = 1 << 18
    crc_errors: int = 0
    framing_errors: int = 0

    def __post_init__(self) -> None:
        self._pending = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Messages that `data` completes, in order; None stands for a frame that was dropped."""
        pieces = data.split(b"\0")
        for position, piece in enumerate(pieces):
            if self._overlong or len(self._pending) + len(piece) > self.limit:
                self._overlong = True
                self._pending.clear()
            else:
                self._pending += piece
            if position == len(pieces) - 1:
                return
            frame, overlong = bytes(self._pending), self._overlong
            self._pending.clear()
            self._overlong = False
            if frame or overlong:
                yield None if overlong else self._decode(frame)
                self.framing_errors += overlong

    def _decode(self, frame: bytes) -> bytes | None:
        try:
            content = cobs_decode(frame)
        except ValueError:
            self.framing_errors += 1
            return None
        if len(content) < MIN_MESSAGE_BYTES + CRC_BYTES:
            self.framing_errors += 1
            return None
        message, received = content[:-CRC_BYTES], int.from_bytes(content[-CRC_BYTES:], "little")
        if crc32c(message) != received:
            self.crc_errors += 1
            return None
        return message
