"""What a synthesised netlist uses, block by block, and in which block a cell lies.

Yosys flattens the design, but keeps names: a cell is named after the net that it drives, or, without a name of its own,
after the register that it feeds. So the cells of the very netlist that is placed are counted, with no second,
unflattened run that would be optimised differently. A net between blocks has a name in each: it belongs to the
innermost block that it does not enter as an input. Logic that yosys merged across blocks counts where its name says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from morphnic.errors import BuildError

__all__ = ["Blocks", "Use", "aliases", "count", "read_hierarchy"]

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
#: Where yosys' `autoname` has added the kind of a cell to the name of a net.
_ADDED = re.compile(r"_(?:TRELLIS_\w+?|LUT4|PFUMX|L6MUX21|CCU2C|DP16KD|PDPW16KD|MULT18X18D|ALU54B|SB_[A-Z0-9]+)_")


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


def read_hierarchy(rtlil: str, top: str) -> tuple[set[str], set[str]]:
    """Paths of all blocks under `top`, which Amaranth writes as names of modules, and of all their input ports."""
    paths, inputs, path = set(), set(), ""
    for line in rtlil.splitlines():
        if found := re.match(r"module \\(\S+)", line):
            path = found[1].removeprefix(top).removeprefix(".")
            if path:
                paths.add(path)
        elif path and (found := re.match(r"  wire .*\binput \d+ .*?\\(\S+)", line)):
            inputs.add(f"{path}.{found[1]}")
    return paths, inputs


class Blocks:
    """The blocks of a design; finds the one that a cell lies in. Cells of no block lie in `top_name`.

    paths, inputs: of blocks, and of their input ports. nets: bits of every net, by name, as in the netlist.
    """

    def __init__(self, paths: Iterable[str], top_name: str, inputs: Collection[str] = (),
                 nets: Mapping[str, Sequence[int | str]] | None = None) -> None:
        self._paths = set(paths)
        self.top_name = top_name
        nets = nets or {}
        named: dict[int, set[str]] = {}
        entered: dict[int, set[str]] = {}
        for name, bits in nets.items():
            path = self._holding(name)
            for bit in bits:
                if isinstance(bit, int):
                    named.setdefault(bit, set()).add(path)
                    if name in inputs:
                        entered.setdefault(bit, set()).add(path)
        self._of_net = {name: _driver(named[bits[0]], entered.get(bits[0], set())) for name, bits in nets.items()
                        if bits and isinstance(bits[0], int)}

    def of(self, cell: str) -> str:
        """Path of the block that `cell` lies in."""
        net = _ADDED.split(cell, maxsplit=1)[0]
        return self._of_net.get(net, self._holding(cell)) or self.top_name

    def _holding(self, name: str) -> str:
        """Innermost block whose path `name` begins with; '' for none."""
        path = name.rpartition(".")[0]
        while path and path not in self._paths:
            path = path.rpartition(".")[0]
        return path


def _driver(named: Collection[str], entered: Collection[str]) -> str:
    """The block that drives a net which has names in the blocks `named`, and is an input of the blocks `entered`."""
    outside = {path.rpartition(".")[0] for path in entered}
    possible = [path for path in {*named, *outside, ""}
                if not any(path == inner or path.startswith(inner + ".") for inner in entered)]
    return max(possible, key=lambda path: (path.count("."), len(path)))


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
