"""`python -m sim.guest NAME`: a prompt in a guest that has the PCIe function of the running simulated device NAME.

Each line is one of /bin/sh, run as root in a shell of its own: what it starts with `&` goes on (send its output to a
file), what it sets does not. Programs of this Python's environment are found. End of input ends the guest.
"""

from __future__ import annotations

import argparse
import readline  # noqa: F401  input() edits lines and remembers them
import sys
from collections.abc import Sequence
from pathlib import Path

from device_link import rundir
from morphnic.errors import DeviceNotFound, MorphnicError
from sim.vfio_user import SOCKET_NAME

from .machine import Guest
from .packages import fetch

PROMPT = "guest# "
SECONDS = 86_400.0  # of one line


def main(argv: Sequence[str] | None = None) -> int:
    """Boot, and carry out lines until there are no more; the exit code of the last."""
    parser = argparse.ArgumentParser(prog="python -m sim.guest", description=__doc__)
    parser.add_argument("device", metavar="NAME", help="a running simulated device with an endpoint")
    name = parser.parse_args(argv).device
    try:
        socket = rundir.device_dir(name) / SOCKET_NAME
        if not socket.exists():
            raise DeviceNotFound(f"there is no {socket}: start the device with "
                                 f"`morphnic sim run --name {name} --set pcie_width=64`")
        with Guest(fetch(), socket) as guest:
            return converse(guest)
    except MorphnicError as error:
        print(f"morphnic: {error}", file=sys.stderr)
        return error.exit_code


def converse(guest: Guest) -> int:
    """Lines of standard input, with a prompt on a terminal."""
    path = f"PATH={Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    code = 0
    while True:
        try:
            line = input(PROMPT if sys.stdin.isatty() else "")
        except EOFError:
            return code
        done = guest.run(["/usr/bin/env", path, "/bin/sh", "-c", line], timeout=SECONDS)
        print(done.output, end="", flush=True)
        print(done.errors, end="", file=sys.stderr, flush=True)
        code = done.code


if __name__ == "__main__":
    raise SystemExit(main())
