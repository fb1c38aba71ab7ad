"""pytest plugin that runs the collected tests on one mutant after another, in one process.

First every test runs on the unchanged netlist: one that fails there, or that does not simulate the target, is left
out (and the former is reported). Then each mutant runs them until one fails: what killed most a second comes first. A
test that takes ten times its cycles is a test that fails.
"""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.mutation.stand_in import StandIn

SLACK, TIMES = 2000, 10   # cycles beyond which a test hangs: SLACK + TIMES x those of the unchanged design


@dataclass
class Known:
    """One test, and what is known about it from the unchanged design."""

    item: Any
    seconds: float
    cycles: int
    kills: int = 0

    @property
    def merit(self) -> float:
        """Mutants that it may be expected to kill in a second."""
        return (self.kills + 0.2) / self.seconds


@dataclass
class Runner:
    """The plugin. mutants: numbers to run. results: file to which each verdict is appended as soon as it is known."""

    stand_in: StandIn
    mutants: list[int]
    results: Path
    deadline: float = float("inf")
    tests: list[Known] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._baseline(session)
        for mutant in self.mutants:
            if time.monotonic() > self.deadline:
                break
            self._append(self._verdict(mutant))
        return True

    def _baseline(self, session: pytest.Session) -> None:
        for item in session.items:
            self.stand_in.start(0)
            started = time.monotonic()
            failed = _fails(item)
            if self.stand_in.edges and not failed:
                self.tests.append(Known(item, time.monotonic() - started, self.stand_in.edges))
            elif self.stand_in.edges:
                self.unusable.append(item.nodeid)
        seconds = sum(test.seconds for test in self.tests)
        print(f"{len(self.tests)} tests, {seconds:.1f} s, {sum(test.cycles for test in self.tests)} cycles; "
              f"not usable on a netlist: {self.unusable}", file=sys.__stderr__, flush=True)
        if not self.tests:
            raise RuntimeError("no test simulates the component with these parameters")

    def _verdict(self, mutant: int) -> dict[str, Any]:
        started = time.monotonic()
        killer = ""
        for test in sorted(self.tests, key=lambda one: -one.merit):
            self.stand_in.start(mutant, SLACK + TIMES * test.cycles)
            if _fails(test.item):
                test.kills += 1
                killer = test.item.nodeid
                break
        return {"mutant": mutant, "killed_by": killer, "seconds": round(time.monotonic() - started, 2)}

    def _append(self, verdict: dict[str, Any]) -> None:
        with open(self.results, "a") as file:
            file.write(json.dumps(verdict) + "\n")
        print(f"{verdict['mutant']}: {verdict['killed_by'] or 'SURVIVES'} ({verdict['seconds']} s)",
              file=sys.__stderr__, flush=True)


def _fails(item: Any) -> bool:
    """Run one test with its fixtures."""
    item._initrequest()
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))
