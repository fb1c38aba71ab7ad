"""Have the manager ask its device whether it is well, between two windows, and print what it found.

The tests are those of `morphnic selftest`, which the manager carries out because it holds the device; over PCIe they
include DMA to its memory, and interrupts. Exit code 1 when one fails; a warning leaves 0.
"""

from __future__ import annotations

import argparse
import sys

from host_agent.client import ManagerClient
from host_agent.commands import add_manager_flag
from morphnic.program import Context
from morphnic.results import counts, result_line


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `host-agent selftest`."""
    parser.add_argument("--only", action="append", default=[], metavar="TEST", help="this test only; may be repeated")
    add_manager_flag(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print the results; 0 when none failed."""
    settings = context.settings.manager
    with ManagerClient(settings.url, timeout=settings.timeout) as client:
        report = client.selftest(arguments.only)
    outcomes: list[str] = [result.outcome for result in report.results]
    if context.json:
        context.document("agent-selftest", report.model_dump(mode="json", exclude={"schema_version"}))
    else:
        for result in report.results:
            print(result_line(result.outcome, result.seconds, result.name, result.message))
        print(f"{report.device}: {counts(outcomes)}", file=sys.stderr)
    return 1 if "fail" in outcomes else 0
