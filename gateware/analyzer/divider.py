"""Divider: one unsigned division at a time, one bit a cycle.

Contract: `start` takes `dividend` and `divisor`; `DIVIDEND_BITS` + 1 cycles later, and until the next `start`,
`quotient` is their quotient rounded down, 2**32 - 1 if it is more, and 0 for a divisor of 0. A `start` before that
begins anew.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DIVIDEND_BITS", "Divider"]

DIVIDEND_BITS = 44


class Divider(wiring.Component):
    """Restoring division; the quotient moves into the register that the dividend leaves."""

    start: In(1)
    dividend: In(DIVIDEND_BITS)
    divisor: In(32)
    quotient: Out(32)

    def elaborate(self, platform):
        m = Module()
        left = Signal(range(DIVIDEND_BITS + 1))
        shifter, remainder, divisor = Signal(DIVIDEND_BITS), Signal(32), Signal(32)
        trial, goes = Signal(33), Signal()
        m.d.comb += [
            trial.eq(Cat(shifter[-1], remainder)),
            goes.eq(trial >= divisor),
        ]
        with m.If(self.start):
            m.d.sync += [shifter.eq(self.dividend), divisor.eq(self.divisor), remainder.eq(0), left.eq(DIVIDEND_BITS)]
        with m.Elif(left != 0):
            m.d.sync += [
                left.eq(left - 1),
                shifter.eq(Cat(goes, shifter)),
                remainder.eq(Mux(goes, trial - divisor, trial)),
            ]
        with m.If(divisor != 0):
            m.d.comb += self.quotient.eq(Mux(shifter[32:].any(), 0xFFFFFFFF, shifter))
        return m
