"""Load: how full the outputs are in each part of a window, and how busy the engine slots in each window.

Contract: events are taken every cycle. After `part_end` (high in the last cycle of a part), until the next,
`saturated[p]` says of the part that ended whether more than 7/8 of its cycles' beats left by output p; a packet counts
in the cycle of its last beat. After `window_end`, until the next, `busy_cycles[s]` is how long slot s was busy.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..engine.slot import SlotBusy

__all__ = ["Load"]


class Load(wiring.Component):
    """One counter an output and one a slot."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "leave": In(1).array(config.ports),
            "beats": In(range(MAX_PACKET_BEATS * 16 + 1)).array(config.ports),
            "slots": In(SlotBusy).array(config.slots),
            "part_end": In(1),
            "window_end": In(1),
            "saturated": Out(config.ports),
            "busy_cycles": Out(32).array(config.slots),
        })

    def elaborate(self, platform):
        m = Module()
        cycles, length = Signal(32), Signal(32)
        m.d.sync += cycles.eq(cycles + 1)
        with m.If(self.part_end):
            m.d.sync += [cycles.eq(0), length.eq(cycles + 1)]
        for port, (leave, beats) in enumerate(zip(self.leave, self.beats, strict=True)):
            total = self._count(m, f"output_{port}", Mux(leave, beats, 0), self.part_end)
            m.d.sync += self.saturated[port].eq((total << 3) > length * 7)
        for number, (slot, busy) in enumerate(zip(self.slots, self.busy_cycles, strict=True)):
            m.d.comb += busy.eq(self._count(m, f"slot_{number}", slot.busy, self.window_end))
        return m

    def _count(self, m, name, amount, end):
        """What `amount` summed to in the period that ended last."""
        now, total = Signal(32, name=f"{name}_now"), Signal(32, name=f"{name}_total")
        m.d.sync += now.eq(now + amount)
        with m.If(end):
            m.d.sync += [now.eq(0), total.eq(now + amount)]
        return total
