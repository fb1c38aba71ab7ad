"""`Card`: the whole device behind the shim of the UltraScale+ integrated block, the core of a card's top level.

Ports: those of the block's side, with the names that `UltraScalePcie` gives them, and those of `Device` but for `pcie`.
One clock: the block's user clock is the device's. `function_id` is 0: the block puts its own into what it sends.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, flipped

from ..config import DeviceConfig
from ..device import Device
from .endpoint import link_members
from .ultrascale import UltraScalePcie

__all__ = ["Card", "join_link"]


def join_link(m, shim, link):
    """Connect the shim's ports of the core's side with `link`, whose members are those of `link_members`."""
    for name, member in link_members(64).items():
        if name == "function_id":
            continue
        ours, theirs = getattr(shim, name), getattr(link, name)
        if not member.is_port:
            wiring.connect(m, ours, theirs)
        else:
            m.d.comb += theirs.eq(ours) if member.flow == In else ours.eq(theirs)


class Card(wiring.Component):
    """The device of `config`, whose `pcie_width` must not be 0."""

    def __init__(self, config: DeviceConfig, build_id: int = 0):
        if not config.pcie_width:
            raise ValueError("pcie_width must be 64, 128, 256 or 512, not 0")
        self._device, self._shim = Device(config, build_id), UltraScalePcie(config.pcie_width)
        hidden = {*link_members(64), "pcie"}
        super().__init__({name: member for part in (self._shim, self._device)
                          for name, member in part.signature.members.items() if name not in hidden})

    def elaborate(self, platform):
        m = Module()
        m.submodules.device, m.submodules.shim = device, shim = self._device, self._shim
        join_link(m, shim, device.pcie)
        for part in (device, shim):
            for name, member in part.signature.members.items():
                if name in self.signature.members:
                    self._expose(m, getattr(self, name), getattr(part, name), member)
        return m

    def _expose(self, m, outer, inner, member):
        for index in [()] if not member.dimensions else [(place,) for place in range(member.dimensions[0])]:
            ours, theirs = (outer, inner) if not index else (outer[index[0]], inner[index[0]])
            if not member.is_port:
                wiring.connect(m, flipped(ours), theirs)
            else:
                m.d.comb += theirs.eq(ours) if member.flow == In else ours.eq(theirs)
