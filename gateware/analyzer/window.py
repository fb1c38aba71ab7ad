"""Window clock: cuts device time into windows, each window into sixteen parts, and each part into slices.

Contract: a window covers `length` cycles from `start`; `bank` is the parity of the slice that this cycle belongs to
and goes with every event of the cycle. `slice_end` is high in the last cycle of a slice, `part_end` with it in the
last cycle of a part, `part` is its number, and `window_end` is high with both in the last cycle of a window. `setting`
is taken at a boundary; less than `shortest` counts as `shortest`. Parts have length // 16 cycles, the last one also
the rest. A slice has `slice_cycles` cycles, the last one of a part also the rest; a shorter part is one slice. So a
slice is short enough for narrow counts, however long the window is.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PARTS", "WindowClock"]

PARTS = 16


class WindowClock(wiring.Component):
    """`reset_length` is the length of the first window: the reset value of the register behind `setting`.
    `slice_cycles` is a power of two."""

    def __init__(self, reset_length: int, shortest: int, slice_cycles: int):
        if shortest < PARTS:
            raise ValueError(f"shortest must be at least {PARTS}, not {shortest!r}")
        if not shortest <= reset_length < 1 << 32:
            raise ValueError(f"reset_length must be in {shortest}..2**32-1, not {reset_length!r}")
        if slice_cycles < 2 or slice_cycles & (slice_cycles - 1):
            raise ValueError(f"slice_cycles must be a power of two, not {slice_cycles!r}")
        self._slice_cycles = slice_cycles
        self._shortest = shortest
        self._reset_length = reset_length
        super().__init__({
            "setting": In(32),
            "cycle": In(64),
            "bank": Out(1),
            "part": Out(range(PARTS)),
            "slice_end": Out(1),
            "part_end": Out(1),
            "window_end": Out(1),
            "start": Out(64),
            "length": Out(32, init=reset_length),
        })

    @property
    def shortest(self) -> int:
        """Least cycles of a window."""
        return self._shortest

    def elaborate(self, platform):
        m = Module()
        left = Signal(32, init=self._reset_length // PARTS - 1)
        following = Signal(32)  # length of the window after this one
        m.d.comb += [
            following.eq(Mux(self.setting < self._shortest, self._shortest, self.setting)),
            self.part_end.eq(left == 0),
            self.window_end.eq(self.part_end & (self.part == PARTS - 1)),
        ]
        m.d.sync += left.eq(left - 1)
        # A slice ends when another whole one follows in its part, or with the part.
        passed = Signal(range(2 * self._slice_cycles))
        another = left[self._slice_cycles.bit_length() - 1:].any()
        m.d.comb += self.slice_end.eq(self.part_end | ((passed == self._slice_cycles - 1) & another))
        m.d.sync += passed.eq(Mux(self.slice_end, 0, passed + 1))
        with m.If(self.slice_end):
            m.d.sync += self.bank.eq(~self.bank)
        with m.If(self.part_end):
            m.d.sync += [
                self.part.eq(self.part + 1),
                left.eq((self.length >> 4) - 1),
            ]
        with m.If(self.part_end & (self.part == PARTS - 2)):
            m.d.sync += left.eq((self.length >> 4) + self.length[:4] - 1)
        with m.If(self.window_end):
            m.d.sync += [
                self.length.eq(following),
                self.start.eq(self.cycle + 1),
                left.eq((following >> 4) - 1),
            ]
        return m
