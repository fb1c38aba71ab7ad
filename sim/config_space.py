"""`ConfigSpace`: the configuration space that the hard IP of a card would have, for a guest.

An endpoint with one memory BAR, the PCI Express capability (function-level reset, payload and read request sizes) and
MSI-X in that BAR. Byte places are those of the PCI Express base specification, 7.5.1 to 7.5.3 and 7.7.2.
"""

from __future__ import annotations

import struct

from device_link.discovery import KNOWN_FUNCTIONS

__all__ = ["SPACE_BYTES", "ConfigSpace"]

SPACE_BYTES = 4096
COMMAND, BUS_MASTER = 0x04, 1 << 2
_EXPRESS, _MSIX = 0x40, 0x80
_DEVICE_CONTROL = _EXPRESS + 8
FUNCTION_LEVEL_RESET = 1 << 15
_LARGEST_PAYLOAD = 1  # 256 bytes
_DEFAULT_CONTROL = 0x2810  # as after reset: relaxed order, no snoop, requests of 512, payload of 128 bytes


class ConfigSpace:
    """Of a function with `vectors` interrupts, whose MSI-X table and pending bits are at these addresses of BAR0."""

    def __init__(self, vectors: int, table: int, pending: int, bar_bytes: int) -> None:
        (vendor, device), = KNOWN_FUNCTIONS
        self._fresh = bytearray(SPACE_BYTES)
        self._writable = bytearray(SPACE_BYTES)
        self._put(0x00, struct.pack("<HHHHBBBB", vendor, device, 0, 0x10, 1, 0, 0, 0x12))  # a processing accelerator
        self._put(COMMAND, bytes(2), 0x0546)  # memory, bus master, parity, SERR, no INTx
        self._put(0x10, bytes(4), 0xFFFF_FFFF & -bar_bytes)  # memory, 32 bits
        self._put(0x2C, struct.pack("<HH", vendor, device))
        self._put(0x34, bytes([_EXPRESS]))
        self._put(_EXPRESS, struct.pack("<BBHIHH", 0x10, _MSIX, 2, 1 << 28 | _LARGEST_PAYLOAD | 0x8000, 0, 0))
        self._put(_DEVICE_CONTROL, struct.pack("<H", _DEFAULT_CONTROL), 0x7FFF)
        self._put(_EXPRESS + 0x0C, struct.pack("<IHH", 0x41, 0, 0x41))  # a lane of 2.5 GT/s: there is no link
        self._put(_EXPRESS + 0x2C, struct.pack("<I", 2))
        self._put(_MSIX, struct.pack("<BBHII", 0x11, 0, vectors - 1, table, pending))
        self._put(_MSIX + 2, struct.pack("<H", vectors - 1), 0xC000)
        self.reset()

    def _put(self, place: int, content: bytes, writable: int = 0) -> None:
        self._fresh[place:place + len(content)] = content
        self._writable[place:place + len(content)] = writable.to_bytes(len(content), "little")

    def reset(self) -> None:
        """As after a reset of the function."""
        self._bytes = bytearray(self._fresh)

    def read(self, place: int, size: int) -> bytes:
        """`size` bytes from `place` on; `ValueError` outside of the space."""
        self._check(place, size)
        return bytes(self._bytes[place:place + size])

    def write(self, place: int, content: bytes) -> bool:
        """Write what may be written; whether a function-level reset was asked for, which the caller carries out."""
        self._check(place, len(content))
        for index, byte in enumerate(content, place):
            mask = self._writable[index]
            self._bytes[index] = self._bytes[index] & ~mask | byte & mask
        high = _DEVICE_CONTROL + 1 - place
        return 0 <= high < len(content) and bool(content[high] << 8 & FUNCTION_LEVEL_RESET)

    @staticmethod
    def _check(place: int, size: int) -> None:
        if place < 0 or place + size > SPACE_BYTES:
            raise ValueError(f"bytes {place:#x} to {place + size:#x} are not in the configuration space")

    @property
    def bus_master(self) -> bool:
        """Whether the function may send requests."""
        return bool(self._bytes[COMMAND] & BUS_MASTER)

    @property
    def max_payload(self) -> int:
        """As encoded in device control, no more than the function can."""
        return min(self._bytes[_DEVICE_CONTROL] >> 5 & 7, _LARGEST_PAYLOAD)

    @property
    def max_read(self) -> int:
        """As encoded in device control."""
        return self._bytes[_DEVICE_CONTROL + 1] >> 4 & 7
