"""`Card`: the whole device behind the shim of the UltraScale+ integrated block, the core of a card's top level.

Ports: those of the block's side, with the names that `UltraScalePcie` gives them, and those of `Device` but for `pcie`.
One clock: the block's user clock is the device's. `function_id` is 0: the block puts its own into what it sends.
`gateware.board.core.BoardCore` puts it behind the pins that a card has; `rtl/wrappers` joins that to the block.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, flipped

from ..config import DeviceConfig
from ..device import Device
from .endpoint import link_members
from .ultrascale import UltraScalePcie, block_members

__all__ = ["Card", "expose", "join_link"]


def expose(m, outer, inner, names=None):
    """Make the ports `names` of `inner`, or all that both have, those of `outer`, which have the same flow."""
    for name in inner.signature.members if names is None else names:
        if name not in outer.signature.members:
            continue
        member, ours, theirs = inner.signature.members[name], getattr(outer, name), getattr(inner, name)
        for index in range(member.dimensions[0] if member.dimensions else 1):
            one, other = (ours[index], theirs[index]) if member.dimensions else (ours, theirs)
            if not member.is_port:
                wiring.connect(m, flipped(one), other)
            else:
                m.d.comb += other.eq(one) if member.flow == In else one.eq(other)


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
        super().__init__(block_members(config.pcie_width) | {
            name: member for name, member in self._device.signature.members.items() if name != "pcie"})

    def elaborate(self, platform):
        m = Module()
        m.submodules.device, m.submodules.shim = device, shim = self._device, self._shim
        join_link(m, shim, device.pcie)
        for part in (device, shim):
            expose(m, self, part)
        return m
