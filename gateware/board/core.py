"""`BoardCore`: the device behind the few pins that every board has: serial link and three lamps.

Contract: the link is on `uart_rx`/`uart_tx` at `config.uart_baud`. The host and network ports, the register port and
the pushed telemetry are tied off: nothing comes in, whatever goes out is taken at once, and the device's own generator
is the source of packets. `heartbeat` changes about twice a second, `link` is high for 50 ms behind every change on the
serial line, `epoch` for half a second behind every commit, rollbacks included. With `config.pcie_width` it is the core
of a card: the ports of the UltraScale+ block's side are there too, with the names that `Card` gives them.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from morphnic.errors import InputError

from ..config import DeviceConfig
from ..device import Device
from ..pcie.card import Card, expose
from ..pcie.ultrascale import block_members

__all__ = ["BoardCore", "BootNonce", "Stretcher", "check_for_board"]


class BootNonce(wiring.Component):
    """A number that another start does not have: the cycle in which the serial line first fell.

    Contract: `nonce` is 0 until `line` falls for the first time after a reset, and constant from the next cycle on. No
    frame can have been received before; on a card `line` falls with the host's first request, too. The counter runs
    from configuration on and is not reset with the device, so that a reset gives another number too.
    """

    line: In(1, init=1)
    nonce: Out(32)

    def elaborate(self, platform):
        m = Module()
        counter = Signal(32, init=1, reset_less=True)
        known = Signal()
        m.d.sync += counter.eq(counter + 1)
        with m.If(~self.line & ~known):
            m.d.sync += [known.eq(1), self.nonce.eq(counter)]
        return m


class Stretcher(wiring.Component):
    """`lamp` is high from the cycle after `event` for `cycles` cycles; another event begins them anew."""

    def __init__(self, cycles: int):
        if cycles < 1:
            raise ValueError(f"cycles must be at least 1, not {cycles!r}")
        self._cycles = cycles
        super().__init__({"event": In(1), "lamp": Out(1)})

    def elaborate(self, platform):
        m = Module()
        left = Signal(range(self._cycles + 1))
        m.d.comb += self.lamp.eq(left != 0)
        with m.If(self.event):
            m.d.sync += left.eq(self._cycles)
        with m.Elif(self.lamp):
            m.d.sync += left.eq(left - 1)
        return m


def check_for_board(config: DeviceConfig) -> None:
    """Refuse what no board can carry. For callers that have not made any component yet, which would be left unused."""
    if config.pcie_width:
        raise InputError(f"pcie_width must be 0 on a board, not {config.pcie_width!r}: no board file here has a "
                         "PCIe link; morphnic build --verilog --pcie ultrascale-plus writes the core of a card")


class BoardCore(wiring.Component):
    """config: the device. build_id: names the build. uid: names the board."""

    def __init__(self, config: DeviceConfig, build_id: int, uid: int):
        if not 0 <= uid < 1 << 64:
            raise ValueError(f"uid must be in 0..2**64-1, not {uid!r}")
        self._config = config
        self._build_id = build_id
        self._uid = uid
        super().__init__({
            "uart_rx": In(1, init=1),
            "uart_tx": Out(1, init=1),
            "heartbeat": Out(1),
            "link": Out(1),
            "epoch": Out(1),
        } | (block_members(config.pcie_width) if config.pcie_width else {}))

    def elaborate(self, platform):
        m = Module()
        m.submodules.device = device = (Card if self._config.pcie_width else Device)(self._config, self._build_id)
        m.submodules.nonce = nonce = BootNonce()
        line = Signal(init=1)
        m.submodules.line = FFSynchronizer(self.uart_rx, line, init=1)
        m.d.comb += [
            device.uart_pins.eq(1),
            device.uart_rx.eq(self.uart_rx),
            self.uart_tx.eq(device.uart_tx),
            device.uid.eq(self._uid),
            nonce.line.eq(line & ~device.cq.tvalid if self._config.pcie_width else line),
            device.boot_nonce.eq(nonce.nonce),
            device.telemetry.ready.eq(1),
        ]
        for port in (device.host_tx, *device.net_tx):
            m.d.comb += [port.header.ready.eq(1), port.data.ready.eq(1)]
        if self._config.pcie_width:
            expose(m, self, device, block_members(self._config.pcie_width))
        self._light(m, device, line)
        return m

    def _light(self, m, device, line):
        hertz = self._config.clock_hz
        m.d.comb += self.heartbeat.eq(device.cycle[hertz.bit_length() - 2])
        seen = Cat(line, device.uart_tx, device.epoch)
        before = Signal(seen.shape(), init=0b11)
        m.d.sync += before.eq(seen)
        changed = before ^ seen
        m.submodules.link_lamp = link = Stretcher(hertz // 20)
        m.submodules.epoch_lamp = epoch = Stretcher(hertz // 2)
        m.d.comb += [
            link.event.eq(changed[:2].any()),
            epoch.event.eq(changed[2:].any()),
            self.link.eq(link.lamp),
            self.epoch.eq(epoch.lamp),
        ]
