"""`CsrArbiter`: several initiators share one bus, in turn.

The grant is registered: an access starts on the shared bus in the cycle after its initiator raised `valid`,
if the bus is free. It is never interrupted: the grant stays until `ready`. Then the turn passes on, round
robin, so that an initiator waits for at most one access of each of the others.
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
        count = len(self.initiators)
        owner = Signal(range(count))
        granted = Signal()
        requests = Cat(initiator.valid for initiator in self.initiators)

        with m.If(~granted):
            m.d.sync += granted.eq(requests.any())
            with m.Switch(owner):
                for last in range(count):
                    with m.Case(last):
                        self._elaborate_turn(m, owner, last)
        with m.Elif(self.bus.ready):
            m.d.sync += granted.eq(0)

        with m.If(granted):
            with m.Switch(owner):
                for index, initiator in enumerate(self.initiators):
                    with m.Case(index):
                        wiring.connect(m, wiring.flipped(initiator), wiring.flipped(self.bus))
        return m

    def _elaborate_turn(self, m, owner, last):
        """Choose who is next after initiator `last`: the nearest one that asks, itself the last."""
        count = len(self.initiators)
        for distance in reversed(range(1, count + 1)):
            candidate = (last + distance) % count
            with m.If(self.initiators[candidate].valid):
                m.d.sync += owner.eq(candidate)
