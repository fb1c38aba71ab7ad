"""`BoardTop`: a board's pins, clock and reset around a `BoardCore`.

The device runs on the PLL's clock, net `device_clock`, which is what the timing report is about. It is held as the
configuration left it until the PLL has been locked for 20 us (block RAMs of the iCE40 read as zero for their first
microseconds), and for good once the lock is lost (see `start`): by its clock, which stands still, where the family can
gate it, else by a reset. There is no reset button: to begin anew is to configure the FPGA.
"""

from dataclasses import replace

from amaranth import *
from amaranth.lib import io, wiring
from amaranth.lib.cdc import ResetSynchronizer

from .board import Board
from .pll import pll_for
from .start import Start

__all__ = ["BoardTop"]

_POWER_ON_S = 20e-6


class BoardTop(wiring.Component):
    """board: whose pins. make_core: makes what lies behind them, with the ports of `BoardCore`, from a DeviceConfig."""

    def __init__(self, board: Board, platform, make_core):
        self._board = board
        self._make_core = make_core
        self._input_hz = round(platform.default_clk_frequency)
        self._pll = pll_for(board.family, self._input_hz, board.config.clock_hz)
        super().__init__({})

    @property
    def clock_hz(self) -> int:
        """Frequency of the device, as the PLL makes it."""
        return self._pll.hz

    @property
    def config(self):
        """The device's parameters, with the clock that it really has."""
        return replace(self._board.config, clock_hz=self._pll.hz)

    def elaborate(self, platform):
        m = Module()
        board = self._board
        m.submodules.core = core = self._make_core(self.config)
        self._make_clock(m, platform)
        uart = platform.request(*board.uart, dir="-")
        m.submodules.rx_pin = rx = io.Buffer("i", uart.rx)
        m.submodules.tx_pin = tx = io.Buffer("o", uart.tx)
        m.d.comb += [core.uart_rx.eq(rx.i), tx.o.eq(core.uart_tx)]
        for number, (pin, lamp) in enumerate(zip(board.leds, (core.heartbeat, core.link, core.epoch), strict=False)):
            m.submodules[f"led_{number}"] = led = io.Buffer("o", _port(platform, pin))
            m.d.comb += led.o.eq(lamp)
        return m

    def _make_clock(self, m, platform):
        m.submodules.clock_pin = pin = io.Buffer("i", platform.request(platform.default_clk, dir="-"))
        m.submodules.pll = pll = self._pll
        m.domains.raw = ClockDomain(reset_less=True)
        # A reset would be a net to nearly every register, for which an ECP5 has no global wire that nextpnr uses.
        m.domains.sync = ClockDomain(reset_less=pll.gates)
        # Yosys drops a net that has another name too; the constraint and the report need this one.
        device_clock = Signal(attrs={"keep": "true"})
        m.d.comb += [
            pll.clock_in.eq(pin.i),
            ClockSignal("raw").eq(pin.i),
            device_clock.eq(pll.clock_out),
            ClockSignal("sync").eq(device_clock),
        ]
        platform.add_clock_constraint(device_clock, self.clock_hz)

        m.submodules.start = start = DomainRenamer("raw")(Start(round(self._input_hz * _POWER_ON_S)))
        m.d.comb += [start.locked.eq(pll.locked), pll.run.eq(~start.reset)]
        if not pll.gates:
            m.submodules.reset = ResetSynchronizer(start.reset | ~pll.locked, domain="sync")


def _port(platform, name):
    resource, number, part = name
    port = platform.request(resource, number, dir="-")
    return port if part is None else getattr(port, part)
