"""`Start`: when a board's device may run, from the lock of its PLL.

Contract: `reset` is high until `locked` has been high for `cycles` cycles after configuration, and low then. When the
lock is lost afterwards it is high for ever: a reset brings back registers, but no memory, so that the device could not
go on as the contract of any of its blocks says. Only configuring the FPGA again starts it. `locked` may be
asynchronous; its fall shows at `reset` after two cycles. There are no errors.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["Start"]


class Start(wiring.Component):
    """Runs on a clock that does not come from the PLL; `reset` is of that clock."""

    locked: In(1)
    reset: Out(1, init=1)

    def __init__(self, cycles: int):
        if cycles < 1:
            raise ValueError(f"cycles must be at least 1, not {cycles!r}")
        self._cycles = cycles
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        locked, lost = Signal(), Signal()
        m.submodules.lock = FFSynchronizer(self.locked, locked)
        left = Signal(range(self._cycles + 1), init=self._cycles)
        with m.If(self.reset & ~lost):
            m.d.sync += left.eq(Mux(locked, left - 1, self._cycles))
            with m.If(locked & (left == 1)):
                m.d.sync += self.reset.eq(0)
        with m.Elif(~locked):
            m.d.sync += [self.reset.eq(1), lost.eq(1)]
        return m
