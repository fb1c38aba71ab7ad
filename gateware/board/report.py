"""What a build found, as one document: use of the device, timing of every seed, critical paths by name.

`Report.document()` is what `--json` prints and what `report.json` in the build folder holds; `schema` is its version.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from morphnic.errors import BuildError

from .netlist import Blocks, Use

__all__ = ["SCHEMA", "CriticalPath", "FailedSeed", "Hop", "Report", "Seed", "read_timing"]

SCHEMA = 1


@dataclass(frozen=True)
class Hop:
    """One step of a path: clk-to-q, routing, logic or setup; the cell where it ends, and the block of that."""

    kind: str
    delay_ns: float
    cell: str
    block: str


@dataclass(frozen=True)
class CriticalPath:
    """The path that limits the clock, from register to register."""

    start: str
    end: str
    total_ns: float
    logic_ns: float
    routing_ns: float
    levels: int
    hops: tuple[Hop, ...]

    def __str__(self) -> str:
        return (f"{self.start} -> {self.end}: {self.total_ns:.2f} ns = {self.logic_ns:.2f} logic in "
                f"{self.levels} levels + {self.routing_ns:.2f} routing")


@dataclass(frozen=True)
class Seed:
    """Placement and routing with one seed. clocks: Fmax of every clock; fmax_mhz: of the device's."""

    seed: int
    fmax_mhz: float
    clocks: dict[str, float]
    seconds: float
    path: CriticalPath

    def meets(self, clock_hz: int) -> bool:
        """Whether the device's clock holds. nextpnr rounds to 10 kHz."""
        return self.fmax_mhz * 1e6 >= clock_hz


@dataclass(frozen=True)
class FailedSeed:
    """A seed with which the design was not placed or not routed, and why."""

    seed: int
    reason: str


@dataclass(frozen=True)
class Report:
    """The whole build. `seeds` are those that were routed, at least one, `failed` the others.

    `use` is by block path ('' all of it), `available` and `used` as nextpnr names its cells.
    """

    target: str
    top: str
    clock_hz: int
    config: dict[str, Any]
    build_id: int
    tools: dict[str, str]
    synthesis_seconds: float
    use: dict[str, Use]
    used: dict[str, int]
    available: dict[str, int]
    seeds: tuple[Seed, ...]
    failed: tuple[FailedSeed, ...] = ()
    bitstream: dict[str, str] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def worst(self) -> Seed:
        """The slowest of the seeds that were routed."""
        return min(self.seeds, key=lambda seed: seed.fmax_mhz)

    @property
    def best(self) -> Seed:
        """The fastest seed, whose bitstream is taken."""
        return max(self.seeds, key=lambda seed: seed.fmax_mhz)

    @property
    def met(self) -> bool:
        """Whether every seed was routed and holds the clock."""
        return not self.failed and self.worst.meets(self.clock_hz)

    def document(self) -> dict[str, Any]:
        """Plain values, with what is derived from them."""
        return {
            "schema": SCHEMA, **asdict(self), "build_id": f"{self.build_id:#018x}",
            "fmax_worst_mhz": self.worst.fmax_mhz, "fmax_best_mhz": self.best.fmax_mhz, "met": self.met,
        }


def read_timing(
    report: Mapping[str, Any], blocks: Blocks, clock: Collection[str]
) -> tuple[float, dict[str, float], CriticalPath]:
    """Fmax in MHz, that of every clock, and the critical path of nextpnr's `--report`.

    `clock` are the names of the device's clock. nextpnr's log holds a first estimate too; its report does not.
    """
    clocks = {name: float(entry["achieved"]) for name, entry in report["fmax"].items()}
    found = [name for name in clocks if _plain(name) in clock]
    if len(found) != 1:
        raise BuildError(f"nextpnr reports no clock of {', '.join(sorted(clock))}: it found "
                         f"{', '.join(clocks) or 'none'}")
    edge = f"posedge {found[0]}"
    paths = [path for path in report["critical_paths"] if path["from"] == edge and path["to"] == edge]
    if not paths:
        raise BuildError(f"nextpnr reports no path from register to register of {found[0]}")
    return clocks[found[0]], clocks, read_path(paths[0]["path"], blocks)


def _plain(net: str) -> str:
    """Name of a net before nextpnr made it global, or put a pin's buffer before it.

    `$glbnet$clk$TRELLIS_IO_IN` and `clk$SB_IO_IN_$glb_clk` are `clk`.
    """
    return re.sub(r"(\$\w+_IO_IN)?(_\$glb_\w+)?$", "", net.removeprefix("$glbnet$"))


def read_path(steps: Sequence[Mapping[str, Any]], blocks: Blocks) -> CriticalPath:
    """A path of nextpnr's report."""
    hops = tuple(Hop(step["type"], round(float(step["delay"]), 3), step["to"]["cell"], blocks.of(step["to"]["cell"]))
                 for step in steps)
    routing = sum(hop.delay_ns for hop in hops if hop.kind == "routing")
    total = sum(hop.delay_ns for hop in hops)
    return CriticalPath(
        start=steps[0]["from"]["cell"], end=steps[-1]["to"]["cell"], total_ns=round(total, 3),
        logic_ns=round(total - routing, 3), routing_ns=round(routing, 3),
        levels=sum(hop.kind == "logic" for hop in hops), hops=hops)
