"""The device as Verilog for a vendor's tool, with a top-level template, constraints, and its use of a Xilinx part.

`morphnic_core` is the device behind a serial link (`BoardCore`). The wrapper with its clock and the constraints are
templates in `rtl/wrappers`, filled in here. yosys synthesises the whole for 7-series parts, which shows that the
template fits the module and what it takes; place and route, and with them timing, are the vendor's tool's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from morphnic.errors import InputError

from ..config import DeviceConfig
from . import tools

__all__ = ["VerilogReport", "export"]

CORE, TOP = "morphnic_core", "morphnic_top"
WRAPPERS = Path(__file__).parents[2] / "rtl" / "wrappers"
#: Template -> file in the folder.
_FILES = {"vendor_top.v": f"{TOP}.v", "clock_xilinx.v": "clock_xilinx.v",
          "vendor_top.xdc": f"{TOP}.xdc", "vendor_top.sdc": f"{TOP}.sdc"}
INPUT_HZ = 100_000_000
_VCO = (600_000_000, 1_200_000_000)  # MMCM of 7-series parts, speed grade -1 (DS181)


@dataclass(frozen=True)
class VerilogReport:
    """What was written. xilinx: cells of the netlist by type, and their sums; None without synthesis."""

    folder: str
    files: tuple[str, ...]
    config: dict[str, Any]
    build_id: str
    clock_hz: int
    tools: dict[str, str]
    xilinx: dict[str, Any] | None

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return {"schema": 1, **asdict(self)}


def mmcm(input_hz: int, output_hz: int) -> tuple[int, Fraction]:
    """Multiplier and divider for the lowest frequency at or above `output_hz`; the divider goes in eighths."""
    possible = []
    for multiply in range(2, 65):
        vco = input_hz * multiply
        if _VCO[0] <= vco <= _VCO[1]:
            eighths = min(8 * vco // output_hz, 8 * 128)
            if eighths >= 16:  # a fractional divider is at least 2
                possible.append((Fraction(8 * vco, eighths), -multiply, multiply, Fraction(eighths, 8)))
    if not possible:
        raise InputError(f"--clock must be a frequency that an MMCM makes from {input_hz / 1e6:g} MHz, not "
                         f"{output_hz / 1e6:g} MHz")
    _, _, multiply, divide = min(possible)
    return multiply, divide


def export(config: DeviceConfig, folder: Path, *, uid: int = 0, synthesise: bool = True,
           make_core: Callable[[DeviceConfig], Any] | None = None,
           progress: Callable[[str], None] = tools.print_progress) -> VerilogReport:
    """Write Verilog, wrapper and constraints into `folder`; synthesise them for a 7-series part.

    make_core: makes what stands in the place of the device, with the ports of `BoardCore`.
    Raises `BuildError` when yosys refuses them.
    """
    from .core import BoardCore, check_for_board
    from .flow import build_id_of

    if make_core is None:
        check_for_board(config)
    multiply, divide = mmcm(INPUT_HZ, config.clock_hz)
    config = replace(config, clock_hz=round(INPUT_HZ * multiply / divide))
    identity = build_id_of(f"{TOP} {config!r}")
    folder.mkdir(parents=True, exist_ok=True)
    progress("elaborating the device")
    (folder / f"{CORE}.v").write_text(_verilog(make_core(config) if make_core else BoardCore(config, identity, uid)))
    words = {
        "INPUT_MHZ": f"{INPUT_HZ / 1e6:g}", "INPUT_NS": f"{1e9 / INPUT_HZ:.3f}", "BAUD": str(config.uart_baud),
        "CLOCK_MHZ": f"{config.clock_hz / 1e6:g}", "MULTIPLY": f"{multiply:.3f}", "DIVIDE": f"{float(divide):.3f}"}
    for template, name in _FILES.items():
        (folder / name).write_text(_filled((WRAPPERS / template).read_text(), words))
    report = VerilogReport(
        str(folder), (f"{CORE}.v", *_FILES.values()), asdict(config), f"{identity:#018x}", config.clock_hz,
        tools.versions(["yosys"]) if synthesise else {}, _synthesise(folder, progress) if synthesise else None)
    (folder / "report.json").write_text(json.dumps(report.document(), indent=1) + "\n")
    return report


def _verilog(core: Any) -> str:
    from amaranth.back import verilog

    return str(verilog.convert(core, name=CORE, emit_src=False, strip_internal_attrs=True))


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda found: words[found.group(1)], text)


def _synthesise(folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Cells that yosys makes of it for a 7-series part."""
    (folder / "xilinx.ys").write_text(
        f"read_verilog {CORE}.v {TOP}.v clock_xilinx.v\n"
        f"synth_xilinx -family xc7 -flatten -top {TOP}\n"
        f"tee -q -o xilinx.json stat -json -tech xilinx\n")
    progress("synthesising for Xilinx 7-series")
    seconds = tools.run("yosys", ["xilinx.ys"], folder, folder / "yosys.log", progress, "synthesise the Verilog")
    return xilinx_use(json.loads((folder / "xilinx.json").read_text())) | {"seconds": round(seconds, 1)}


def xilinx_use(stat: dict[str, Any]) -> dict[str, Any]:
    """Cells by type from yosys' `stat -json`, and what they come to."""
    cells: dict[str, int] = stat["design"]["num_cells_by_type"]

    def total(pattern: str) -> int:
        return sum(number for kind, number in cells.items() if re.fullmatch(pattern, kind))

    return {
        "lut": total(r"LUT[1-6]"), "carry4": total("CARRY4"), "ff": total(r"FD[RSCP]E(_1)?"),
        "lutram": total(r"RAM(32|64|128|256)(M|X1S|X1D|M16)"), "shift": total(r"SRL(16E|C32E)"),
        "bram36": total("RAMB36E1") + total("RAMB18E1") / 2, "dsp": total("DSP48E1"), "cells": cells,
    }
