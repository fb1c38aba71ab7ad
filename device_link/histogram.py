"""Latency histograms of the analyzer: which latencies a bin holds, and percentiles from the counts.

The counters are running totals: subtract two readings for an interval. Bins are an eighth of an octave wide, so that a
percentile is within 7 % of the exact one (and exact below 8 cycles).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphnic.errors import InputError

if TYPE_CHECKING:
    from device_link.device import Device

__all__ = ["BINS", "bin_bounds", "percentile", "read_histogram", "since"]

BINS = 256


def bin_bounds(number: int) -> tuple[int, int]:
    """Least latency of a bin in cycles, and the least above it."""
    if not 0 <= number < BINS:
        raise ValueError(f"number must be in 0..{BINS - 1}, not {number!r}")
    octave, part = divmod(number, 8)
    if octave == 0:
        return part, part + 1
    return (8 + part) << (octave - 1), (9 + part) << (octave - 1)


def percentile(counts: Sequence[int], share: float) -> float:
    """Latency in cycles that `share` (0..1) of the packets do not exceed: the geometric middle of its bin."""
    if len(counts) != BINS:
        raise ValueError(f"counts must have {BINS} entries, not {len(counts)}")
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in 0..1, not {share!r}")
    total = sum(counts)
    if total == 0:
        raise InputError("the latency histogram is empty: no packet left in the interval; choose a longer one")
    seen = 0
    for number, count in enumerate(counts):
        seen += count
        if count and seen >= share * total:
            low, high = bin_bounds(number)
            return float((low * (high - 1)) ** 0.5)
    raise AssertionError("the counts add up to their total")


def since(now: Sequence[int], before: Sequence[int]) -> list[int]:
    """Counts between two readings, modulo 2**32 as the counters are."""
    return [(new - old) & 0xFFFF_FFFF for new, old in zip(now, before, strict=True)]


def read_histogram(device: Device, tenant: int) -> list[int]:
    """The counters of one tenant, as they are now."""
    tenants = device.identity.config.tenants
    if not 0 <= tenant < tenants:
        raise ValueError(f"tenant must be in 0..{tenants - 1}, not {tenant!r}")
    first = device.map.block("histogram").address + 4 * BINS * tenant
    return device.transport.read(first, BINS)
