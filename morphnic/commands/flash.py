"""Write a built bitstream onto a board through openFPGALoader, and prove that it runs.

The board is checked before (USB ids, product string, JTAG IDCODE); afterwards the device must answer with the build id
of the bitstream. Without --keep the FPGA is loaded and forgets at power-off.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from morphnic.errors import InputError
from morphnic.program import Context

FOLDER = "build"


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `morphnic flash`."""
    parser.add_argument("--board", required=True, metavar="BOARD", help="as for `morphnic build`")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help=f"build folder (default {FOLDER}/BOARD)")
    parser.add_argument("--cable", metavar="CABLE", help="openFPGALoader's name of a cable instead of the board's own")
    parser.add_argument("--serial", metavar="NUMBER", help="serial number of the cable, where there are several")
    parser.add_argument("--keep", action="store_true", help="write the configuration flash: it survives power-off")
    parser.add_argument("--device", metavar="URL", help="where the device answers, instead of the cable's serial port")
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before writing")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Check, write, verify."""
    from gateware.board import programmer
    from gateware.board.board import find_board
    from gateware.board.tools import print_progress

    board = find_board(arguments.board)
    programmer.find_loader()
    bitstream = programmer.read_bitstream(board, arguments.folder or Path(FOLDER) / board.name)
    cable = programmer.find_cable(board, arguments.serial)
    print_progress(f"cable {cable}")
    loader = programmer.loader_arguments(board, cable, arguments.cable)
    idcode = programmer.read_idcode(board, cable, loader)
    print_progress(f"IDCODE {idcode:#010x}" if idcode is not None else
                   "the part has no IDCODE: the product string and the build id tell the board")
    command = programmer.load_command(board, bitstream.path, loader, keep=arguments.keep)
    facts = {"board": board.name, "cable": str(cable), "idcode": None if idcode is None else f"{idcode:#010x}",
             "bitstream": str(bitstream.path), "build_id": f"{bitstream.build_id:#018x}", "command": command}
    if arguments.dry_run:
        return report(context, facts | {"written": False, "verified_at": None},
                      f"would run: {shlex.join(command)}\nnothing was written")
    confirm(arguments.yes, f"write {bitstream.path} to {board.title} at {cable}?")
    programmer.load(board, cable, bitstream.path, loader, keep=arguments.keep, progress=print_progress)
    # Not the device of the settings: the board that was written is meant, unless this command line names another way.
    place = programmer.verify(board, cable, bitstream.build_id, arguments.device)
    return report(context, facts | {"written": True, "verified_at": place},
                  f"{board.name} runs build {bitstream.build_id:#018x}; it answers at {place}")


def confirm(agreed: bool, question: str) -> None:
    """Ask, unless --yes; a program that cannot be asked has to say --yes."""
    if agreed:
        return
    if not sys.stdin.isatty():
        raise InputError("nobody can be asked here whether to write; say --yes, or look first with --dry-run")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InputError("not written")


def report(context: Context, facts: dict[str, object], text: str) -> int:
    """What was done, for people or as a document."""
    if context.json:
        context.document("flash", facts)
    else:
        print(text)
    return 0
