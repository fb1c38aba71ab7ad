"""Print what is usual on this host: mean and spread of every figure, as the daemon measured them at its start."""

from __future__ import annotations

import argparse

from host_agent import baseline as baselines
from host_agent.collect.figures import FIGURES
from morphnic.errors import InputError
from morphnic.program import Context
from morphnic.table import plain_table, quantity


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `host-agent baseline`."""
    parser.add_argument("--state-directory", metavar="DIR", help="where the baseline is kept")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print the baseline that is kept."""
    folder = context.settings.agent.state_directory
    baseline = baselines.load(folder)
    if baseline is None:
        raise InputError(
            f"there is no baseline in {folder}; `host-agent run` makes one in its first "
            f"{context.settings.agent.baseline_intervals} intervals"
        )
    if context.json:
        context.document("agent-baseline", {**baseline.document(), "units": FIGURES})
        return 0
    rows = [
        [str(tenant), name, quantity(one.mean), quantity(one.spread), FIGURES.get(name, ""), str(one.count)]
        for tenant, figures in sorted(baseline.tenants.items()) for name, one in figures.items()
    ]
    print(plain_table(["tenant", "figure", "mean", "spread", "unit", "intervals"], rows, right=(2, 3, 5)))
    return 0
