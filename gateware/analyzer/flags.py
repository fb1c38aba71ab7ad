"""Bottleneck flags of one tenant and window, combinationally from its totals.

Contract: every figure is of the same tenant and window of `cycles` cycles; `share` is the number of engine
slots that the tenant may use. A comparison is exact (no rounding): see `elaborate`.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig

__all__ = ["Flags"]


class Flags(wiring.Component):
    """Four comparisons."""

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "cycles": In(32),
            "backpressure_cycles": In(32),
            "requests": In(32),
            "sequential": In(32),
            "packets_out": In(32),
            "slo_misses": In(32),
            "engine_cycles": In(32),
            "share": In(range(config.slots + 1)),
            "flags": Out(4),
        })

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.flags.eq(Cat(
            (self.backpressure_cycles << 3) > self.cycles,
            (self.sequential << 1) > self.requests,
            (self.slo_misses << 4) > self.packets_out,
            (self.share != 0) & ((self.engine_cycles << 1) > self.cycles * self.share),
        ))
        return m
