"""Bring up the simulated device, the manager and the agent, and play one input under a static partition and the loop.

Prints a table and writes one self-contained HTML report. The input is recorded (`MORPHNIC_DATA`, or --trace FILE of
your own: MQSim, MSR CSV or VSCSI) or, without either, generated. Exit code 1 if any packet was lost, duplicated,
reordered within its flow, or corrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import tempfile
from pathlib import Path

from morphnic.errors import InputError
from morphnic.program import Context


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `morphnic demo`."""
    parser.add_argument("--trace", type=Path, metavar="FILE", help="block trace to play instead of the shipped choice")
    parser.add_argument("--requests", type=int, default=3000, metavar="N", help="block requests (default %(default)s)")
    parser.add_argument("--load", type=float, default=0.7, metavar="L",
                        help="load offered to the engines, 1: all they can do (default %(default)s)")
    parser.add_argument("--decision-latency", default="measured", metavar="TIME",
                        help="device time charged for each commit: 0, 50us, 5ms, measured (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of generated input and device (default %(default)s)")
    parser.add_argument("--report", type=Path, default=Path("report.html"), metavar="FILE",
                        help="the report (default %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep logs, store and records there")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Play each run, print, write the report."""
    from gateware.config import DeviceConfig
    from morphnic.demo.play import Play, play
    from morphnic.demo.report import write_report
    from morphnic.demo.scenario import POLICIES, make_scenario
    from sim.harness import device_model

    _check(arguments)
    config = DeviceConfig()
    scenario = make_scenario(config, trace=arguments.trace, data=context.settings.data, requests=arguments.requests,
                             load=arguments.load, seed=arguments.seed)
    device_model(config)  # the first build is long and reports its own progress
    # Socket paths are short: a folder of the system's temporary place, moved to --keep at the end.
    folder = Path(tempfile.mkdtemp(prefix="morphnic-"))
    try:
        runs = []
        for number, (name, policy) in enumerate(POLICIES.items()):
            with _bar(name, quiet=context.json) as progress:
                runs.append(play(scenario, Play(name, policy, folder / str(number), arguments.decision_latency,
                                                arguments.seed), progress))
        conditions = [*scenario.conditions, ("decision latency charged", arguments.decision_latency)]
        write_report(arguments.report, runs, clock_hz=config.clock_hz, inputs=scenario.inputs, conditions=conditions)
    finally:
        if arguments.keep is not None:
            shutil.copytree(folder, arguments.keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))
        shutil.rmtree(folder, ignore_errors=True)
    _print(arguments, context, scenario, runs)
    return 1 if any(count for one in runs for count in one.checks.values()) else 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.requests < 16:
        raise InputError(f"--requests must be at least 16, not {arguments.requests}")
    if not 0 < arguments.load <= 2:
        raise InputError(f"--load must be above 0 and at most 2, not {arguments.load:g}")
    if not arguments.report.resolve().parent.is_dir():
        raise InputError(f"--report: there is no folder {arguments.report.resolve().parent}: make it first")
    if arguments.keep is not None and arguments.keep.exists() and any(arguments.keep.iterdir()):
        raise InputError(f"--keep: {arguments.keep} is not empty: name a new folder")


class _bar:
    """A progress bar on stderr, or nothing."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(TextColumn("{task.description:18}"), BarColumn(),
                                  TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn(),
                                  console=Console(stderr=True), disable=quiet)
        self._task = self._progress.add_task(name, total=1.0)

    def __enter__(self) -> _bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, part: float) -> None:
        self._progress.update(self._task, completed=part)


def _print(arguments: argparse.Namespace, context: Context, scenario: object, runs: list) -> None:  # type: ignore[type-arg]
    from rich.console import Console
    from rich.table import Table

    from morphnic.demo.report import figure_rows
    from morphnic.demo.scenario import Scenario

    assert isinstance(scenario, Scenario)
    if context.json:
        context.document("demo", {
            "inputs": [{"name": name, "description": text} for name, text in scenario.inputs],
            "runs": [{"name": one.name, "figures": dataclasses.asdict(one.figures), "checks": one.checks,
                      "reallocations": one.reallocations, "rollbacks": one.rollbacks} for one in runs],
            "report": str(arguments.report)})
        return
    console = Console()
    for name, text in [*scenario.inputs, *scenario.conditions]:
        console.print(f"{name}: {text}", highlight=False, soft_wrap=True)
    table = Table("", *(one.name for one in runs))
    for row in figure_rows(runs, scenario.config.clock_hz):
        table.add_row(*row)
    console.print(table)
    broken = [f"{one.name}: {count} {name}" for one in runs for name, count in one.checks.items() if count]
    console.print("; ".join(broken) if broken else
                  "every packet accounted for: none lost, duplicated, reordered within its flow, or corrupted")
    console.print(f"report: {arguments.report}", soft_wrap=True)
