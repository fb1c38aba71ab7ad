"""`CsrArbiter`: several initiators share one bus, in turn.

Requests and answers pass a register: no path leads from an initiator to a target and back within a cycle. An access
starts on the shared bus in the cycle after its initiator raised `valid`, if the bus is free, and its initiator is
answered in the cycle after the target: two cycles more than the target takes. An access is never interrupted. Then
the turn passes on, round robin, so that an initiator waits for at most one access of each of the others.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bus import CsrSignature
from .regmap import WORD_ADDRESS_WIDTH

__all__ = ["CsrArbiter"]


class CsrArbiter(wiring.Component):
    """Round-robin arbiter with `n` initiators. Ports: `initiators[i]`, and `bus` to the decoder."""

    def __init__(self, n: int):
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n!r}")
        super().__init__({
            "initiators": In(CsrSignature(WORD_ADDRESS_WIDTH)).array(n),
            "bus": Out(CsrSignature(WORD_ADDRESS_WIDTH)),
        })

    def elaborate(self, platform):
        m = Module()
        count, bus = len(self.initiators), self.bus
        self.owner = owner = Signal(range(count))   # whose access is on the bus, or was the last one there
        chosen = Signal(range(count))
        answered = Signal()                         # the owner is answered in this cycle
        with m.Switch(owner):
            for last in range(count):
                with m.Case(last):
                    self._elaborate_turn(m, chosen, last)

        asked = Cat(initiator.valid for initiator in self.initiators).any()
        with m.If(~bus.valid & ~answered):
            m.d.sync += [bus.valid.eq(asked), owner.eq(chosen)]
            with m.Switch(chosen):
                for index, initiator in enumerate(self.initiators):
                    with m.Case(index):
                        m.d.sync += [getattr(bus, name).eq(getattr(initiator, name))
                                     for name in ("write", "address", "w_data", "w_mask")]
        with m.Elif(bus.ready):
            m.d.sync += bus.valid.eq(0)
        data, error = Signal(32), Signal()
        m.d.sync += [answered.eq(bus.ready), data.eq(bus.r_data), error.eq(bus.error)]
        for index, initiator in enumerate(self.initiators):
            m.d.comb += [
                initiator.ready.eq(answered & (owner == index)),
                initiator.r_data.eq(data),
                initiator.error.eq(error),
            ]
        return m

    def _elaborate_turn(self, m, chosen, last):
        """Choose who is next after initiator `last`: the nearest one that asks, itself the last."""
        count = len(self.initiators)
        m.d.comb += chosen.eq(last)
        for distance in reversed(range(1, count + 1)):
            candidate = (last + distance) % count
            with m.If(self.initiators[candidate].valid):
                m.d.comb += chosen.eq(candidate)
