"""Window clock: cuts device time into windows, and each window into sixteen parts.

Contract: a window covers `length` cycles from `start`; `bank` is the parity of the part that this cycle belongs
to and goes with every event of the cycle. `part_end` is high in the last cycle of a part, `part` is its number,
and `window_end` is high with it in the last cycle of a window. `setting` is taken at a boundary; less than
`shortest` counts as `shortest`. Parts have length // 16 cycles, the last one also the rest.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PARTS", "WindowClock"]

PARTS = 16


class WindowClock(wiring.Component):
    """`reset_length` is the length of the first window: the reset value of the register behind `setting`."""

    def __init__(self, reset_length: int, shortest: int):
        if shortest < PARTS:
            raise ValueError(f"shortest must be at least {PARTS}, not {shortest!r}")
        if not shortest <= reset_length < 1 << 32:
            raise ValueError(f"reset_length must be in {shortest}..2**32-1, not {reset_length!r}")
        self._shortest = shortest
        self._reset_length = reset_length
        super().__init__({
            "setting": In(32),
            "cycle": In(64),
            "bank": Out(1),
            "part": Out(range(PARTS)),
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
        with m.If(self.part_end):
            m.d.sync += [
                self.bank.eq(~self.bank),
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
