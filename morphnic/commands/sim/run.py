"""Start a simulated device and serve it as sim://NAME and on a virtual serial port, until SIGTERM or Ctrl-C.

The model is compiled at the first start with its parameters (tens of seconds) and kept for later ones. The device
is ready when `morphnic list` shows it.
"""

from __future__ import annotations

import argparse

from morphnic.program import Context


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of the simulated device itself."""
    from sim.options import add_arguments

    add_arguments(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Serve until stopped."""
    from sim.options import from_arguments
    from sim.server import serve

    options = from_arguments(arguments)
    code = serve(options)
    if context.json:
        context.document("sim-run", {"name": options.name, "stopped": True})
    return code
