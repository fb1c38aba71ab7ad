"""Radiona ULX3S with the LFE5U-85F: ECP5, speed grade 6, one USB socket for JTAG and UART (FT231X).

It has neither PCIe nor an Ethernet MAC: the device's own generator is the source of its packets. The device is one that
the open tools can route on this part (`docs/guides/boards.md`), not the default one.
"""

from ...config import DeviceConfig
from ..board import Board, Cable

BOARD = Board(
    title="Radiona ULX3S (LFE5U-85F)",
    platform="amaranth_boards.ulx3s:ULX3S_85F_Platform",
    family="ecp5",
    nextpnr=("--85k", "--package", "CABGA381", "--speed", "6"),
    config=DeviceConfig(ports=3, tenants=8, clock_hz=30_000_000),
    cable=Cable(usb=(0x0403, 0x6015), product="ULX3S", loader=("--board", "ulx3s")),
    idcode=0x41113043,
    leds=(("led", 0, None), ("led", 1, None), ("led", 2, None)),
)
