"""Probes as a device describes them, and what it captured of them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from morphnic.errors import LinkError

DESCRIPTION_SCHEMA = 1
RUN_BITS = 16


@dataclass(frozen=True)
class Probe:
    """A signal that is sampled: bits `low` to `low + width - 1` of a sample. values: names of an enum's values."""

    name: str
    low: int
    width: int
    values: Mapping[int, str]

    def extract(self, sample: int) -> int:
        """Its value in a sample."""
        return sample >> self.low & (1 << self.width) - 1


def decode_description(data: bytes, bits: int) -> tuple[Probe, ...]:
    """The probes in a device's description, which must have `bits` bits together."""
    try:
        document = json.loads(zlib.decompress(data))
        schema, rows = document["schema"], document["probes"]
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise LinkError(f"the device's description of its probes cannot be read: {error}") from error
    if schema != DESCRIPTION_SCHEMA:
        raise LinkError(f"the device describes its probes in schema {schema!r}, this software knows "
                        f"{DESCRIPTION_SCHEMA}: install the software of the device's version")
    probes, low = [], 0
    for name, width, *values in rows:
        named = {int(value): text for value, text in (values[0] if values else {}).items()}
        probes.append(Probe(name, low, width, named))
        low += width
    if low != bits:
        raise LinkError(f"the device samples {bits} bits, and describes {low}: its bitstream is faulty")
    return tuple(probes)


@dataclass(frozen=True)
class Capture:
    """Samples of consecutive device cycles.

    end: the cycle after the last one. trigger: the cycle of the trigger; None if it did not come. runs: samples and for
    how many cycles each lasted, oldest first; equal ones may follow each other.
    """

    probes: tuple[Probe, ...]
    runs: tuple[tuple[int, int], ...]
    end: int
    trigger: int | None
    clock_hz: int

    @property
    def start(self) -> int:
        """The first cycle."""
        return self.end - sum(cycles for _, cycles in self.runs)

    def samples(self) -> list[int]:
        """The sample of each cycle: a list as long as the capture, which may be millions of cycles."""
        return [sample for sample, cycles in self.runs for _ in range(cycles)]


def decode_rows(words: Sequence[int], row_words: int, bits: int) -> list[tuple[int, int]]:
    """Samples and their cycles, from the words of rows."""
    runs = []
    for start in range(0, len(words), row_words):
        row = sum(word << 32 * place for place, word in enumerate(words[start:start + row_words]))
        runs.append((row & (1 << bits) - 1, (row >> bits & (1 << RUN_BITS) - 1) + 1))
    return runs
