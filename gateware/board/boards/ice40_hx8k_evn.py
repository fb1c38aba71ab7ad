"""Lattice iCE40-HX8K breakout board: the small device, 2 x 2 ports of 32 bits for 4 tenants, with two reflex rules and
without the analyzer's histograms, access patterns and forecasts.

The iCE40 has no JTAG and no distributed memory. It is programmed through its flash; that the right board is on the
cable is told by the product string, and after programming by the device itself.
"""

from ...config import DeviceConfig
from ..board import Board, Cable

BOARD = Board(
    title="Lattice iCE40-HX8K breakout board",
    platform="amaranth_boards.ice40_hx8k_b_evn:ICE40HX8KBEVNPlatform",
    family="ice40",
    nextpnr=("--hx8k", "--package", "ct256"),
    config=DeviceConfig(ports=2, data_width=32, tenants=4, slots=1, pages=32, classifier_entries=1, rules=2,
                        histograms=False, access_patterns=False, forecasts=False, clock_hz=80_000_000),
    cable=Cable(usb=(0x0403, 0x6010), product="Lattice FTUSB", loader=("--board", "ice40_generic"), flash_only=True),
    idcode=None,
    leds=(("led", 0, None), ("led", 1, None), ("led", 2, None)),
)
