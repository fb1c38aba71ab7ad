"""Window snapshots: what each tenant did in a window of the workload analyzer, as the device pushes it.

The words are in `docs/reference/link-protocol.md`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields

from .operations import MalformedMessage

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
