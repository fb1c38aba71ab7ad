"""Look at and drive the pins of the model by hand, at a Python prompt: `sim['epoch']`, `sim.step(10)`, `sim.read(0)`.

This is pyverilator: every pin of the device, cycle by cycle, and far too slow for traffic. It is a device of its own,
beside those that `morphnic sim run` serves. Commands may come from a pipe.
"""

from __future__ import annotations

import argparse
from dataclasses import fields

from gateware.config import DeviceConfig
from morphnic.errors import InputError
from morphnic.program import Context


def configure(parser: argparse.ArgumentParser) -> None:
    """Parameters of the device, as for `morphnic sim run`."""
    names = ", ".join(one.name for one in fields(DeviceConfig))
    parser.add_argument("--set", action="append", default=[], metavar="PARAMETER=VALUE", dest="parameters",
                        help=f"a parameter of the device: {names}")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Interact until the end of the input."""
    from sim.options import parse_config
    from sim.repl import interact

    if context.json:
        raise InputError("a prompt has no JSON form; leave --json out, and print what you need at the prompt")
    interact(parse_config(arguments.parameters))
    return 0
