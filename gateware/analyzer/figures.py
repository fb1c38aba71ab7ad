"""Figures: what the analyzer tells the reflex rules of the resource manager after each window.

Contract: once a window has closed, a sweep passes on `AnalyzerFigures`: `start` is high in one cycle before its
first word, then words (tenant, figure, value) come at most one a cycle, without back-pressure, all figures of a
tenant before those of the next, tenants in ascending order, each (tenant, figure) exactly once; `end` is high in
one cycle after its last word. All words of a sweep are of the same window; a sweep is over before the next one starts.
Cycles without a word may lie between words. `tenant`, `figure` and `value` mean nothing while `valid` is low.
"""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import Out

from ..config import DeviceConfig

__all__ = ["AnalyzerFigures", "FigureId"]


class FigureId(enum.Enum, shape=unsigned(5)):
    """What a word is. Each is of one tenant and one window, unsigned, and 2**32 - 1 at most.

    DEPTH_MAX, DEPTH_MEAN: packets in the fabric; the mean in 1/256 packet.
    STALLED: cycles in which a packet waited for admission, added over ports.
    BUSY: busy cycles of engine slots, added over slots.
    LATENCY_MEAN, LATENCY_MAX: cycles, of the packets that left whole; 0 when none did.
    MISSED: packets whose latency was over the objective.
    FORECAST: bytes expected to be admitted in the next window.
    BURSTINESS: variance over mean of the packets admitted in each sixteenth of the window, in 1/16; 0 when none was.
    HOST_CPU, HOST_MEMORY: pressures written by the host, 0..255.
    FLAGS: the flag bits of the snapshot's word `flags` (bit 0 is bit 0 there).
    DROPS: packets refused at admission and discarded.
    """

    BYTES_IN = 0
    PACKETS_IN = 1
    REQUESTS = 2
    DEPTH_MAX = 3
    DEPTH_MEAN = 4
    STALLED = 5
    BUSY = 6
    LATENCY_MEAN = 7
    LATENCY_MAX = 8
    MISSED = 9
    BYTES_OUT = 10
    FORECAST = 11
    BURSTINESS = 12
    HOST_CPU = 13
    HOST_MEMORY = 14
    FLAGS = 15
    DROPS = 16


class AnalyzerFigures(wiring.Signature):
    """A sweep of figures, seen from the analyzer."""

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "start": Out(1),
            "end": Out(1),
            "valid": Out(1),
            "tenant": Out(range(config.tenants)),
            "figure": Out(FigureId),
            "value": Out(32),
        })
