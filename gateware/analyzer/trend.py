"""Trend: predicts each tenant's bytes of the next window by level and slope (Holt's linear method).

Contract: `update` with `tenant` and `value` (held for three cycles); `predicted` is the forecast for the next
window in the third cycle after it, when `done` is high. In units of 1/256 byte, with floor shifts and the sums
cut to the ranges named:

    error  = 256 * value - (level + slope)
    level' = level + slope + (error >> 1)      cut to 0 .. 2**40 - 1
    slope' = slope + (error >> 3)              cut to -2**40 .. 2**40 - 1
    predicted = (level' + slope') >> 8         cut to 0 .. 2**32 - 1

A tenant's first value sets level' = 256 * value, slope' = 0. (Holt's smoothing factors are 1/2 and 1/4.)
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig

__all__ = ["Trend"]

FRACTION = 8
LEVEL_LIMIT = (1 << 40) - 1
SLOPE_LOWEST, SLOPE_HIGHEST = -(1 << 40), (1 << 40) - 1


class TrendState(data.Struct):
    """What is remembered of one tenant."""

    seen: 1
    level: 40
    slope: signed(41)


def clamp(value, lowest, highest):
    """`value` cut to lowest..highest."""
    return Mux(value < lowest, lowest, Mux(value > highest, highest, value))


class Trend(wiring.Component):
    """Holt's method in fixed point; the state is one memory row a tenant."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "update": In(1),
            "tenant": In(range(config.tenants)),
            "value": In(32),
            "done": Out(1),
            "predicted": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(shape=TrendState, depth=self._config.tenants, init=[])
        read, write = store.read_port(), store.write_port()
        before, after = read.data, Signal(TrendState)
        loaded, computed = Signal(), Signal()
        m.d.sync += [loaded.eq(self.update), computed.eq(loaded), self.done.eq(computed)]
        m.d.comb += [read.addr.eq(self.tenant), read.en.eq(self.update)]

        scaled = Signal(FRACTION + 32)
        forecast, error = Signal(signed(43)), Signal(signed(44))
        m.d.comb += [
            scaled.eq(self.value << FRACTION),
            forecast.eq(before.level + before.slope),
            error.eq(scaled - forecast),
        ]
        with m.If(loaded):
            m.d.sync += [after.seen.eq(1), after.level.eq(scaled), after.slope.eq(0)]
            with m.If(before.seen):
                m.d.sync += [
                    after.level.eq(clamp(forecast + (error >> 1), 0, LEVEL_LIMIT)),
                    after.slope.eq(clamp(before.slope + (error >> 3), SLOPE_LOWEST, SLOPE_HIGHEST)),
                ]
        m.d.comb += [
            write.addr.eq(self.tenant),
            write.data.eq(after),
            write.en.eq(computed),
        ]
        outlook = Signal(signed(43))
        m.d.comb += outlook.eq((after.level + after.slope) >> FRACTION)
        with m.If(computed):
            m.d.sync += self.predicted.eq(clamp(outlook, 0, 0xFFFFFFFF))
        return m
