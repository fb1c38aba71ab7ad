"""`BoardTop`: a board's pins, clock and reset around a `BoardCore`.

The device runs on the PLL's clock, net `device_clock`, which is what the timing report is about. Its reset is held
until the PLL has locked and 20 us have passed since configuration (block RAMs of the iCE40 read as zero for their
first microseconds), and while the reset button is pressed.
"""

from dataclasses import replace

from amaranth import *
from amaranth.lib import io, wiring
from amaranth.lib.cdc import ResetSynchronizer

from .board import Board
from .pll import pll_for

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
        m.domains.sync = ClockDomain()
        # Yosys drops a net that has another name too; the constraint and the report need this one.
        device_clock = Signal(attrs={"keep": "true"})
        m.d.comb += [
            pll.clock_in.eq(pin.i),
            ClockSignal("raw").eq(pin.i),
            device_clock.eq(pll.clock_out),
            ClockSignal("sync").eq(device_clock),
        ]
        platform.add_clock_constraint(device_clock, self.clock_hz)

        waited = Signal(range(round(self._input_hz * _POWER_ON_S) + 1), init=round(self._input_hz * _POWER_ON_S))
        held = Signal(init=1)
        m.d.raw += held.eq(waited != 0)
        with m.If(waited != 0):
            m.d.raw += waited.eq(waited - 1)
        button = Const(0)
        if self._board.reset is not None:
            m.submodules.button = pressed = io.Buffer("i", _port(platform, self._board.reset))
            button = pressed.i
        m.submodules.reset = ResetSynchronizer(held | ~pll.locked | button, domain="sync")


def _port(platform, name):
    resource, number, part = name
    port = platform.request(resource, number, dir="-")
    return port if part is None else getattr(port, part)
