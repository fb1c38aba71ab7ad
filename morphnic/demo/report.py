"""The demo's report: one self-contained HTML file with the table, the plots and what the input was.

Plots are inline SVG, so that the file opens anywhere, offline, and prints well. Nothing is fetched.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from .metrics import ClassFigures, Requests, RunFigures
from .twin import HostWork

matplotlib.use("svg")
from matplotlib import pyplot as plt

__all__ = ["AllocationPoint", "RunReport", "figure_rows", "write_report"]

COLOURS = plt.get_cmap("tab20").colors
CLASS_COLOURS = {"latency": "#c23b22", "batch": "#2f6690", "network": "#3a7d44"}


@dataclass(frozen=True)
class AllocationPoint:
    """The table from `cycle` on: weight of each tenant."""

    cycle: int
    epoch: int
    weights: tuple[int, ...]


@dataclass(frozen=True)
class RunReport:
    """Everything the report shows of one run. `checks` are counts that must be zero, by name."""

    name: str
    figures: RunFigures
    requests: Requests
    classes: dict[str, set[int]]
    allocations: tuple[AllocationPoint, ...]
    decisions: tuple[tuple[int, str, str], ...]  # window, outcome, reason
    reallocations: int
    rollbacks: int
    host_work: HostWork
    checks: dict[str, int]


def figure_rows(runs: Sequence[RunReport], clock_hz: int) -> list[tuple[str, ...]]:
    """Rows of the result table: what it is, then a cell a run. The same rows go to the terminal and the report."""
    def row(label: str, cell: object) -> tuple[str, ...]:
        return (label, *(str(cell(run)) for run in runs))  # type: ignore[operator]

    def megabytes(rate: float | None) -> str:
        return "-" if rate is None else f"{rate / 1e6:,.0f} MB/s"

    def micros(cycles: float) -> str:
        return "-" if np.isnan(cycles) else f"{cycles / clock_hz * 1e6:,.1f} us"

    rows = [
        row("throughput", lambda run: f"{run.figures.throughput * clock_hz / 1e6:,.1f} MB/s"),
        row("utilisation", lambda run: f"{run.figures.utilisation:.1%}"),
    ]
    for index, figures in enumerate(runs[0].figures.classes):
        def of(run: RunReport, index: int = index) -> ClassFigures:
            return run.figures.classes[index]
        rows += [
            row(f"{figures.name}: p50", lambda run, of=of: micros(of(run).p50)),
            row(f"{figures.name}: p99", lambda run, of=of: micros(of(run).p99)),
            row(f"{figures.name}: over {micros(figures.objective)}", lambda run, of=of: f"{of(run).misses:.2%}"),
        ]
    return [
        *rows,
        row("weighted Jain index", lambda run: f"{run.figures.jain:.3f}"),
        row("reallocations", lambda run: run.reallocations),
        row("rollbacks", lambda run: run.rollbacks),
        row("processed in software on the host", lambda run: f"{run.host_work.requests:,}"),
        row("rate of that software, measured", lambda run: megabytes(run.host_work.bytes_per_second)),
        row("bytes offered", lambda run: f"{run.figures.offered:,}"),
        row("bytes delivered", lambda run: f"{run.figures.delivered:,}"),
        row("bytes dropped by policy", lambda run: f"{run.figures.dropped:,}"),
        row("lost / duplicated / reordered / corrupted",
            lambda run: " / ".join(str(run.checks[name]) for name in
                                   ("lost", "duplicated", "reordered", "corrupted"))),
    ]


def _svg(figure: object) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")  # type: ignore[attr-defined]
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg"):]


def _allocation_plot(runs: Sequence[RunReport], clock_hz: int) -> str:
    figure, axes = plt.subplots(len(runs), 1, figsize=(10, 2.6 * len(runs)), sharex=True, squeeze=False)
    for axis, run in zip(axes[:, 0], runs, strict=True):
        points = run.allocations
        end = max(run.figures.cycles, points[-1].cycle + 1)
        cycles = np.array([point.cycle for point in points] + [end]) / clock_hz * 1e3
        weights = np.array([point.weights for point in points], dtype=float)
        shares = (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)).T
        shares = np.concatenate([shares, shares[:, -1:]], axis=1)
        axis.stackplot(cycles, shares, step="post", colors=COLOURS, linewidth=0)
        axis.set(ylim=(0, 1), ylabel="share of weight", title=run.name, xlim=(0, cycles[-1]))
    axes[-1, 0].set_xlabel("device time, ms (one colour a tenant)")
    return _svg(figure)


def _binned_p99(run: RunReport, members: set[int], bins: NDArray[np.float64]) -> NDArray[np.float64]:
    requests = run.requests
    mask = requests.delivered & np.isin(requests.tenant, list(members))
    which = np.digitize(requests.arrival[mask], bins) - 1
    latency = (requests.done - requests.arrival)[mask]
    return np.array([np.percentile(latency[which == index], 99) if (which == index).any() else np.nan
                     for index in range(len(bins) - 1)])


def _latency_plot(runs: Sequence[RunReport], clock_hz: int) -> str:
    names = list(runs[0].classes)
    figure, axes = plt.subplots(len(names), 1, figsize=(10, 2.6 * len(names)), sharex=True, squeeze=False)
    end = max(int(run.requests.arrival.max(initial=1)) for run in runs)
    bins = np.linspace(0, end + 1, 61)
    for axis, name in zip(axes[:, 0], names, strict=True):
        for run, style in zip(runs, ("--", "-", ":", "-."), strict=False):
            p99 = _binned_p99(run, run.classes[name], bins)
            axis.plot((bins[:-1] + bins[1:]) / 2 / clock_hz * 1e3, p99 / clock_hz * 1e6, style, label=run.name,
                      color=CLASS_COLOURS.get(name, "#444444"), marker=".", markersize=3)
        axis.set(yscale="log", ylabel="p99, us", title=f"{name} class")
        axis.grid(alpha=0.3)
        axis.legend(loc="upper right", fontsize="small")
    axes[-1, 0].set_xlabel("arrival, ms of device time")
    return _svg(figure)


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2330;max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem} h2{font-size:1.15rem;margin-top:2rem} p.note{color:#55606e}
table{border-collapse:collapse;width:100%} td,th{padding:.3rem .7rem;border-bottom:1px solid #dde2e8;text-align:right}
td:first-child,th:first-child{text-align:left} .reason td{text-align:left;font-size:.9rem}
.good{color:#256d3b} .bad{color:#b3261e;font-weight:600} svg{width:100%;height:auto}
"""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    def cells(values: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(str(value))}</{tag}>" for value in values)
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<table class="{kind}"><tr>{cells(header, "th")}</tr>{body}</table>'


def write_report(path: Path, runs: Sequence[RunReport], *, clock_hz: int, inputs: Sequence[tuple[str, str]],
                 conditions: Sequence[tuple[str, str]]) -> None:
    """Write the report. inputs: (name, sha256 and size) of each; conditions: what was configured, by name."""
    broken = [f"{run.name}: {count} {name}" for run in runs for name, count in run.checks.items() if count]
    verdict = (f'<p class="bad">Integrity broken: {html.escape("; ".join(broken))}.</p>' if broken else
               '<p class="good">Every packet is accounted for: none lost, duplicated, reordered within its flow, '
               'or corrupted (payload checksums).</p>')
    decisions = [(str(window), outcome, reason) for run in runs for window, outcome, reason in run.decisions]
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Morphnic demo</title>",
        f"<style>{STYLE}</style><h1>The closed loop on the simulated device</h1>",
        "<p class='note'>The device is the project's gateware, Verilated. When the host's cores are done is a model; "
        "what they compute is the software's.</p>",
        verdict,
        "<h2>Result</h2>", _table(["", *(run.name for run in runs)], figure_rows(runs, clock_hz)),
        "<h2>Latency over time</h2>", _latency_plot(runs, clock_hz),
        "<h2>Allocation over time</h2>", _allocation_plot(runs, clock_hz),
        "<h2>Decisions</h2>", _table(["window", "outcome", "reason"], decisions, "reason"),
        "<h2>Input</h2>", _table(["input", ""], inputs),
        "<h2>Conditions</h2>", _table(["", ""], conditions), "</html>",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")
