"""How fast the gateware is on real parts, and how large: the worst of several seeds, and LUT4.

Three rows. `fabric`: the 4 x 4 x 64 fabric with 16 tenants by itself, between registers, on an ECP5-85 of speed grade
6. `device`: the whole device with all its ports and 16 tenants, the same way. `hx8k`: the small device behind the pins
of the iCE40-HX8K board. LUT4 are those of the netlist, with two for each pair of carry cells and four for each 16 x 4
memory, without the measuring harness; what nextpnr placed, harness included, is in the conditions. A part that is too
small gives no frequency, nor does a row one of whose seeds takes longer than `--limit`: the figure is not a number, and
the reason is in the conditions, with what the other seeds reach.

Slow (minutes a seed), so not part of `make bench`: `make bench-boards`. Results are kept in `build/bench`.
"""

import re
from dataclasses import replace
from pathlib import Path

from _figures import Figure, arguments, machine, progress, report

from gateware.board import flow
from gateware.board.board import find_board
from gateware.board.harness import DUT
from gateware.config import DeviceConfig
from morphnic.errors import BuildError

FOLDER = Path("build") / "bench"
PART = {"ulx3s-85f": "LFE5U-85F-6", "ice40-hx8k-evn": "iCE40HX8K"}
#: Row -> board, component by itself or None for the board's top, MHz asked, LUT4 at most, block RAMs at most.
ROWS = {
    "fabric": ("ulx3s-85f", "fabric", 150, 6500, 96),
    "device": ("ulx3s-85f", "device", 125, None, None),
    "hx8k": ("ice40-hx8k-evn", None, 80, None, None),
}
#: A prototype of the fabric (144 to 148 MHz over its seeds): what was seen before this design.
PROTOTYPE = {"fabric": {"boards.fmax_worst_seed": {"prototype": 144}, "boards.lut4": {"prototype": 5850}}}


def design_of(row: str) -> flow.Design:
    """What is measured in a row."""
    name, only, mhz, _, _ = ROWS[row]
    board = find_board(name)
    board = replace(board, config=replace(DeviceConfig() if only else board.config, clock_hz=mhz * 1_000_000))
    if only is None:
        return flow.board_design(board)
    from morphnic.commands.build import component

    return flow.component_design(board, component(only), only)


def measure(row: str, seeds: int, limit_s: float) -> list[Figure]:
    """Both figures of a row."""
    name, only, mhz, most_lut4, most_bram = ROWS[row]
    design = design_of(row)
    netlist = flow.synthesise(design, FOLDER / row, progress=progress)
    use = netlist.use[DUT] if only else netlist.use[""]
    conditions = {"row": row, "part": PART[name], "seeds": seeds, "block_ram": use.bram, "registers": use.ff,
                  "lutram": use.lutram, **({"block_ram_target": f"<= {most_bram}"} if most_bram else {})}
    fmax = float("nan")
    try:
        found = flow.build(design, FOLDER / row, range(1, seeds + 1), timing_may_fail=True, limit_s=limit_s,
                           progress=progress)
    except BuildError as error:
        conditions["not_built"] = _without_log(str(error))
    else:
        if not found.failed:   # the worst of all seeds is of all
            fmax = found.worst.fmax_mhz
        reasons = [f"seed {seed.seed}: {_without_log(seed.reason)}" for seed in found.failed]
        conditions |= {"not_routed": "; ".join(reasons)} if reasons else {}
        conditions |= {"mhz_by_seed": " ".join(f"{seed.fmax_mhz:g}" for seed in found.seeds), "placed": " ".join(
            f"{kind} {number}" for kind, number in found.used.items() if kind.endswith(("COMB", "RAMW", "LC", "RAM"))),
            "critical_path": str(found.worst.path)}
    references = PROTOTYPE.get(row, {})
    return [
        Figure("boards.fmax_worst_seed", fmax, "MHz", references.get("boards.fmax_worst_seed", {}), (">=", mhz),
               conditions | machine()),
        Figure("boards.lut4", use.lut4, "LUT4", references.get("boards.lut4", {}),
               None if most_lut4 is None else ("<=", most_lut4), conditions | machine()),
    ]


def _without_log(reason: str) -> str:
    return re.sub(r" \(log: [^)]*\)", "", reason)


def main() -> None:
    """Measure the rows."""
    options = arguments(
        __doc__.splitlines()[0],
        seeds={"type": int, "default": 5, "help": "placements of each row (default %(default)s)"},
        quick={"action": "store_true", "help": "one seed"},
        limit={"type": float, "default": 60, "help": "minutes that a placement may take (default %(default)s)"},
        rows={"nargs": "+", "choices": list(ROWS), "default": list(ROWS), "help": "default: all"})
    found = []
    for row in options.rows:
        found += measure(row, 1 if options.quick else options.seeds, 60 * options.limit)
    report(found, as_json=options.json)


if __name__ == "__main__":
    main()
