"""`python -m sim.soak`: a million random commits under traffic at line rate, in chunks that can be interrupted.

Every chunk is a board of its own with its own seed; a line of JSON a chunk is appended to the results file, so that a
run that is started again goes on where the last one ended. Exit code 1 when anything was lost, duplicated, reordered,
outside its admission epoch, or answered otherwise than expected.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gateware.config import DeviceConfig
from morphnic.errors import MorphnicError

from .harness import device_model
from .storm import StormReport, run

CHUNK = 2_000
SCHEMA = 1


def read_results(path: Path, model: str) -> list[StormReport]:
    """Chunks that were done before with the same model."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        if document.pop("schema") == SCHEMA and document.pop("model") == model:
            document.pop("seconds")
            found.append(StormReport(**document))
    return found


def total(reports: Sequence[StormReport], seed: int) -> StormReport:
    """Sums over the chunks of `seed`."""
    result = StormReport(seed=seed)
    for report in reports:
        for name, value in asdict(report).items():
            if name != "seed":
                setattr(result, name, getattr(result, name) + value)
    return result


def soak(commits: int, seed: int, results: Path) -> StormReport:
    """Run the chunks that are missing; the sums over all chunks of this model and these seeds."""
    config = DeviceConfig()
    model = device_model(config)
    seeds = [(seed << 20) + number for number in range(-(-commits // CHUNK))]
    done = {report.seed: report for report in read_results(results, model.key) if report.seed in seeds}
    started, before = time.monotonic(), sum(report.commits for report in done.values())
    results.parent.mkdir(parents=True, exist_ok=True)
    for chunk in seeds:
        if chunk in done:
            continue
        at = time.monotonic()
        report = run(config, min(CHUNK, commits), chunk, model=model)
        done[chunk] = report
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"schema": SCHEMA, "model": model.key, "seconds": round(time.monotonic() - at, 1),
                                   **asdict(report)}) + "\n")
        sums = sum(entry.commits for entry in done.values())
        rate = (sums - before) / (time.monotonic() - started)
        left = (commits - sums) / rate if rate else 0
        print(f"{sums:,} of {commits:,} commits, {rate:,.0f} a second, {left / 60:,.0f} min left; "
              f"{'clean' if report.clean else f'WRONG: {report}'}", file=sys.stderr, flush=True)
        if not report.clean:
            break
    return total(list(done.values()), seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Soak, and print the sums as one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m sim.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--commits", type=int, default=1_000_000, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--results", type=Path, default=Path("build/soak.jsonl"), help="default %(default)s")
    arguments = parser.parse_args(argv)
    if arguments.commits < 1:
        parser.error(f"--commits must be at least 1, not {arguments.commits}")
    try:
        report = soak(arguments.commits, arguments.seed, arguments.results)
    except MorphnicError as error:
        print(f"morphnic: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, start again to go on", file=sys.stderr)
        return 130
    print(json.dumps({"schema": SCHEMA, **asdict(report), "clean": report.clean}))
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
