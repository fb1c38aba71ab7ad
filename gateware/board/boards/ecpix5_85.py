"""LambdaConcept ECPIX-5 with the LFE5UM5G-85F: ECP5-5G, speed grade 8, JTAG and UART by one FT2232H.

Its gigabit PHY has no MAC in this tree yet: the device's own generator is the source of its packets. The device is the
one of the ULX3S. The adapter's
product string is the chip's, which other boards share; what tells the board is the IDCODE and then the device.
"""

from ...config import DeviceConfig
from ..board import Board, Cable

BOARD = Board(
    title="LambdaConcept ECPIX-5 (LFE5UM5G-85F)",
    platform="amaranth_boards.ecpix5:ECPIX585Platform",
    family="ecp5",
    nextpnr=("--um5g-85k", "--package", "CABGA554", "--speed", "8"),
    config=DeviceConfig(ports=3, tenants=8, clock_hz=30_000_000),
    cable=Cable(usb=(0x0403, 0x6010), product="", loader=("--board", "ecpix5")),
    idcode=0x81113043,
    leds=(("rgb_led", 0, "g"), ("rgb_led", 1, "b"), ("rgb_led", 2, "r")),
)
