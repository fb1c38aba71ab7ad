"""The regression's report: one self-contained HTML file with results, coverage and durations."""

import html
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.hdl.cover import merge
from tests.hdl.harness import Outcome
from tests.regression.lines import by_module, merged

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733 }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #dde3ea; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
code, pre { font: 13px/1.4 ui-monospace, monospace } pre { background: #f4f6f8; padding: .7rem; overflow-x: auto }
.passed { color: #1f7a3a } .failed { color: #b3261e; font-weight: 600 }
.bar { background: #e4e9ef; width: 12rem; height: .8rem } .bar div { background: #2f6690; height: 100% }
.missed { color: #b3261e } summary { cursor: pointer }
"""


def write_report(path: Path, outcomes: Sequence[Outcome], seconds: float, title: str = "Regression") -> None:
    """Write the report of `outcomes`, which took `seconds` in all."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    models = {outcome.model for outcome in outcomes}
    verdict = f'<span class="failed">{len(failed)} failed' if failed else '<span class="passed">all passed'
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{len(outcomes)} cases, {sum(len(one.tests) for one in outcomes)} tests, {len(models)} models, "
        f"{sum(test.cycles for one in outcomes for test in one.tests):,} cycles, {seconds:.0f} s: {verdict}</span></p>",
        *_failures(failed, path.parent), *_functional(outcomes), *_structural(outcomes), *_durations(outcomes),
        *_results(outcomes, path.parent),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
                    f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """A table of cells that are HTML already; columns `numbers` are right-aligned."""
    kind = {column: ' class="number"' for column in numbers}
    head = "".join(f"<th{kind.get(column, '')}>{text}</th>" for column, text in enumerate(heads))
    lines = ["".join(f"<td{kind.get(column, '')}>{cell}</td>" for column, cell in enumerate(row)) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _bar(part: float) -> str:
    return f'<div class="bar"><div style="width:{100 * part:.1f}%"></div></div>'


def _link(path: str, base: Path) -> str:
    return f'<a href="{html.escape(os.path.relpath(path, base))}">{html.escape(Path(path).name)}</a>'


def _failures(failed: Sequence[Outcome], base: Path) -> list[str]:
    parts = ["<h2>Failures</h2>"] if failed else []
    for outcome in failed:
        messages = "<br>".join(f"{html.escape(test.name)}: {html.escape(test.message)}" for test in outcome.failed)
        waves = " ".join(_link(path, base) for path in outcome.waveforms) or "none"
        parts.append(
            f'<h3 class="failed">{html.escape(outcome.case)}</h3><p>{html.escape(outcome.error)} {messages}'
            f"{''.join(f'<br>{html.escape(note)}' for note in outcome.notes)}</p>"
            f"<p>Repeat it: <code>{html.escape(outcome.command)}</code><br>Waveform: {waves}</p>"
            f"<details><summary>log</summary><pre>{html.escape(outcome.log)}</pre></details>")
    return parts


def _functional(outcomes: Sequence[Outcome]) -> list[str]:
    groups: dict[str, dict[str, dict[str, int]]] = {}
    for outcome in outcomes:
        merge(groups, outcome.functional)
    rows = []
    for group, points in sorted(groups.items()):
        for point, bins in points.items():
            hit = sum(count > 0 for count in bins.values())
            missed = ", ".join(html.escape(name) for name, count in bins.items() if not count)
            counts = ", ".join(f"{html.escape(name)}: {count:,}" for name, count in bins.items())
            rows.append((html.escape(group), html.escape(point), _bar(hit / len(bins)), f"{hit}/{len(bins)}",
                         f'<span class="missed">{missed}</span>' if missed else "",
                         f"<details><summary>counts</summary>{counts}</details>"))
    if not rows:
        return []
    return ["<h2>Functional coverage</h2>",
            _table(("group", "point or cross", "", "bins hit", "never hit", ""), rows, numbers=[3])]


def _structural(outcomes: Sequence[Outcome]) -> list[str]:
    files: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.lines:
            files[outcome.model].append(outcome)
    if not files:
        return ["<h2>Line and toggle coverage</h2><p>Not collected in this run: give <code>--lines</code> to pytest, "
                "or use <code>make regress</code>.</p>"]
    parts = ["<h2>Line and toggle coverage</h2><p>Of the generated Verilog, each module with all its instances; a "
             "signal counts as missed when one of its bits did not both rise and fall.</p>"]
    for model, members in files.items():
        counts = by_module(merged(Path(one.lines) for one in members))
        rows = []
        for name, module in sorted(counts.items()):
            cells = [f"{module.hit[kind]}/{module.total[kind]}" for kind in ("line", "branch", "toggle")]
            total = sum(module.total.values())
            missed = html.escape(", ".join(module.missed_signals[:40]))
            lines = ", ".join(map(str, sorted(set(module.missed_lines))[:40]))
            rows.append((f"<code>{html.escape(name)}</code>", _bar(sum(module.hit.values()) / max(total, 1)), *cells,
                         f"<details><summary>{len(module.missed_signals)} signals, "
                         f"{len(set(module.missed_lines))} lines</summary>{missed}<br>top.v: {lines}</details>"))
        parts.append(f"<h3>{html.escape(members[0].bench)}: {len(members)} cases of model <code>{model}</code></h3>")
        parts.append(_table(("module", "", "lines", "branches", "toggles", "missed"), rows, numbers=[2, 3, 4]))
    return parts


def _durations(outcomes: Sequence[Outcome]) -> list[str]:
    slowest = sorted(outcomes, key=lambda one: -one.seconds)[:20]
    most = max((one.seconds for one in slowest), default=1.0) or 1.0
    rows = [(f"<code>{html.escape(one.case)}</code>", _bar(one.seconds / most), f"{one.seconds:.1f} s",
             f"{one.build_seconds:.1f} s") for one in slowest]
    return ["<h2>Durations</h2>", _table(("case (the slowest 20)", "", "all", "of it waiting for the model"), rows,
                                         numbers=[2, 3])]


def _results(outcomes: Sequence[Outcome], base: Path) -> list[str]:
    rows = []
    for outcome in sorted(outcomes, key=lambda one: (one.passed, one.case)):
        verdict = '<span class="passed">passed</span>' if outcome.passed else '<span class="failed">FAILED</span>'
        tests = "<br>".join(f"{html.escape(test.name)} ({test.cycles:,} cycles)" for test in outcome.tests)
        waves = "<br>".join(_link(path, base) for path in outcome.waveforms)
        rows.append((verdict, f"<code>{html.escape(outcome.case)}</code>", tests, waves))
    return ["<h2>Results</h2>", _table(("", "case", "tests", "waveforms"), rows)]
