"""Trend: predicts each tenant's bytes of the next window by level and slope (Holt's linear method).

Contract: `update` with `tenant` and `value`, which are held until `done`; `predicted` is the forecast for the next
window from the cycle of `done` on, `CYCLES` after `update`. Four pairs of gains are run beside each other, and the
forecast is that of the pair with the least recent error (the first of equals). For each pair (a, b) of `GAINS`, in
units of 1/256 byte, with floor shifts and the sums cut to the ranges named:

    error   = 256 * value - (level + slope)
    level'  = level + slope + (error >> a)       cut to 0 .. 2**40 - 1
    slope'  = slope + (error >> (a + b))         cut to -2**40 .. 2**40 - 1
    recent' = recent + ((|error| - recent) >> 5) cut to 0 .. 2**40 - 1
    predicted = (level' + slope') >> 8           cut to 0 .. 2**32 - 1

A tenant's first value sets level' = 256 * value, slope' = recent' = 0; its second sets recent' = |error|.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig

__all__ = ["CYCLES", "GAINS", "Trend"]

#: Gains of level and slope as negative powers of two: from one that follows a ramp to one that averages noise.
GAINS = ((1, 1), (1, 4), (3, 4), (5, 5))
CYCLES = 7 * len(GAINS)
FRACTION = 8
RECENT_SHIFT = 5
LEVEL_LIMIT = (1 << 40) - 1
SLOPE_LOWEST, SLOPE_HIGHEST = -(1 << 40), (1 << 40) - 1


class TrendState(data.Struct):
    """What is remembered of one tenant and pair of gains. seen: values so far, at most 2."""

    seen: 2
    level: 40
    slope: signed(41)
    recent: 40


def clamp(value, lowest, highest):
    """`value` cut to lowest..highest."""
    return Mux(value < lowest, lowest, Mux(value > highest, highest, value))


class Trend(wiring.Component):
    """Holt's method in fixed point; the state is one memory row for each tenant and pair of gains."""

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
        m.submodules.store = store = memory.Memory(
            shape=TrendState, depth=len(GAINS) << (self._config.tenants - 1).bit_length(), init=[])
        read, write = store.read_port(), store.write_port()
        pair = Signal(range(len(GAINS)))
        before, after = Signal(TrendState), Signal(TrendState)
        forecast, error = Signal(signed(43)), Signal(signed(44))
        best = Signal(40)
        m.d.comb += [
            read.addr.eq(Cat(pair, self.tenant)),
            write.addr.eq(Cat(pair, self.tenant)),
            write.data.eq(after),
        ]
        m.d.sync += self.done.eq(0)

        with m.FSM():
            # The memory reads the row of the first pair as the value arrives.
            with m.State("IDLE"):
                m.d.sync += best.eq(LEVEL_LIMIT)
                with m.If(self.update):
                    m.next = "READ"
            # The row is taken from the memory.
            with m.State("READ"):
                m.d.sync += before.eq(read.data)
                m.next = "COMPARE"
            # The value against the forecast that was made for it.
            with m.State("COMPARE"):
                m.d.sync += [
                    forecast.eq(before.level + before.slope),
                    error.eq((self.value << FRACTION) - (before.level + before.slope)),
                ]
                m.next = "SCALE"
            # The new state follows from the error in three steps: by how much it moves, where to, and the cuts.
            with m.State("SCALE"):
                m.next = "LEARN"
            with m.State("LEARN"):
                m.next = "CUT"
            with m.State("CUT"):
                m.next = "CHOOSE"
            # It is stored, and its forecast kept if no pair before it was better.
            with m.State("CHOOSE"):
                m.d.comb += write.en.eq(1)
                with m.If((after.recent < best) | (pair == 0)):
                    m.d.sync += [best.eq(after.recent), self.predicted.eq(self._outlook(m, after))]
                m.d.sync += pair.eq(pair + 1)
                m.next = "FETCH"
                with m.If(pair == len(GAINS) - 1):
                    m.d.sync += [pair.eq(0), self.done.eq(1)]
                    m.next = "IDLE"
            # The next pair's row is read.
            with m.State("FETCH"):
                m.next = "READ"
        self._learn(m, pair, before, after, forecast, error)
        return m

    def _learn(self, m, pair, before, after, forecast, error):
        """A pipeline from `error` to `after`, three cycles long."""
        level_part, slope_part = error >> GAINS[0][0], error >> sum(GAINS[0])
        for number, (level_gain, slope_gain) in enumerate(GAINS[1:], 1):
            level_part = Mux(pair == number, error >> level_gain, level_part)
            slope_part = Mux(pair == number, error >> (level_gain + slope_gain), slope_part)
        level_move, slope_move, missed = Signal(signed(44)), Signal(signed(44)), Signal(44)
        level, slope, recent = Signal(signed(46)), Signal(signed(46)), Signal(signed(46))
        first = before.seen == 0
        m.d.sync += [
            level_move.eq(level_part),
            slope_move.eq(slope_part),
            missed.eq(Mux(error < 0, -error, error)),

            level.eq(Mux(first, self.value << FRACTION, forecast + level_move)),
            slope.eq(Mux(first, 0, before.slope + slope_move)),
            recent.eq(Mux(before.seen == 1, missed, before.recent + ((missed - before.recent) >> RECENT_SHIFT))),

            after.seen.eq(Mux(first, 1, 2)),
            after.level.eq(clamp(level, 0, LEVEL_LIMIT)),
            after.slope.eq(clamp(slope, SLOPE_LOWEST, SLOPE_HIGHEST)),
            after.recent.eq(Mux(first, 0, clamp(recent, 0, LEVEL_LIMIT))),
        ]

    def _outlook(self, m, after):
        """The forecast for the window after."""
        outlook = Signal(signed(43))
        m.d.comb += outlook.eq((after.level + after.slope) >> FRACTION)
        return clamp(outlook, 0, 0xFFFFFFFF)
