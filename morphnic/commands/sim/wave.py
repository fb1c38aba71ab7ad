"""Write a waveform of what a running simulated device did, from a cycle on or around a trigger.

    morphnic sim wave out.vcd --start 5000 --cycles 2000
    morphnic sim wave out.vcd --trigger epoch --before 200

The run so far is repeated with the same inputs in a build that traces, so nothing of it slows the device down; the
cycles asked for must have passed. A viewer such as GTKWave or Surfer shows the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphnic.devices import add_device_flag, open_device
from morphnic.errors import InputError, LinkError, UnsupportedCapability
from morphnic.program import Context

if TYPE_CHECKING:
    from device_link import Device

TIMEOUT_S = 600.0  # the run is repeated


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `morphnic sim wave`."""
    parser.add_argument("file", type=Path, help="VCD file to write")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--start", type=int, metavar="CYCLE", help="first cycle")
    where.add_argument("--trigger", help="event around which to look: interrupt, window, epoch, fault or link")
    parser.add_argument("--cycles", type=int, default=1000, metavar="N", help="how many (default 1000)")
    parser.add_argument("--before", type=int, default=100, metavar="N", help="cycles before the trigger (default 100)")
    add_device_flag(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Ask the device for the waveform."""
    from device_link import Capability

    for name, least in (("start", 0), ("cycles", 1), ("before", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise InputError(f"--{name} must be at least {least}, not {value}")
    path = arguments.file.absolute()
    document: dict[str, Any] = {"op": "waveform", "path": str(path), "cycles": arguments.cycles}
    if arguments.trigger is not None:
        document |= {"trigger": arguments.trigger, "before": arguments.before}
    else:
        document["start"] = arguments.start
    with open_device(context) as device:
        if Capability.CONTROL not in device.capabilities:
            raise UnsupportedCapability(f"{device.url} is no simulated device: it has no waveform to give")
        _build_first(device)
        answer = device.transport.control(document, TIMEOUT_S)
        if not answer.get("ok"):
            raise LinkError(f"{device.url} writes no waveform: {answer.get('error', 'no reason given')}")
    if context.json:
        context.document("sim-wave", {"path": str(path), "save_file": str(path.with_suffix(".gtkw")),
                                      "first": answer["first"], "end": answer["end"]})
    else:
        print(f"{path}: cycles {answer['first']} to {answer['end']}; gtkwave {path.with_suffix('.gtkw')}")
    return 0


def _build_first(device: Device) -> None:
    """Make the build that traces in this process: it takes minutes the first time, and the device goes on serving."""
    from gateware.config import DeviceConfig
    from sim.build import Variant
    from sim.harness import device_model

    config = device.transport.control({"op": "status"})["config"]
    device_model(DeviceConfig(**config), variant=Variant.TRACE)
