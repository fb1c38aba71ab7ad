"""pytest plugin that finds the test that kills a mutant, for one mutant after another, in one process.

A test runs on the unchanged netlist first, and what it asks and sees there is kept as a trace (`stand_in`). One that
fails there, or that does not simulate the target, is left out. The traces are then repeated with each mutant, which
takes little: a test sees a mutant if the trace changes, and only such a test can fail, so only these run, as they are,
until one fails. What killed most a second comes first. A test that takes ten times its cycles is a test that fails.
"""

import hashlib
import json
import os
import pickle
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.mutation.stand_in import StandIn

SLACK, TIMES = 2000, 10   # cycles beyond which a test hangs: SLACK + TIMES x those of the unchanged design
BASELINE, TRACES = "baseline.jsonl", "traces"


@dataclass
class Known:
    """One test on the unchanged netlist: it passes, and simulates `cycles` of the target (none: not the target).
    source: digest of its file and of what the files beside it share; it is learnt again when that changes."""

    test: str
    source: str
    seconds: float
    cycles: int
    passes: bool
    kills: int = 0

    @property
    def trace(self) -> str:
        """Name of the file of its traces."""
        return hashlib.sha256(self.test.encode()).hexdigest()[:16]

    @property
    def useful(self) -> bool:
        """Whether it can kill."""
        return self.passes and self.cycles > 0

    @property
    def cost(self) -> float:
        """Seconds that it may be expected to take for a kill."""
        return self.seconds / (self.kills + 0.2)


class Runner:
    """The plugin. Verdicts on `mutants` are appended to `folder` as soon as they are known, until `deadline`."""

    def __init__(self, stand_in: StandIn, mutants: list[int], folder: Path, deadline: float):
        self._stand_in, self._mutants, self._folder, self._deadline = stand_in, mutants, folder, deadline
        baseline = folder / BASELINE
        lines = baseline.read_text().splitlines() if baseline.exists() else []
        self._known = {entry["test"]: Known(**entry) for entry in map(json.loads, lines)}
        self._traces: dict[str, list[bytes]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        for item in items.values():
            source = _source(item.path)
            if item.nodeid not in self._known or self._known[item.nodeid].source != source:
                self._learn(item, source)
        self._known = {test: known for test, known in self._known.items() if test in items and known.useful}
        if not self._known:
            raise RuntimeError("no test simulates the component with these parameters, and passes")
        self._traces = {test: pickle.loads((self._folder / TRACES / known.trace).read_bytes())
                        for test, known in self._known.items()}
        for mutant in self._mutants:
            if time.monotonic() > self._deadline:
                break
            self._append("tests.jsonl", self._verdict(items, mutant))
        return True

    def _verdict(self, items: dict[str, Any], mutant: int) -> dict[str, Any]:
        started = time.monotonic()
        killer, blind = "", []
        for known in sorted(self._known.values(), key=lambda one: one.cost):
            if not self._stand_in.is_seen(mutant, self._traces[known.test]):
                continue
            self._stand_in.start(mutant, SLACK + TIMES * known.cycles)
            if _fails(items[known.test]):
                known.kills += 1
                killer = known.test
                break
            blind.append(known.test)
        print(f"{mutant}: {killer or 'SURVIVES'}", file=sys.__stderr__, flush=True)
        return {"mutant": mutant, "killed_by": killer, "blind": blind,
                "seconds": round(time.monotonic() - started, 2)}

    def _learn(self, item: Any, source: str) -> None:
        self._stand_in.start(0, learns=True)
        started = time.process_time()
        fails = _fails(item)
        known = Known(item.nodeid, source, time.process_time() - started, self._stand_in.edges, not fails)
        self._known[item.nodeid] = known
        if known.useful:
            (self._folder / TRACES).mkdir(exist_ok=True)
            part = self._folder / TRACES / f"{known.trace}.{os.getpid()}"   # another process may learn it, too
            part.write_bytes(pickle.dumps(self._stand_in.traces()))
            part.rename(self._folder / TRACES / known.trace)
        self._append(BASELINE, asdict(known))

    def _append(self, name: str, entry: dict[str, Any]) -> None:
        with open(self._folder / name, "a") as file:
            file.write(json.dumps(entry) + "\n")


@cache
def _source(path: Path) -> str:
    """Digest of a file of tests, and of the files beside it that are not tests."""
    shared = [other for other in sorted(path.parent.glob("*.py")) if not other.name.startswith("test_")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in (path, *shared))).hexdigest()[:16]


def _fails(item: Any) -> bool:
    """Run one test with its fixtures."""
    item._initrequest()
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))
