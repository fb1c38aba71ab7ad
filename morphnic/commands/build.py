"""Build a bitstream for a board with the open tools, and report use and timing; or measure one block by itself; or
write Verilog for a vendor's tool.

Progress goes to stderr. Files and `report.json` are in the build folder; steps whose input has not changed are not
run again. Without --seeds one placement is made: it says little, since one design differs by a third between seeds.
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphnic.errors import InputError
from morphnic.program import Context
from morphnic.table import plain_table

if TYPE_CHECKING:
    from gateware.board.board import Board
    from gateware.board.report import Report
    from gateware.config import DeviceConfig

FOLDER = "build"


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `morphnic build`."""
    parser.add_argument("--board", metavar="BOARD", help="ulx3s-85f, ecpix5-85, ice40-hx8k-evn, or another in "
                                                         "gateware/board/boards")
    parser.add_argument("--only", metavar="COMPONENT",
                        help="measure one component between registers, without pins and bitstream: device, fabric, "
                             "manager, analyzer, engines, ..., or MODULE:CLASS made from a DeviceConfig")
    parser.add_argument("--verilog", action="store_true",
                        help="write Verilog, constraints and a top-level template for a vendor's tool instead, with "
                             "its use of a Xilinx 7-series part; the device is --board's, or the default one")
    parser.add_argument("--pcie", choices=["ultrascale-plus"], metavar="IP",
                        help="with --verilog: a card's top level around the hard IP for PCIe, ultrascale-plus, and its "
                             "settings; the device is the default one with host queues, at 250 MHz")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="first seed (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="number of seeds (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N",
                        help="placements at a time, about 1 GB each (default %(default)s)")
    parser.add_argument("--limit", type=float, metavar="MINUTES",
                        help="minutes that a seed may take before it is given up (default: any)")
    parser.add_argument("--clock", type=float, metavar="MHZ", help="clock of the device instead of the board's")
    parser.add_argument("--set", action="append", default=[], metavar="PARAMETER=VALUE", dest="parameters",
                        help="a parameter of the device instead of the board's")
    parser.add_argument("--uid", type=lambda text: int(text, 0), metavar="NUMBER",
                        help="identity of this very board, 64 bits; without it all boards of a kind have the same")
    parser.add_argument("--timing-may-fail", action="store_true",
                        help="make the bitstream although no seed holds the clock: it may not work")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"build folder (default {FOLDER}/BOARD)")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Build, print the report."""
    from gateware.board import tools
    from gateware.board.flow import board_design, build, component_design

    _check(arguments)
    if arguments.verilog:
        return write_verilog(arguments, context)
    board = chosen_board(arguments)
    tools.command("yosys")
    if arguments.only:
        design = component_design(board, component(arguments.only), arguments.only)
    else:
        design = board_design(board, uid=arguments.uid)
    report = build(design, folder_of(arguments), range(arguments.seed, arguments.seed + arguments.seeds),
                   jobs=arguments.jobs, timing_may_fail=arguments.timing_may_fail,
                   limit_s=None if arguments.limit is None else 60 * arguments.limit)
    if context.json:
        context.document("build", report.document())
    else:
        print_report(report, folder_of(arguments))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.verilog and (arguments.only or arguments.timing_may_fail):
        raise InputError("--verilog goes with neither --only nor --timing-may-fail: a vendor's tool places the device")
    if arguments.pcie and (arguments.board or not arguments.verilog):
        raise InputError("--pcie goes with --verilog, and not with --board: no board file here has a PCIe link")
    if arguments.board is None and not arguments.verilog:
        from gateware.board.board import board_names

        raise InputError("--board is missing; known: " + ", ".join(board_names()))
    for flag in ("seeds", "jobs"):
        if getattr(arguments, flag) < 1:
            raise InputError(f"--{flag} must be at least 1, not {getattr(arguments, flag)}")
    if arguments.limit is not None and not arguments.limit > 0:
        raise InputError(f"--limit must be more than 0 minutes, not {arguments.limit:g}")
    if arguments.seed < 0:
        raise InputError(f"--seed must be at least 0, not {arguments.seed}")
    if arguments.uid is not None and not 0 <= arguments.uid < 1 << 64:
        raise InputError(f"--uid must be in 0..2**64-1, not {arguments.uid}")


def chosen_board(arguments: argparse.Namespace) -> Board:
    """The board with the parameters of the command line."""
    from gateware.board.board import find_board

    board = find_board(arguments.board)
    return replace(board, config=chosen_config(arguments, board.config))


def chosen_config(arguments: argparse.Namespace, base: DeviceConfig) -> DeviceConfig:
    """`base` with the parameters of the command line."""
    from sim.options import parse_config

    config = parse_config(arguments.parameters, base)
    if arguments.clock is not None:
        try:
            config = replace(config, clock_hz=round(arguments.clock * 1e6))
        except ValueError as error:
            raise InputError(f"--clock: {error}") from error
    return config


def write_verilog(arguments: argparse.Namespace, context: Context) -> int:
    """Files for a vendor's tool, and what yosys makes of them."""
    from gateware.board.board import find_board
    from gateware.board.vendor import export
    from gateware.config import DeviceConfig

    if arguments.pcie:
        base = DeviceConfig(clock_hz=250_000_000, pcie_width=64, host_queues=True)
    else:
        base = find_board(arguments.board).config if arguments.board else DeviceConfig(clock_hz=125_000_000)
    report = export(chosen_config(arguments, base), folder_of(arguments), uid=arguments.uid or 0, pcie=arguments.pcie)
    if context.json:
        context.document("verilog", report.document())
        return 0
    assert report.xilinx is not None
    print("files in " + report.folder + ": " + ", ".join(report.files))
    print(f"device clock {report.clock_hz / 1e6:g} MHz, build {report.build_id}\n")
    print(plain_table([report.part, "used"], [[name, str(report.xilinx[name])] for name in (
        "lut", "lutram", "shift", "carry4", "carry8", "ff", "bram36", "dsp")]))
    return 0


def component(name: str) -> Any:
    """What makes the component that `--only` names from a configuration."""
    from gateware.board.flow import COMPONENTS

    module, _, made = name.partition(":")
    if name in COMPONENTS:
        module, made = COMPONENTS[name]
    elif not made:
        raise InputError(f"there is no component '{name}'; known: {', '.join(COMPONENTS)}, or MODULE:CLASS")
    try:
        return getattr(importlib.import_module(module), made)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise  # a package that is missing: the program names its extra
        raise InputError(f"--only: there is no module '{module}'") from error
    except AttributeError as error:
        raise InputError(f"--only: {module} has no '{made}'") from error


def folder_of(arguments: argparse.Namespace) -> Path:
    """Where the files go: a measurement does not overwrite a bitstream's folder."""
    if arguments.output is not None:
        return Path(arguments.output)
    if arguments.verilog:
        return Path(FOLDER) / ("verilog-" + arguments.pcie if arguments.pcie else "verilog")
    return Path(FOLDER) / "-".join([arguments.board, *([arguments.only.replace(":", ".")] if arguments.only else [])])


def print_report(report: Report, folder: Path) -> None:
    """For people: use by block, timing of every seed, the critical path of the slowest."""
    depth = 2 if "core.device" in report.use else 1  # the device's own blocks: one level deeper behind a board's pins
    rows = [[path or "all", *(str(getattr(use, name)) for name in ("lut4", "carry", "lutram", "ff", "bram", "dsp"))]
            for path, use in sorted(report.use.items()) if path.count(".") <= depth]
    print(plain_table(["block", "LUT4", "of them carry", "of them memory", "registers", "block RAM", "DSP"], rows))
    print("\n" + plain_table(["cell", "used", "of"], [[name, str(number), str(report.available[name])]
                                                      for name, number in sorted(report.used.items())]))
    print("\n" + plain_table(["seed", "MHz", "", "critical path"], [
        [str(seed.seed), f"{seed.fmax_mhz:.1f}", "holds" if seed.meets(report.clock_hz) else "MISSED", str(seed.path)]
        for seed in report.seeds]))
    for failed in report.failed:
        print(f"seed {failed.seed} FAILED: {failed.reason}")
    print(f"\ncritical path of seed {report.worst.seed}:")
    print(plain_table(["ns", "", "block", "cell"], [
        [f"{hop.delay_ns:.2f}", hop.kind, hop.block, hop.cell] for hop in report.worst.path.hops]))
    short = report.clock_hz / 1e6 - report.worst.fmax_mhz
    every = "every seed that was routed" if report.failed else "every seed"
    print(f"\nclock {report.clock_hz / 1e6:g} MHz: " + (f"held by {every}" if short <= 0 else
                                                        f"missed by {short:.1f} MHz by the slowest seed"))
    if report.bitstream is not None:
        print(f"bitstream {folder / report.bitstream['file']}, build {report.build_id:#018x}")
