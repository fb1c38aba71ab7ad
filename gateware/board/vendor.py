"""The device as Verilog for a vendor's tool, with a top-level template, constraints, and its use of a Xilinx part.

`morphnic_core` is the device behind a serial link (`BoardCore`). The wrapper with its clock and the constraints are
templates in `rtl/wrappers`, filled in here. yosys synthesises the whole for 7-series parts, which shows that the
template fits the module and what it takes; place and route, and with them timing, are the vendor's tool's.

With `pcie` the top level is a card's, around a vendor's hard IP, whose clock is the device's; the IP itself is made by
the vendor's tool, and yosys is given the core alone.
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
#: Hard IP for PCIe -> its templates -> files in the folder.
CARDS = {"ultrascale-plus": {"pcie_ultrascale_plus.v": f"{TOP}.v", "pcie_ultrascale_plus.xdc": f"{TOP}.xdc",
                             "pcie_ultrascale_plus.tcl": "morphnic_pcie.tcl"}}
INPUT_HZ = 100_000_000
_VCO = (600_000_000, 1_200_000_000)  # MMCM of 7-series parts, speed grade -1 (DS181)


@dataclass(frozen=True)
class VerilogReport:
    """What was written. part: what yosys was told to synthesise for; xilinx: cells of the netlist by type, and their
    sums; None without synthesis."""

    folder: str
    files: tuple[str, ...]
    config: dict[str, Any]
    build_id: str
    clock_hz: int
    tools: dict[str, str]
    part: str
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


def lanes(config: DeviceConfig) -> int:
    """Lanes of the third generation that fill the block's beats at the device's clock (PG213, supported clocks)."""
    if not config.pcie_width:
        raise InputError("pcie_width must be 64, 128, 256 or 512 with --pcie, not 0")
    count = config.pcie_width * config.clock_hz // 8_000_000_000
    if config.clock_hz not in (125_000_000, 250_000_000) or (config.pcie_width, count) == (512, 8):
        raise InputError("--clock must be 250 MHz (or 125 MHz with less than 512 bits), the user clock of the block, "
                         f"not {config.clock_hz / 1e6:g} MHz")
    return count


def _card_words(config: DeviceConfig) -> dict[str, str]:
    from ..pcie.endpoint import MSIX_ADDRESS
    from ..pcie.host import vectors
    from ..pcie.msix import pending_word
    from ..pcie.ultrascale import USER_BITS

    width, wide = config.pcie_width, config.pcie_width == 512
    pending = MSIX_ADDRESS + 4 * pending_word(vectors(config))
    straddles = ([f"AXISTEN_IF_EXT_512_{name}_STRADDLE {{{value}}}" for name, value in (
        ("RQ", "true"), ("RC", "true"), ("RC_4TLP", "false"), ("CQ", "false"), ("CC", "false"))]
        if wide else ["AXISTEN_IF_RC_STRADDLE {false}"])
    return {
        "WIDTH": str(width), "LANES": str(lanes(config)), "MSIX_SIZE": f"{vectors(config) - 1:03X}",
        "MSIX_TABLE": f"{MSIX_ADDRESS:08X}", "MSIX_PBA": f"{pending:08X}",
        "STRADDLE": "".join(f"  CONFIG.{line} \\\n" for line in straddles),
        **{f"{name.upper()}_USER": str(bits[wide]) for name, bits in USER_BITS.items()}}


def _board_words(config: DeviceConfig) -> tuple[DeviceConfig, dict[str, str]]:
    """The configuration with the clock that an MMCM makes, and how it makes it."""
    multiply, divide = mmcm(INPUT_HZ, config.clock_hz)
    return replace(config, clock_hz=round(INPUT_HZ * multiply / divide)), {
        "INPUT_MHZ": f"{INPUT_HZ / 1e6:g}", "INPUT_NS": f"{1e9 / INPUT_HZ:.3f}",
        "MULTIPLY": f"{multiply:.3f}", "DIVIDE": f"{float(divide):.3f}"}


def export(config: DeviceConfig, folder: Path, *, uid: int = 0, synthesise: bool = True, pcie: str | None = None,
           make_core: Callable[[DeviceConfig], Any] | None = None,
           progress: Callable[[str], None] = tools.print_progress) -> VerilogReport:
    """Write Verilog, wrapper and constraints into `folder`; synthesise them for a Xilinx part.

    pcie: one of `CARDS`. make_core: makes what stands in the place of the device, with the ports of `BoardCore`.
    Raises `BuildError` when yosys refuses them.
    """
    from .core import BoardCore, check_for_board
    from .flow import build_id_of

    if pcie is None:
        check_for_board(config)
        config, words = _board_words(config)
    else:
        words = _card_words(config)
    files = _FILES if pcie is None else CARDS[pcie]
    identity = build_id_of(f"{TOP} {config!r}")
    folder.mkdir(parents=True, exist_ok=True)
    progress("elaborating the device")
    (folder / f"{CORE}.v").write_text(_verilog(make_core(config) if make_core else BoardCore(config, identity, uid)))
    words |= {"BAUD": str(config.uart_baud), "CLOCK_MHZ": f"{config.clock_hz / 1e6:g}"}
    for template, name in files.items():
        (folder / name).write_text(_filled((WRAPPERS / template).read_text(), words))
    report = VerilogReport(
        str(folder), (f"{CORE}.v", *files.values()), asdict(config), f"{identity:#018x}", config.clock_hz,
        tools.versions(["yosys"]) if synthesise else {},
        "Xilinx 7-series" if pcie is None else "Xilinx UltraScale+, core alone",
        _synthesise(folder, pcie, progress) if synthesise else None)
    (folder / "report.json").write_text(json.dumps(report.document(), indent=1) + "\n")
    return report


def _verilog(core: Any) -> str:
    from amaranth.back import verilog

    return str(verilog.convert(core, name=CORE, emit_src=False, strip_internal_attrs=True))


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda found: words[found.group(1)], text)


def _synthesise(folder: Path, pcie: str | None, progress: Callable[[str], None]) -> dict[str, Any]:
    """Cells that yosys makes of it for a 7-series part, or of a card's core for an UltraScale+ part."""
    sources, family, top = ((f"{CORE}.v {TOP}.v clock_xilinx.v", "xc7", TOP) if pcie is None else
                            (f"{CORE}.v", "xcup -noiopad", CORE))
    (folder / "xilinx.ys").write_text(
        f"read_verilog {sources}\n"
        f"synth_xilinx -family {family} -flatten -top {top}\n"
        f"tee -q -o xilinx.json stat -json -tech xilinx\n")
    progress("synthesising for Xilinx")
    seconds = tools.run("yosys", ["xilinx.ys"], folder, folder / "yosys.log", progress, "synthesise the Verilog")
    return xilinx_use(json.loads((folder / "xilinx.json").read_text())) | {"seconds": round(seconds, 1)}


def xilinx_use(stat: dict[str, Any]) -> dict[str, Any]:
    """Cells by type from yosys' `stat -json`, and what they come to."""
    cells: dict[str, int] = stat["design"]["num_cells_by_type"]

    def total(pattern: str) -> int:
        return sum(number for kind, number in cells.items() if re.fullmatch(pattern, kind))

    return {
        "lut": total(r"LUT[1-6]"), "carry4": total("CARRY4"), "carry8": total("CARRY8"),
        "ff": total(r"FD[RSCP]E(_1)?"),
        "lutram": total(r"RAM(32|64|128|256)(M|X1S|X1D|M16)"), "shift": total(r"SRL(16E|C32E)"),
        "bram36": total(r"RAMB36E[12]") + total(r"RAMB18E[12]") / 2, "dsp": total(r"DSP48E[12]"), "cells": cells,
    }
