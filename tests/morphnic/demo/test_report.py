"""The report holds what it was given: the figures, the verdict on integrity, the input, and no outside address."""

import dataclasses
import re

import numpy as np
import pytest

from morphnic.demo.metrics import Requests, run_figures
from morphnic.demo.report import AllocationPoint, RunReport, write_report
from morphnic.demo.twin import HostWork

CLEAN = {"lost": 0, "duplicated": 0, "reordered": 0, "corrupted": 0}


@pytest.fixture
def run():
    rng = np.random.default_rng(1)
    arrival = np.sort(rng.integers(0, 100_000, 500))
    requests = Requests(arrival=arrival, done=arrival + rng.integers(100, 9_000, 500),
                        tenant=rng.integers(1, 4, 500), size=np.full(500, 4096))
    classes = {"latency": {1}, "batch": {2, 3}}
    figures = run_figures(requests, classes, {"latency": 5_000, "batch": 50_000},
                          weights={1: 1.0, 2: 1.0, 3: 1.0}, capacity=8.0)
    points = (AllocationPoint(0, 1, (0, 10, 10, 10)), AllocationPoint(50_000, 2, (0, 30, 5, 5)))
    return RunReport(name="the loop", figures=figures, requests=requests, classes=classes, allocations=points,
                     decisions=((5, "confirmed", "tenant 1 <misses> its objective"),), reallocations=1, rollbacks=0,
                     host_work=HostWork(3, 768, 0, 2.5e9), checks=dict(CLEAN))


def written(path, run):
    write_report(path, [run], clock_hz=100_000_000, inputs=[("tpcc.trace", "sha256 0123")],
                 conditions=[("load", "0.7")])
    return path.read_text()


def test_report_shows_figures_input_and_escaped_reasons(tmp_path, run):
    text = written(tmp_path / "report.html", run)
    assert f"{run.figures.jain:.3f}" in text
    assert "sha256 0123" in text
    assert "tenant 1 &lt;misses&gt; its objective" in text
    assert text.count("<svg") == 2
    assert "Every packet is accounted for" in text


def test_report_says_which_check_failed(tmp_path, run):
    broken = dataclasses.replace(run, checks={**CLEAN, "corrupted": 3})
    text = written(tmp_path / "report.html", broken)
    assert "the loop: 3 corrupted" in text
    assert "Every packet is accounted for" not in text


def test_report_fetches_nothing(tmp_path, run):
    text = written(tmp_path / "report.html", run)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?:https?:)?//", text)
    assert "<script" not in text
    assert "@import" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.S)
