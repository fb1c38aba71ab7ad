"""Ask a device whether it is well: link, clock, registers, allocation, analyzer, packet path, engine slots, losses.

Over PCIe also whether it reads and writes memory of this process, and interrupts. It takes seconds, and writes nothing
but the scratch register, the traffic generator, the transfer registers and a row of the memory table that nobody uses,
which are put back; --read-only leaves those tests out, and works beside a manager. Exit code 1 when a test fails; a
warning leaves 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from morphnic.commands.test import show
from morphnic.devices import add_device_flag, open_device
from morphnic.errors import DeviceBusy, InputError
from morphnic.program import Context
from morphnic.results import counts
from morphnic.table import plain_table


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `morphnic selftest`."""
    add_device_flag(parser)
    parser.add_argument("--read-only", action="store_true", help="change no register, not even for a moment")
    parser.add_argument("--only", action="append", default=[], metavar="TEST", help="this test only; may be repeated")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="of each test, instead of its own")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML")
    parser.add_argument("--list", action="store_true", help="print the tests, and run none")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Run the tests; 0 when none failed."""
    from device_link.conformance import Outcome
    from device_link.selftest import SELFTESTS, run_selftest

    if arguments.list:
        if context.json:
            context.document("selftest-list", {"tests": [
                {"name": one.name, "description": one.description, "timeout": one.timeout} for one in SELFTESTS]})
        else:
            print(plain_table(["test", "what"], [[one.name, one.description] for one in SELFTESTS]))
        return 0
    if arguments.timeout is not None and not arguments.timeout > 0:
        raise InputError(f"--timeout must be over 0, not {arguments.timeout}")
    if arguments.junit is not None and not arguments.junit.absolute().parent.is_dir():
        raise InputError(f"{arguments.junit}: the folder does not exist: make it, or name another")
    try:
        opened = open_device(context, writer=not arguments.read_only)
    except DeviceBusy as error:
        raise DeviceBusy(f"{error}; or `{context.prog} --read-only`") from error
    with opened as device:
        report = run_selftest(device, only=arguments.only, timeout=arguments.timeout,
                              on_result=None if context.json else show)
    report.write(junit=arguments.junit)
    if context.json:
        context.document("selftest", {key: value for key, value in report.to_json().items() if key != "schema"})
    else:
        print(f"{report.url}: {counts([result.outcome.value for result in report.results])}", file=sys.stderr)
    return 1 if report.count(Outcome.FAIL) else 0
