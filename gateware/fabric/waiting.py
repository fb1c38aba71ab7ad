"""Waiting: which tenants have complete packets in one crosspoint, and which have several.

Contract: `ready[t]` and `several[t]` say, one cycle after an arrival or a claim, that at least one, at least three
complete packets of tenant *t* have not been claimed. One arrival and one claim a cycle; a claim only while `ready`.
`asked_claimed` is the number claimed of `asked` so far, in the same cycle. There are no errors.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .place import PAGE_DESCRIPTORS

__all__ = ["SEVERAL", "Waiting", "packet_count"]

SEVERAL = 3


def packet_count(config):
    """Shape of a count of packets in one crosspoint, modular and wide enough for all that it can hold."""
    return range(2 * config.pages * PAGE_DESCRIPTORS)


class Waiting(wiring.Component):
    """Counts, with one writer each, and flags."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        tenant = range(config.tenants)
        super().__init__({
            "arrive": In(1),
            "arrived": In(tenant),
            "claim": In(1),
            "claimed": In(tenant),
            "asked": In(tenant),
            "asked_claimed": Out(packet_count(config)),
            "ready": Out(config.tenants),
            "several": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        count = packet_count(config)
        m.submodules.arrivals = arrivals = memory.Memory(shape=count, depth=config.tenants, init=[])
        m.submodules.claims = claims = memory.Memory(shape=count, depth=config.tenants, init=[])
        arrivals_write, claims_write = arrivals.write_port(), claims.write_port()
        asked = claims.read_port(domain="comb")
        m.d.comb += [asked.addr.eq(self.asked), self.asked_claimed.eq(asked.data)]

        both = Signal()
        m.d.comb += both.eq(self.arrive & self.claim & (self.arrived == self.claimed))
        left = {}
        for side, tenant in (("arrived", self.arrived), ("claimed", self.claimed)):
            came, gone = arrivals.read_port(domain="comb"), claims.read_port(domain="comb")
            left[side] = Signal(count, name=f"{side}_left")
            m.d.comb += [came.addr.eq(tenant), gone.addr.eq(tenant)]
            if side == "arrived":
                m.d.comb += [
                    arrivals_write.en.eq(self.arrive),
                    arrivals_write.addr.eq(tenant),
                    arrivals_write.data.eq(came.data + 1),
                    left[side].eq(came.data - gone.data + 1 - both),
                ]
            else:
                m.d.comb += [
                    claims_write.en.eq(self.claim),
                    claims_write.addr.eq(tenant),
                    claims_write.data.eq(gone.data + 1),
                    left[side].eq(came.data - gone.data - 1 + both),
                ]
        for event, tenant, number in ((self.claim, self.claimed, left["claimed"]),
                                      (self.arrive, self.arrived, left["arrived"])):
            with m.If(event):
                m.d.sync += [
                    self.ready.bit_select(tenant, 1).eq(number != 0),
                    self.several.bit_select(tenant, 1).eq(number >= SEVERAL),
                ]
        return m
