"""Random regression: draw configurations and seeds for some minutes, and keep what failed.

    python -m tests.regression --minutes 30 [--benches fabric,skid] [--jobs 2] [--seed N] [--no-lines]

First every bench runs its default case in the build that counts lines and toggles; then random cases run until
the time is over. Left in `build/regression/random`: `report.html`, `junit.xml`, and for each case that failed its
folder with log, outcome and waveform. The draw itself repeats with the seed that is printed. Exit code 1: a case
failed.
"""

import argparse
import os
import random
import re
import shutil
import sys
import time
import xml.etree.ElementTree as xml
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

from tests.hdl.bench import Case, benches, draw_case
from tests.hdl.harness import Outcome, Variant, run_case
from tests.regression.report import write_report

FOLDER = Path("build/regression/random")


def drawn(seed: int, names: Sequence[str]) -> Iterator[Case]:
    """Random cases without end; the same for the same seed and benches."""
    rng, built = random.Random(seed), set[str]()
    known = {name: benches()[name] for name in names}
    while True:
        yield draw_case(rng, known, built)


def run_for(seconds: float, jobs: int, first: Sequence[Case], cases: Iterator[Case], folder: Path,
            lines: bool) -> list[Outcome]:
    """Run `first`, then `cases` for `seconds`, `jobs` at a time. What began is finished."""
    outcomes: list[Outcome] = []
    waiting = [(case, lines) for case in first]
    end = float("inf")
    # A fresh process: a forked one would share the state of whatever ran here before.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running: set[Future[Outcome]] = set()
        number = 0
        while True:
            if not waiting and end == float("inf"):
                end = time.monotonic() + seconds
            while len(running) < jobs and (waiting or time.monotonic() < end):
                case, counts = waiting.pop(0) if waiting else (next(cases), False)
                where = folder / "cases" / f"{number:05d}-{re.sub(r'[^a-zA-Z0-9_.]+', '-', str(case))}"
                running.add(pool.submit(run_case, case, where, variant=Variant.COVERAGE if counts else Variant.FAST))
                number += 1
            if not running:
                return outcomes
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                outcomes.append(future.result())
                print(_line(outcomes[-1]), flush=True)


def _line(outcome: Outcome) -> str:
    return f"passed {outcome.case}" if outcome.passed else f"FAILED {outcome.summary()}"


def write_junit(path: Path, outcomes: Sequence[Outcome], seconds: float) -> None:
    """JUnit: a test case each, with seed, parameters, command and waveforms as properties."""
    suite = xml.Element("testsuite", name="regression", tests=str(len(outcomes)), time=f"{seconds:.1f}",
                        failures=str(sum(not one.passed for one in outcomes)), errors="0")
    for outcome in outcomes:
        case = xml.SubElement(suite, "testcase", classname=outcome.bench, name=outcome.case, time=str(outcome.seconds))
        properties = xml.SubElement(case, "properties")
        parameters = " ".join(f"{name}={value}" for name, value in outcome.parameters.items())
        for name, value in [("seed", outcome.seed), ("parameters", parameters), ("command", outcome.command),
                            *(("waveform", waveform) for waveform in outcome.waveforms)]:
            xml.SubElement(properties, "property", name=name, value=str(value))
        if not outcome.passed:
            failure = xml.SubElement(case, "failure", message=outcome.error or outcome.failed[0].message)
            # XML 1.0 has no control characters.
            failure.text = re.sub(r"[^\t\n\x20-\uFFFD]", "?", outcome.summary())
    xml.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.regression", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long random cases are begun (default 30)")
    parser.add_argument("--benches", default=",".join(benches()), help="names, separated by commas (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="simulators at a time")
    parser.add_argument("--seed", type=int, help="of the draw (default: another one each time, printed)")
    parser.add_argument("--no-lines", action="store_true", help="leave line and toggle coverage out")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where the results go (default {FOLDER})")
    options = parser.parse_args(arguments)
    names = [name for name in options.benches.split(",") if name]
    unknown = sorted(set(names) - set(benches()))
    if unknown or not names:
        parser.error(f"--benches must be some of {', '.join(benches())}, not {options.benches!r}")
    if options.minutes < 0 or options.jobs < 1:
        parser.error("--minutes must be at least 0, and --jobs at least 1")
    seed = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    print(f"random regression: {options.minutes:g} minutes, seed {seed}, benches {', '.join(names)}", flush=True)
    shutil.rmtree(options.folder, ignore_errors=True)
    first = [] if options.no_lines else [benches()[name].matrix()[0] for name in names]
    started = time.monotonic()
    outcomes = run_for(60 * options.minutes, options.jobs, first, drawn(seed, names), options.folder.resolve(),
                       not options.no_lines)
    return _finish(options.folder, outcomes, seed, time.monotonic() - started)


def _finish(folder: Path, outcomes: Sequence[Outcome], seed: int, seconds: float) -> int:
    """Write the reports, drop the folders of what passed, and print where to look."""
    if not outcomes:
        print("no case ran: --minutes is 0 and --no-lines leaves nothing else", file=sys.stderr)
        return 1
    write_report(folder / "report.html", outcomes, seconds, f"Random regression, seed {seed}")
    write_junit(folder / "junit.xml", outcomes, seconds)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for path in sorted((folder / "cases").iterdir()):
        if Outcome.load(path / "outcome.json").passed:
            shutil.rmtree(path)
    print(f"{len(outcomes)} cases, {len(failed)} failed, {seconds:.0f} s; report: {folder / 'report.html'}, "
          f"JUnit: {folder / 'junit.xml'}")
    for outcome in failed:
        print(f"  {outcome.command}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
