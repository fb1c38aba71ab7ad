"""Read every tenant twice, an interval apart, and print its figures; the manager is not asked.

A figure that cannot be read is a dash; the reasons follow the table (and stand in the JSON document).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

from host_agent.collect.collector import Collector, Sample, label
from host_agent.collect.figures import FIGURES
from morphnic.program import Context
from morphnic.table import plain_table, quantity


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `host-agent figures`."""
    parser.add_argument("--interval", metavar="SECONDS", help="time between the two readings (default 1)")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print one sample."""
    collector = Collector(context.settings.agent.tenants)
    collector.sample()
    time.sleep(context.settings.agent.interval)
    sample = collector.sample()
    assert sample is not None
    if context.json:
        context.document("agent-figures", document(collector, sample))
        return 0
    print(table(collector, sample))
    notes = absences(sample)
    if notes:
        print("\nnot readable:\n" + "\n".join(f"  {note}" for note in notes))
    return 0


def document(collector: Collector, sample: Sample) -> dict[str, object]:
    """The sample as plain values, with source or reason of every figure."""
    return {
        "interval_s": sample.interval_s,
        "units": FIGURES,
        "tenants": [
            {"tenant": tenant, "name": label(tenant, collector.tenants[tenant]),
             "figures": {name: asdict(figure) for name, figure in figures.items()}}
            for tenant, figures in sample.tenants.items()
        ],
    }


def table(collector: Collector, sample: Sample) -> str:
    """The sample for people."""
    rows = []
    for tenant, figures in sample.tenants.items():
        value = {name: figure.value for name, figure in figures.items()}
        rows.append([
            str(tenant), label(tenant, collector.tenants[tenant]),
            quantity(value["cpu_percent"], "%"), fraction(value["cpu_pressure"]),
            quantity(value["memory_bytes"], "B"), fraction(value["memory_pressure"]),
            quantity(value["network_bytes_per_second"], "B/s"),
            quantity(value["disk_bytes_per_second"], "B/s"), quantity(value["disk_iops"], "/s"),
        ])
    header = ["tenant", "name", "cpu", "pressure", "memory", "pressure", "network", "disk", "operations"]
    return plain_table(header, rows, right=range(2, 9))


def fraction(value: float | None) -> str:
    """A pressure with three digits."""
    return "-" if value is None else f"{value:.3f}"


def absences(sample: Sample) -> list[str]:
    """One line a tenant and reason, with the figures that it keeps away."""
    lines = []
    for tenant, figures in sample.tenants.items():
        by_reason: dict[str, list[str]] = {}
        for name, figure in figures.items():
            if figure.value is None:
                by_reason.setdefault(figure.reason, []).append(name)
        for reason, names in by_reason.items():
            what = "everything" if len(names) == len(figures) else ", ".join(names)
            lines.append(f"tenant {tenant}: {what}: {reason}")
    return lines
