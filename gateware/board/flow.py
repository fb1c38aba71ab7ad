"""From a component to a report, and on a board to a bitstream: elaborate, synthesise, place and route, pack.

Every step leaves its files in the build folder and is skipped when they were made from the same input by the same
tools. Placement runs once a seed; a bitstream is packed from the fastest, and only if that one holds the clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from morphnic.errors import BuildError, InputError

from . import tools
from .board import Board
from .netlist import Blocks, Use, aliases, count, read_hierarchy
from .report import FailedSeed, Report, Seed, read_timing

__all__ = ["COMPONENTS", "Design", "Netlist", "board_design", "build", "build_id_of",
           "component_design", "synthesise"]

TOP = "top"
ROOT = Path(__file__).parents[2]
#: Component that `--only` measures by itself -> (module, class); each is made from a DeviceConfig alone.
COMPONENTS = {
    "device": ("gateware.device", "Device"),
    "fabric": ("gateware.fabric.fabric", "Fabric"),
    "crosspoint": ("gateware.fabric.crosspoint", "Crosspoint"),
    "output": ("gateware.fabric.output", "Output"),
    "manager": ("gateware.manager.manager", "ResourceManager"),
    "analyzer": ("gateware.analyzer.analyzer", "Analyzer"),
    "engines": ("gateware.engine.array", "EngineArray"),
    "generator": ("gateware.engine.generator", "Generator"),
    "classifier": ("gateware.vni.classifier", "Classifier"),
    "counters": ("gateware.fabric.counters", "PortCounters"),
    "link": ("gateware.bridge.link", "LinkBridge"),
}
#: LUT4 from which on nextpnr's router2 routes a design: its router1 was not seen to end on one of 28,000.
LARGE = 10_000
#: Family -> placer, packer, files between them, cells that nextpnr reports as LUT.
_FAMILIES = {
    "ecp5": ("nextpnr-ecp5", "ecppack", "config", "bit"),
    "ice40": ("nextpnr-ice40", "icepack", "asc", "bin"),
}


@dataclass(frozen=True)
class Design:
    """What goes into synthesis.

    constraints: of pins and clocks, None without pins. clock: net of the device's clock. top_name: what cells count as
    that lie in no block.
    """

    board: Board
    name: str
    rtlil: str
    constraints: str | None
    clock: str
    clock_hz: int
    top_name: str
    build_id: int = 0


@dataclass(frozen=True)
class Netlist:
    """What synthesis made: use by block, names of the device's clock, seconds that it took."""

    blocks: Blocks
    use: dict[str, Use]
    clock: set[str]
    seconds: float


def build_id_of(target: str) -> int:
    """64 bits over all that decides what the device does: gateware, register map, and `target` (board and parameters).

    Seeds and versions of the tools are not in it: they decide how fast it may run, not what it does.
    """
    digest = hashlib.sha256(target.encode())
    for folder, pattern in (("gateware", "**/*.py"), ("rtl/registers", "*.rdl"), ("rtl/registers", "*.json")):
        for path in sorted((ROOT / folder).glob(pattern)):
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return int.from_bytes(digest.digest()[:8], "big")


def board_design(board: Board, *, uid: int | None = None, make_core: Callable[[Any], Any] | None = None) -> Design:
    """The whole device behind the pins of `board`, or what `make_core` makes with the ports of `BoardCore`."""
    from .core import BoardCore, check_for_board
    from .top import BoardTop

    if make_core is None:
        check_for_board(board.config)
    identity = build_id_of(repr(board))
    own_uid = int.from_bytes(hashlib.sha256(board.name.encode()).digest()[:8], "little")

    def device(config: Any) -> Any:
        return BoardCore(config, identity, own_uid if uid is None else uid)

    platform = board.make_platform()
    top = BoardTop(board, platform, make_core or device)
    files = platform.prepare(top, TOP, emit_src=False).files
    (suffix,) = [end for end in (".lpf", ".pcf") if TOP + end in files]
    return Design(board, board.name, files[TOP + ".il"], files[TOP + suffix], "device_clock", top.clock_hz, "board",
                  identity)


def component_design(board: Board, make: Callable[[Any], Any], name: str) -> Design:
    """One component by itself on the part of `board`, without pins; `make` takes the device's parameters."""
    from amaranth.back import rtlil
    from amaranth.hdl import ClockDomain, Fragment

    from .harness import Harness

    try:
        component = make(board.config)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be made from the parameters of {board.name} alone: {error}") from error
    harness, domain = Harness(component), ClockDomain("sync", reset_less=True)   # as on a board: see `top`
    fragment = Fragment.get(harness, None)
    fragment.add_domains(domain)
    text = rtlil.convert(fragment, name=TOP, ports=[domain.clk, harness.serial_in, harness.serial_out], emit_src=False)
    return Design(board, f"{board.name} {name}", text, None, "clk", board.config.clock_hz, "harness")


def build(design: Design, folder: Path, seeds: Sequence[int], *, jobs: int = 1, timing_may_fail: bool = False,
          limit_s: float | None = None, progress: Callable[[str], None] = tools.print_progress) -> Report:
    """Run the flow; the report is also in `folder`/report.json.

    A seed that cannot be placed or routed, or takes more than `limit_s` seconds, is `failed` in the report.

    Raises `BuildError` when synthesis fails, or every seed, and when a board's clock is missed by every seed and
    `timing_may_fail` is not given: then too the report is there.
    """
    netlist = synthesise(design, folder, progress=progress)
    placer, packer, _, _ = _FAMILIES[design.board.family]
    versions = tools.versions(["yosys", placer, packer])

    def place(seed: int) -> tuple[Seed | FailedSeed, dict[str, Any]]:
        try:
            timing, seconds = _place(design, folder, seed, versions, netlist.use[""].lut4 >= LARGE, limit_s, progress)
        except BuildError as error:  # nextpnr names one cell that has no place left, not how many there are
            use = netlist.use[""]
            progress(f"{design.name}: seed {seed} fails")
            return FailedSeed(seed, f"{error}; the netlist has {use.lut4} LUT4, {use.ff} registers, "
                                    f"{use.bram} block RAMs"), {}
        fmax, clocks, path = read_timing(timing, netlist.blocks, netlist.clock)
        progress(f"{design.name}: seed {seed} reaches {fmax:.1f} MHz")
        return Seed(seed, round(fmax, 2), clocks, round(seconds, 1), path), timing["utilization"]

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        tried = list(pool.map(place, seeds))
    placed = [(seed, used) for seed, used in tried if isinstance(seed, Seed)]
    failed = tuple(seed for seed, _ in tried if isinstance(seed, FailedSeed))
    if not placed:
        raise BuildError(failed[0].reason)
    utilisation = placed[0][1]
    report = Report(
        target=design.board.name, top=design.name, clock_hz=design.clock_hz, config=asdict(design.board.config),
        build_id=design.build_id, tools=versions, synthesis_seconds=round(netlist.seconds, 1), use=netlist.use,
        used={name: entry["used"] for name, entry in utilisation.items() if entry["used"]},
        available={name: entry["available"] for name, entry in utilisation.items() if entry["used"]},
        seeds=tuple(seed for seed, _ in placed), failed=failed)
    if design.constraints is not None and (report.best.meets(design.clock_hz) or timing_may_fail):
        report = replace(report, bitstream=_pack(design, folder, report.best.seed, progress))
    (folder / "report.json").write_text(json.dumps(report.document(), indent=1) + "\n")
    if design.constraints is not None and report.bitstream is None:
        raise BuildError(f"{design.name}: no seed holds {design.clock_hz / 1e6:g} MHz, the best reaches "
                         f"{report.best.fmax_mhz:g}; critical path {report.best.path}; build for a slower clock with "
                         f"--clock {int(report.best.fmax_mhz)}, or take the bitstream all the same with "
                         f"--timing-may-fail (report: {folder / 'report.json'})")
    return report


def synthesise(design: Design, folder: Path, *,
               progress: Callable[[str], None] = tools.print_progress) -> Netlist:
    """The netlist of a design, in `folder`/top.json. Raises `BuildError` when yosys fails."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = _run_yosys(design, folder, progress)
    netlist = json.loads((folder / f"{TOP}.json").read_text())
    paths, inputs = read_hierarchy(design.rtlil, TOP)
    nets = {name: entry["bits"] for name, entry in netlist["modules"][TOP]["netnames"].items()}
    blocks = Blocks(paths, design.top_name, inputs, nets)
    return Netlist(blocks, count(netlist, blocks, TOP), aliases(netlist, TOP, design.clock), seconds)


def _run_yosys(design: Design, folder: Path, progress: Callable[[str], None]) -> float:
    """Make `top.json`, unless it is there; the seconds that it took when it was made."""
    versions = tools.versions(["yosys"])
    script = f"read_rtlil {TOP}.il\nsynth_{design.board.family} -top {TOP} -json {TOP}.json\n"
    key = _key(design.rtlil, script, versions["yosys"])
    done = _kept(folder / "synthesis.json", key)
    if done is not None:
        progress(f"{design.name}: synthesis is as it was")
        return float(done["seconds"])
    (folder / f"{TOP}.il").write_text(design.rtlil)
    (folder / f"{TOP}.ys").write_text(script)
    progress(f"{design.name}: synthesising")
    seconds = tools.run("yosys", [f"{TOP}.ys"], folder, folder / "yosys.log", progress,
                        f"synthesise {design.name}")
    progress(f"{design.name}: synthesised in {seconds:.0f} s")
    _keep(folder / "synthesis.json", key, {"seconds": seconds})
    return seconds


def _place(design: Design, folder: Path, seed: int, versions: dict[str, str], large: bool, limit_s: float | None,
           progress: Callable[[str], None]) -> tuple[dict[str, Any], float]:
    """nextpnr's report with one seed, from the sub-folder `seed-N`, and the seconds that it took when it was made."""
    placer, _, routed, _ = _FAMILIES[design.board.family]
    here = folder / f"seed-{seed}"
    here.mkdir(exist_ok=True)
    arguments = [*design.board.nextpnr, "--json", f"../{TOP}.json", f"--{'textcfg' if routed == 'config' else routed}",
                 f"{TOP}.{routed}", "--report", "timing.json", "--seed", str(seed), "--timing-allow-fail",
                 "--freq", f"{design.clock_hz / 1e6:g}"]
    if design.constraints is not None:
        kind = "lpf" if design.board.family == "ecp5" else "pcf"
        (here / f"{TOP}.{kind}").write_text(design.constraints)
        arguments += [f"--{kind}", f"{TOP}.{kind}"]
    elif design.board.family == "ecp5":
        arguments += ["--lpf-allow-unconstrained"]
    else:
        arguments += ["--pcf-allow-unconstrained"]
    if large:
        arguments += ["--router", "router2"]
    key = _key((folder / f"{TOP}.json").read_text(), design.constraints or "", repr(arguments), versions[placer])
    done = _kept(here / "placement.json", key)
    if done is None:
        progress(f"{design.name}: placing and routing, seed {seed}")
        seconds = tools.run(placer, arguments, here, here / "nextpnr.log", progress,
                            f"place and route {design.name}, seed {seed}", limit_s=limit_s)
        done = {"seconds": seconds}
        _keep(here / "placement.json", key, done)
    return json.loads((here / "timing.json").read_text()), float(done["seconds"])


def _pack(design: Design, folder: Path, seed: int, progress: Callable[[str], None]) -> dict[str, str]:
    """Bitstream of one seed: its name in the build folder, and its hash."""
    _, packer, routed, packed = _FAMILIES[design.board.family]
    name = f"{design.board.name}.{packed}"
    source = f"seed-{seed}/{TOP}.{routed}"
    arguments = ["--compress", "--input", source, "--bit", name] if packer == "ecppack" else [source, name]
    tools.run(packer, arguments, folder, folder / f"{packer}.log", progress, f"pack {name}")
    return {"file": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(), "seed": str(seed)}


def _key(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def _kept(path: Path, key: str) -> dict[str, Any] | None:
    """What an earlier run left, if it was of the same input."""
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    return document if document["key"] == key else None


def _keep(path: Path, key: str, facts: dict[str, Any]) -> None:
    """Written last: a run that was cut off leaves none."""
    path.write_text(json.dumps({"key": key, **facts}) + "\n")
