"""Run the conformance suite on a device: simulated, on a board, or a recorded session.

The checks are the same for every device and leave it as they found it, but for its epoch and counters. The right to
write is taken: stop a manager that holds the device first. Exit code 1 when a check fails. A session recorded with
--record is run again without the device by --device replay://FILE.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from morphnic.devices import add_device_flag, choose, explained
from morphnic.errors import InputError
from morphnic.program import Context
from morphnic.results import counts, result_line
from morphnic.table import plain_table

if TYPE_CHECKING:
    from device_link.conformance import Result


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `morphnic test`."""
    add_device_flag(parser)
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--record", type=Path, metavar="FILE", help="record the session, for replay://FILE")
    parser.add_argument("--only", action="append", default=[], metavar="CHECK", help="this check only; may be repeated")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS", help="of one exchange (default 2)")
    parser.add_argument("--list", action="store_true", help="print the checks, and run none")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Run the suite; 0 when everything passed or was skipped."""
    from device_link.conformance import CHECKS
    from device_link.conformance import run as run_suite

    if arguments.list:
        checks = [{"name": check.name, "description": check.description} for check in CHECKS]
        if context.json:
            context.document("test-list", {"checks": checks})
        else:
            print(plain_table(["check", "what"], [[one["name"], one["description"]] for one in checks]))
        return 0
    if not arguments.timeout > 0:
        raise InputError(f"--timeout must be over 0, not {arguments.timeout}")
    for path in (arguments.junit, arguments.report, arguments.record):
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"{path}: the folder does not exist: make it, or name another")
    with explained():
        report = run_suite(
            choose(context), junit=arguments.junit, report=arguments.report, record=arguments.record,
            only=arguments.only, timeout=arguments.timeout, on_result=None if context.json else show)
    if context.json:
        context.document("test", {key: value for key, value in report.to_json().items() if key != "schema"})
    else:
        print(f"{report.url}: {counts([result.outcome.value for result in report.results])}", file=sys.stderr)
    return 0 if report.passed else 1


def show(result: Result) -> None:
    """One line a check, as it ends."""
    print(result_line(result.outcome.value, result.seconds, result.name, result.message), flush=True)

