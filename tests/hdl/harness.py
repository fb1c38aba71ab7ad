"""Runs cases: cocotb on Verilator, over models that are built once and shared; what failed runs again with a waveform.

A case fails when a cocotb test fails, when there is none, and when the simulation ends without a report: the runner
itself tells none of these. Every model is built in three variants, each only when it is needed: FAST; TRACE, which
writes VCD; COVERAGE, which counts lines and toggles and is many times slower. A fourth, NETLIST, is FAST of what
synthesis makes of the component (`tests.hdl.netlist`). OPTIMISED is for benches, which compare speeds: all others are
quick to build instead.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from unittest import mock

from cocotb_tools.runner import get_runner

from morphnic.errors import BuildError
from sim.build import cached_verilog, locked, to_verilog
from sim.toolchain import Toolchain, cache_directory, find_toolchain, package_version
from sim.viewer import write_save_file
from tests.hdl import cover
from tests.hdl.bench import PARAMETERS, Case
from tests.hdl.netlist import netlist

ROOT = Path(__file__).parents[2]
BUILD_ARGS = ["-Wno-fatal", "-Wno-lint", "-Wno-style", "--x-assign", "fast", "--x-initial", "fast"]
#: Not `--coverage`: its part for expressions ends Verilator 5.48 with an internal error on some comparisons.
COVERAGE_ARGS = ["--coverage-line", "--coverage-toggle"]
#: cocotb asks for every net to be visible; of tens of thousands of cells that takes the C++ compiler many minutes.
NETLIST_ARGS = ["--no-public-flat-rw"]
PORT = re.compile(r"^\s*(?:input|output)\s+(?:\[[^]]*\]\s*)?\\?(\w+)\s*;", re.MULTILINE)
#: Of the compiler: the tests' Python takes most of a simulation's time, and optimising more than half of a build's.
QUICK = "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"
#: As `sim.build` compiles the simulated device.
OPTIMISED = "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O3"
LAST_LINES = 40
KEPT_MODELS = 64


class Variant(Enum):
    """Separate builds of one model."""

    FAST = "fast"
    NETLIST = "netlist"
    TRACE = "trace"
    COVERAGE = "coverage"
    OPTIMISED = "optimised"


@dataclass(frozen=True)
class TestResult:
    """One cocotb test of a case. `message` is empty when it passed."""

    __test__ = False

    name: str
    seconds: float
    cycles: int
    message: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of one case; the regression's report is made of these.

    error: why there are no results (the model could not be built, the simulator died), else empty. waveforms: VCD
    files of what failed, beside each a save file for the viewer. notes: what else was seen, such as a test that passes
    when it runs alone. lines: the coverage counts of Verilator, if asked for.
    """

    bench: str
    case: str
    seed: int
    command: str
    parameters: dict[str, object]
    model: str = ""
    tests: tuple[TestResult, ...] = ()
    error: str = ""
    log: str = ""
    seconds: float = 0.0
    build_seconds: float = 0.0
    waveforms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    functional: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    lines: str = ""

    @property
    def failed(self) -> list[TestResult]:
        """Tests that failed."""
        return [test for test in self.tests if test.message]

    @property
    def passed(self) -> bool:
        """At least one test ran, and none failed."""
        return bool(self.tests) and not self.failed and not self.error

    def summary(self) -> str:
        """What to tell a person: what failed, how to repeat it, where the waveform is."""
        why = self.error or f"{len(self.failed)} of {len(self.tests)} cocotb tests failed"
        parts = [f"{self.case}: {why}", *(f"  {test.name}: {test.message}" for test in self.failed),
                 *self.notes, f"repeat it: {self.command}", *(f"waveform: {path}" for path in self.waveforms), self.log]
        return "\n".join(part for part in parts if part)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> "Outcome":
        """Read what `save` wrote."""
        document = json.loads(path.read_text())
        return cls(**{**document, "tests": tuple(TestResult(**test) for test in document["tests"]),
                      "waveforms": tuple(document["waveforms"]), "notes": tuple(document["notes"])})


def run_case(case: Case, folder: Path, *, wave: bool = False, variant: Variant = Variant.FAST) -> Outcome:
    """Run `case` in `folder` (made anew); keep a waveform of each test that fails, or of all with `wave`.

    The waveform is always of the generated Verilog: what only fails in the netlist, the note says.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()
    blank = Outcome(case.bench.name, str(case), case.seed, case.command, dict(case.parameters))
    try:
        outcome = _run(case, folder, blank, wave, variant)
    except BuildError as error:
        outcome = replace(blank, error=str(error))
    outcome = replace(outcome, seconds=round(time.monotonic() - started, 3))
    outcome.save(folder / "outcome.json")
    return outcome


def _run(case: Case, folder: Path, blank: Outcome, wave: bool, variant: Variant) -> Outcome:
    tools = find_toolchain()
    with mock.patch.dict(os.environ, tools.environment()):
        started = time.monotonic()
        model = _model(case, variant, tools)
        built = round(time.monotonic() - started, 3)
        print(f"{case}: model {model.name}")
        tests, error = _simulate(case, model, folder)
        functional = folder / cover.FILE
        counts = folder / "coverage.dat"
        outcome = replace(
            blank, model=model.name, build_seconds=built, tests=tuple(tests), error=error,
            functional=json.loads(functional.read_text()) if functional.exists() else {},
            lines=str(counts) if variant is Variant.COVERAGE and counts.exists() else "",
            log="" if not error and not any(test.message for test in tests) else _tail(folder / "simulation.log"))
        again = [_trace(case, test, folder, tools) for test in (tests if wave else outcome.failed)]
        return replace(outcome, waveforms=tuple(path for path, _ in again if path),
                       notes=tuple(note for _, note in again if note))


def _trace(case: Case, test: TestResult, folder: Path, tools: Toolchain) -> tuple[str, str]:
    """Run one test by itself in the build that traces; the waveform's path, and a note if it ends differently."""
    alone = folder / test.name
    model = _model(case, Variant.TRACE, tools)
    repeated, error = _simulate(case, model, alone, test.name)
    note = ""
    if bool(error or any(one.message for one in repeated)) != bool(test.message):
        note = f"{test.name} ends differently when it runs alone: it depends on the tests before it"
    dump, kept = alone / "dump.vcd", folder / f"{test.name}.vcd"
    if not dump.exists():
        return "", note
    dump.replace(kept)
    write_save_file(kept, model / "top.v")
    return str(kept), note


def _simulate(case: Case, model: Path, folder: Path, test: str | None = None) -> tuple[list[TestResult], str]:
    """One simulator: results of its tests, and why there are none."""
    folder.mkdir(exist_ok=True)
    results, log = folder / "results.xml", folder / "simulation.log"
    environment = {PARAMETERS: json.dumps(dict(case.parameters))}
    if test is None:
        environment[cover.FOLDER] = str(folder)
    problem = ""
    try:
        get_runner("verilator").test(
            test_module=case.bench.module, hdl_toplevel="top", hdl_toplevel_lang="verilog", build_dir=model,
            test_dir=folder, results_xml=str(results), seed=case.seed, testcase=test, log_file=log,
            waves=test is not None, extra_env=environment)
    except (RuntimeError, SystemExit) as error:
        problem = f"the simulation ended without a report ({error})"
    if not results.exists():
        return [], problem or "the simulation ended without a report"
    tests = [_test_result(entry) for entry in xml.parse(results).getroot().iter("testcase")]
    # The report, if there is one, says more than the exit code.
    return tests, "" if tests else f"{case.bench.module} has no cocotb test"


def _test_result(entry: xml.Element) -> TestResult:
    faults = [fault for kind in ("failure", "error") for fault in entry.findall(kind)]
    message = "; ".join(fault.get("message") or fault.get("error_type") or "failed" for fault in faults)
    properties = {one.get("name"): one.get("value") or "" for one in entry.iter("property")}
    nanoseconds = float(properties.get("sim_time_duration") or 0)
    return TestResult(entry.get("name", ""), float(entry.get("time") or 0), int(nanoseconds // 10), message)


def _tail(log: Path) -> str:
    if not log.exists():
        return "(no output)"
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    return "\n".join(text.splitlines()[-LAST_LINES:])


def _model(case: Case, variant: Variant, tools: Toolchain) -> Path:
    """Folder with the simulation of the case's component, from the cache or newly built."""
    verilog = cached_verilog(
        ["bench", case.bench.module, json.dumps(case.model_parameters, sort_keys=True)],
        _sources(case), lambda: to_verilog(case.bench.build(**case.model_parameters)), lambda _: None, str(case))
    if variant is Variant.NETLIST:
        verilog = netlist(verilog, str(case))
    return built(verilog, variant, tools)


def built(verilog: str, variant: Variant, tools: Toolchain) -> Path:
    """Folder with cocotb's simulation of `verilog`, whose top level is `top`: from the cache or newly built."""
    digest = hashlib.sha256()
    for part in (verilog, variant.value, tools.versions, repr((_arguments(variant), _optimisation(variant))),
                 package_version("cocotb") or "", sys.prefix):
        digest.update(part.encode() + b"\0")
    folder = cache_directory() / "cocotb" / digest.hexdigest()[:32]
    with locked(folder.with_suffix(".lock"), lambda: print("waiting for another build of the same component")):
        if not (folder / "top").exists():
            _build(folder, verilog, variant)
    os.utime(folder)
    return folder


def _sources(case: Case) -> list[Path]:
    """Everything that the component may be made from."""
    bench = sys.modules[case.bench.module].__file__ if case.bench.module in sys.modules else None
    return [*ROOT.glob("gateware/**/*.py"), *ROOT.glob("rtl/registers/**/*.rdl"), *([Path(bench)] if bench else [])]


def _arguments(variant: Variant) -> list[str]:
    return BUILD_ARGS + {Variant.COVERAGE: COVERAGE_ARGS, Variant.NETLIST: NETLIST_ARGS}.get(variant, [])


def visible_ports(verilog: str) -> str:
    """Verilator's configuration file that makes the ports of `top`, and nothing else, visible to cocotb."""
    top = re.search(r"^module top\(.*?^endmodule", verilog, re.MULTILINE | re.DOTALL)
    if top is None:
        raise BuildError("the netlist has no module top")
    return "\n".join(["`verilator_config",
                      *(f'public_flat_rw -module "top" -var "{port}"' for port in PORT.findall(top[0])), ""])


def _optimisation(variant: Variant) -> str:
    return OPTIMISED if variant is Variant.OPTIMISED else QUICK


def _build(folder: Path, verilog: str, variant: Variant) -> None:
    work = Path(tempfile.mkdtemp(prefix=folder.name + ".", suffix=".tmp", dir=folder.parent))
    try:
        (work / "top.v").write_text(verilog)
        sources = [work / "top.v"]
        if variant is Variant.NETLIST:
            sources.insert(0, work / "ports.vlt")
            sources[0].write_text(visible_ports(verilog))
        log = work / "build.log"
        flags = {"MAKEFLAGS": f"{os.environ['MAKEFLAGS']} {_optimisation(variant)}"}
        try:
            with mock.patch.dict(os.environ, flags):
                get_runner("verilator").build(
                    sources=sources, hdl_toplevel="top", build_dir=work, always=True,
                    build_args=_arguments(variant), log_file=log, waves=variant is Variant.TRACE)
        except (RuntimeError, SystemExit) as error:
            raise BuildError(f"the cocotb simulation cannot be built ({error}):\n{_tail(log)}") from error
        for left in (*work.glob("*.o"), *work.glob("*.gch")):
            left.unlink()
        os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _prune(folder.parent)


def _prune(models: Path) -> None:
    """Remove the models that were not used for longest."""
    folders = [path for path in models.iterdir() if path.is_dir() and not path.name.endswith(".tmp")]
    for old in sorted(folders, key=lambda path: path.stat().st_mtime)[:-KEPT_MODELS]:
        shutil.rmtree(old, ignore_errors=True)
