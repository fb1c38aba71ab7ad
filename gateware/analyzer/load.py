"""Load: how full inputs and outputs are in each part of a window, and how busy the engine slots in each window.

Contract: events are taken every cycle. After `part_end` (high in the last cycle of a part), until the next,
`inputs_full[p]` and `outputs_full[p]` say of the part that ended whether port p was used for more than 7/8 of its
cycles' beats: those of packets admitted, counted at the admission, and those of packets that left, counted with the
last beat. After `window_end`, until the next, `busy_cycles[s]` is how long slot s was busy.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..engine.slot import SlotBusy

__all__ = ["Load", "PortBeats"]

MAX_LENGTH = 4095  # bytes, and so beats


class PortBeats(data.Struct):
    """A packet of so many beats passed a port."""

    valid: 1
    beats: range(MAX_LENGTH + 1)


class Load(wiring.Component):
    """One counter a port and side, and one a slot."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "arrived": In(PortBeats).array(config.ports),
            "left": In(PortBeats).array(config.ports),
            "slots": In(SlotBusy).array(config.slots),
            "part_end": In(1),
            "window_end": In(1),
            "inputs_full": Out(config.ports),
            "outputs_full": Out(config.ports),
            "busy_cycles": Out(32).array(config.slots),
        })

    def elaborate(self, platform):
        m = Module()
        cycles, length = Signal(32), Signal(32)
        m.d.sync += cycles.eq(cycles + 1)
        with m.If(self.part_end):
            m.d.sync += [cycles.eq(0), length.eq(cycles + 1)]
        for side, ports, full in (("input", self.arrived, self.inputs_full),
                                  ("output", self.left, self.outputs_full)):
            for port, event in enumerate(ports):
                used = self._count(m, f"{side}_{port}", Mux(event.valid, event.beats, 0), self.part_end)
                m.d.sync += full[port].eq((used << 3) > length * 7)
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
