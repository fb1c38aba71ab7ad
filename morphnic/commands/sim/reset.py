"""Let a running simulated device begin anew, as a board that is configured.

    morphnic sim reset
    morphnic sim reset --device sim://dev

Registers, allocation, packets and sessions are lost, and its clock begins at 0. The socket and the serial port stay;
whoever holds its PCIe function sees it unplugged. Other programs are told of the reset by their next exchange, and what
became of what they were writing. It is refused while another program holds the right to write over the socket.
"""

from __future__ import annotations

import argparse

from morphnic.devices import add_device_flag, open_device
from morphnic.errors import LinkError, UnsupportedCapability
from morphnic.program import Context

TIMEOUT_S = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `morphnic sim reset`."""
    add_device_flag(parser)


def run(_: argparse.Namespace, context: Context) -> int:
    """Ask the device for it."""
    from device_link import Capability

    with open_device(context) as device:
        if Capability.CONTROL not in device.capabilities:
            raise UnsupportedCapability(f"{device.url} is no simulated device: load "
                                        "its bitstream again with `morphnic flash`")
        answer = device.transport.control({"op": "reset"}, TIMEOUT_S)
        if not answer.get("ok"):
            raise LinkError(f"{device.url} was not reset: {answer.get('error', 'no reason given')}")
    if context.json:
        context.document("sim-reset", {"url": device.url, "boot_nonce": answer["boot_nonce"]})
    else:
        print(f"{device.url} was reset; its boot nonce is {answer['boot_nonce']:#010x}")
    return 0
