"""pytest plugin that runs the collected tests on one mutant after another, in one process.

A test runs on the unchanged netlist before it runs on the first mutant: one that fails there, or that does not simulate
the target, is left out. Each mutant gets tests until one fails; what killed most a second comes first. A test that
takes ten times its cycles is a test that fails.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.mutation.stand_in import StandIn

SLACK, TIMES = 2000, 10   # cycles beyond which a test hangs: SLACK + TIMES x those of the unchanged design
BASELINE = "baseline.jsonl"


@dataclass
class Known:
    """One test on the unchanged netlist: it passes, and simulates `cycles` of the target (none: not the target)."""

    test: str
    seconds: float = 1.0   # until it is known
    cycles: int = 0
    passes: bool = True
    kills: int = 0

    @property
    def merit(self) -> float:
        """Mutants that it may be expected to kill in a second."""
        return (self.kills + 0.2) / self.seconds


class Runner:
    """The plugin. Verdicts on `mutants` are appended to `folder` as soon as they are known, until `deadline`."""

    def __init__(self, stand_in: StandIn, mutants: list[int], folder: Path, deadline: float):
        self._stand_in, self._mutants, self._folder, self._deadline = stand_in, mutants, folder, deadline
        baseline = folder / BASELINE
        lines = baseline.read_text().splitlines() if baseline.exists() else []
        self._known = {entry["test"]: Known(**entry) for entry in map(json.loads, lines)}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for mutant in self._mutants:
            if time.monotonic() > self._deadline:
                break
            verdict = self._verdict(session.items, mutant)
            if not any(known.cycles and known.passes for known in self._known.values()):
                raise RuntimeError("no test simulates the component with these parameters, and passes")
            self._append("tests.jsonl", verdict)
        return True

    def _verdict(self, items: list[Any], mutant: int) -> dict[str, Any]:
        started = time.monotonic()
        killer = ""
        for item in sorted(items, key=lambda one: -self._known.get(one.nodeid, Known("")).merit):
            known = self._known.get(item.nodeid) or self._learn(item)
            if not known.cycles or not known.passes:
                continue
            self._stand_in.start(mutant, SLACK + TIMES * known.cycles)
            if _fails(item):
                known.kills += 1
                killer = item.nodeid
                break
        print(f"{mutant}: {killer or 'SURVIVES'}", file=sys.__stderr__, flush=True)
        return {"mutant": mutant, "killed_by": killer, "seconds": round(time.monotonic() - started, 2)}

    def _learn(self, item: Any) -> Known:
        self._stand_in.start(0, only=True)
        started = time.process_time()
        fails = _fails(item)
        known = Known(item.nodeid, time.process_time() - started, self._stand_in.edges, not fails)
        self._known[item.nodeid] = known
        self._append(BASELINE, asdict(known))
        return known

    def _append(self, name: str, entry: dict[str, Any]) -> None:
        with open(self._folder / name, "a") as file:
            file.write(json.dumps(entry) + "\n")


def _fails(item: Any) -> bool:
    """Run one test with its fixtures."""
    item._initrequest()
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))
