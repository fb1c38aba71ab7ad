"""`QueueSteps`: how far the descriptors of each ring are; what the parts of the host queues know of each other.

A descriptor is *wanted* (its read was asked for), *here*, *asked* (its payload was), *ready* (its outcome is known),
*sent* (transmit rings: offered to the fabric, or not to be), *back* (its write to the ring was asked for) and *closed*
(that write was reported). Every step is a count of descriptors modulo 64; no step passes the one before, and at most
`WINDOW` descriptors of a ring are between the first and the last. Each part advances its own steps.

A ring that is not enabled takes no further step, but for what its DMA still brings; then its counts are zeros again.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BURST", "RECEIVE_STEPS", "TRANSMIT_STEPS", "WINDOW", "QueueSteps", "in_turn"]

#: Descriptors of a ring in progress; those of one DMA command. Powers of two.
WINDOW, BURST = 32, 8
COUNT = 6
TRANSMIT_STEPS = ("wanted", "here", "asked", "ready", "sent", "back", "closed")
RECEIVE_STEPS = tuple(step for step in TRANSMIT_STEPS if step != "sent")


def in_turn(m, ready, last, name):
    """Index of the first bit of `ready` that is set after bit `last`, or else of the first."""
    later, chosen = Signal(len(ready), name=f"{name}_later"), Signal(range(len(ready)), name=f"{name}_chosen")
    m.d.comb += later.eq(ready & (Const(-2, len(ready)) << last))
    pool = Mux(later.any(), later, ready)
    for index in reversed(range(len(ready))):
        with m.If(pool[index]):
            m.d.comb += chosen.eq(index)
    return chosen


class QueueSteps(wiring.Component):
    """Counts of one ring of each of `tenants` tenants.

    Ports, for each step: the counts by tenant; `<step>_by` descriptors of tenant `<step>_of` take it now. `enabled`:
    rings in use; `busy`: rings of which something is in progress.
    """

    def __init__(self, tenants: int, steps: tuple[str, ...]):
        self._tenants, self._steps = tenants, steps
        super().__init__({"enabled": In(tenants), "busy": Out(tenants)} | {
            name: port for step in steps for name, port in (
                (step, Out(data.ArrayLayout(COUNT, tenants))), (f"{step}_by", In(COUNT)), (f"{step}_of", In(6)))})

    def passed(self, first: str, second: str):
        """Bit a tenant: some descriptors took step `first` and not yet `second`."""
        return Cat(getattr(self, first)[index] != getattr(self, second)[index] for index in range(self._tenants))

    def between(self, first: str, second: str, tenant):
        """How many of `tenant` took step `first` and not yet `second`."""
        return (getattr(self, first)[tenant] - getattr(self, second)[tenant])[:COUNT]

    def elaborate(self, platform):
        m = Module()
        for tenant in range(self._tenants):
            counts = {step: getattr(self, step)[tenant] for step in self._steps}
            quiet = Signal(name=f"quiet_{tenant}")
            m.d.comb += [
                quiet.eq((counts["wanted"] == counts["here"]) & (counts["asked"] == counts["ready"])
                         & (counts["back"] == counts["closed"])),
                self.busy[tenant].eq(Cat(counts.values()).any()),
            ]
            for step, count in counts.items():
                with m.If(~self.enabled[tenant] & quiet):
                    m.d.sync += count.eq(0)
                with m.Elif(getattr(self, f"{step}_of") == tenant):
                    m.d.sync += count.eq(count + getattr(self, f"{step}_by"))
        return m
