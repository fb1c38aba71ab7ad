"""`InFlight`: counts the packets in flight under each epoch, from the fabric's events.

Epochs are told apart modulo 4: after a commit and a rollback packets of three epochs may be in flight, and the
next commit waits until only those of the active one are left. `draining` follows an event by three cycles and a
change of `epoch` by one. A commit comes at least tenants + 5 cycles after the change before it (copy and
command), so that no late event of an older epoch is overlooked.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..fabric.events import EgressEventSignature, IngressEventSignature

__all__ = ["InFlight"]

_EPOCHS = 4


class InFlight(wiring.Component):
    """Packets in flight.

    epoch: the active one. draining: packets of others are in flight; `packets`: how many, saturating.
    cut_off: packets cut off since reset, modulo 2**32.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "ingress": In(IngressEventSignature(config)).array(config.ports),
            "egress": In(EgressEventSignature(config)).array(config.ports),
            "epoch": In(8),
            "draining": Out(1),
            "packets": Out(16),
            "cut_off": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        # Every packet holds at least one page, so this many are the most in flight; one bit more for margin.
        capacity = self._config.pages * self._config.ports**2
        counts = [Signal(range(2 * capacity), name=f"in_flight_{number}") for number in range(_EPOCHS)]
        for number, count in enumerate(counts):
            change = self._elaborate_change(m, number)
            m.d.sync += count.eq(count + change)

        others = Signal(range(2 * capacity * _EPOCHS))
        m.d.comb += others.eq(sum(Mux(self.epoch[:2] == number, 0, count)
                                  for number, count in enumerate(counts)))
        saturated = (1 << len(self.packets)) - 1
        m.d.sync += self.packets.eq(Mux(others > saturated, saturated, others))
        m.d.sync += self.draining.eq(Cat(
            (self.epoch[:2] != number) & count.any() for number, count in enumerate(counts)).any())

        cut = Signal(range(self._config.ports + 1))
        m.d.sync += [
            cut.eq(sum(event.leave & event.cut for event in self.egress)),
            self.cut_off.eq(self.cut_off + cut),
        ]
        return m

    def _elaborate_change(self, m, number):
        """Packets of one epoch that entered, less those that left, in the cycle before."""
        change = Signal(signed(1 + len(Const(self._config.ports))), name=f"change_{number}")
        entered = sum(event.admit & (event.header.epoch[:2] == number) for event in self.ingress)
        left = sum(event.leave & (event.header.epoch[:2] == number) for event in self.egress)
        m.d.sync += change.eq(entered - left)
        return change
