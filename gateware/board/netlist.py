"""What a synthesised netlist uses, block by block, and in which block a cell lies.

Yosys flattens the design, but keeps names: a cell is named after the signal that it drives, whose name begins with the
path of its block. So the cells of the very netlist that is placed are counted, with no second, unflattened run that
would be optimised differently. A cell that yosys shared between blocks counts where its name says.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from morphnic.errors import BuildError

__all__ = ["Blocks", "Use", "aliases", "count", "hierarchy"]

#: Cell -> what it takes of the device. A CCU2C is two LUT4 with their carry, a DPR16X4 four used as memory (its write
#: port blocks two more, which nextpnr counts as TRELLIS_RAMW). An iCE40 carry lies in the cell of its LUT.
_COSTS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "LUT4": (("lut4", 1),), "CCU2C": (("lut4", 2), ("carry", 2)), "TRELLIS_DPR16X4": (("lut4", 4), ("lutram", 4)),
    "TRELLIS_FF": (("ff", 1),), "DP16KD": (("bram", 1),), "PDPW16KD": (("bram", 1),),
    "MULT18X18D": (("dsp", 1),), "ALU54B": (("dsp", 1),),
    "SB_LUT4": (("lut4", 1),), "SB_CARRY": (("carry", 1),),
    "SB_RAM40_4K": (("bram", 1),), "SB_RAM40_4KNR": (("bram", 1),), "SB_RAM40_4KNW": (("bram", 1),),
    "SB_RAM40_4KNRNW": (("bram", 1),),
}


@dataclass(frozen=True)
class Use:
    """Cells of one block, its sub-blocks included. lut4 holds carry and lutram, which are parts of it on an ECP5."""

    lut4: int = 0
    carry: int = 0
    lutram: int = 0
    ff: int = 0
    bram: int = 0
    dsp: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(*(mine + theirs for mine, theirs in zip(asdict(self).values(), asdict(other).values(), strict=True)))


def hierarchy(rtlil: str, top: str) -> list[str]:
    """Paths of all blocks under `top`, which Amaranth writes as names of modules."""
    names = re.findall(r"^module \\(\S+)$", rtlil, re.MULTILINE)
    return sorted(name.removeprefix(top + ".") for name in names if name.startswith(top + "."))


class Blocks:
    """The blocks of a design; finds the one that a name lies in. Names of no block lie in `top_name`."""

    def __init__(self, paths: Iterable[str], top_name: str) -> None:
        self._paths = sorted(paths)
        self._known = set(self._paths)
        self.top_name = top_name

    def of(self, cell: str) -> str:
        """Path of the innermost block whose path `cell` begins with."""
        # Behind the last path that is not greater than the name, its prefixes are the only candidates left.
        place = bisect_right(self._paths, cell)
        candidate = self._paths[place - 1] if place else ""
        while candidate:
            if cell.startswith(candidate + "."):
                return candidate
            candidate = candidate.rpartition(".")[0]
            while candidate and candidate not in self._known:
                candidate = candidate.rpartition(".")[0]
        return self.top_name


def aliases(netlist: Mapping[str, Any], top: str, net: str) -> set[str]:
    """All names that the one-bit `net` has; a tool may choose any of them."""
    names = netlist["modules"][top]["netnames"]
    if net not in names:
        raise BuildError(f"the netlist has no net '{net}'")
    return {name for name, entry in names.items() if entry["bits"] == names[net]["bits"]}


def count(netlist: Mapping[str, Any], blocks: Blocks, top: str) -> dict[str, Use]:
    """Use of every block of `top`, sub-blocks included; the design as a whole is at ''."""
    found: dict[str, Counter[str]] = {}
    for name, cell in netlist["modules"][top]["cells"].items():
        kind = cell["type"]
        costs = _COSTS.get(kind, (("ff", 1),) if kind.startswith("SB_DFF") else ())
        path = blocks.of(name)
        while True:
            totals = found.setdefault(path, Counter())
            for what, amount in costs:
                totals[what] += amount
            if not path:
                break
            path = path.rpartition(".")[0]
    return {path: Use(**totals) for path, totals in sorted(found.items())}
