"""A campaign: the mutants of one target, what kills them, and which cannot be told from the design.

Everything is kept in `build/mutation/TARGET`, so that a campaign that was interrupted goes on where it stopped; another
design, sample or seed begins anew. Verdicts are lines of JSON, added as soon as they are known.
"""

import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.mutation.blocks import Target
from tests.mutation.equivalence import Equivalence
from tests.mutation.netlist import Mutation, prepare, sample, with_mutants
from tests.mutation.runner import BASELINE

ROOT = Path(__file__).parents[2]
STEPS = 4     # cycles of the induction that survivors get
CYCLES = 20   # after power-up in which a difference is looked for


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant.

    killed_by: id of the test that failed. equivalent: whether it is shown that nothing can tell it from the design.
    apart: whether a difference at the outputs was found (of survivors only), which makes it a missing test.
    blind: tests in which the outputs differ, and that pass.
    """

    mutation: Mutation
    killed_by: str
    equivalent: bool
    apart: bool
    blind: tuple[str, ...] = ()

    @property
    def survives(self) -> bool:
        return not self.killed_by and not self.equivalent


class Campaign:
    """The mutants of `target`, `count` of them drawn with `seed`."""

    def __init__(self, target: Target, count: int, seed: int, folder: Path):
        self.target, self.folder = target, folder / target.name
        self.tests, self.proofs = self.folder / "tests.jsonl", self.folder / "proofs.jsonl"
        component = target.make()
        digest = prepare(component, self.folder)
        state = {"design": digest, "count": count, "seed": seed,
                 "sources": [*target.sources, *(f"not in {part}" for part in target.parts)]}
        kept = self.folder / "campaign.json"
        if not kept.exists() or json.loads(kept.read_text())["state"] != state:
            self.tests.unlink(missing_ok=True)
            self.proofs.unlink(missing_ok=True)
            (self.folder / BASELINE).unlink(missing_ok=True)
            mutations = sample(self.folder, target.sources, count, seed, target.parts)
            with_mutants(self.folder, mutations)
            kept.write_text(json.dumps({"state": state, "mutations": [asdict(one) for one in mutations]}, indent=1))
        self._run_survivors_again_after_a_change_of_the_tests()
        self.mutations = [Mutation(**one) for one in json.loads(kept.read_text())["mutations"]]
        (self.folder / "target.pickle").write_bytes(pickle.dumps(target))

    def _run_survivors_again_after_a_change_of_the_tests(self) -> None:
        digest = hashlib.sha256(b"".join(path.read_bytes() for test in self.target.tests
                                         for path in sorted((ROOT / test).rglob("*.py")) or [ROOT / test])).hexdigest()
        seen = self.folder / "tests.sha256"
        if seen.exists() and seen.read_text() != digest:
            left = [entry for entry in _read(self.tests).values() if entry["killed_by"]]
            self.tests.write_text("".join(json.dumps(entry) + "\n" for entry in left))
        seen.write_text(digest)

    def kill(self, jobs: int, seconds: float) -> None:
        """Run the tests on every mutant that has no verdict, in `jobs` processes, for at most about `seconds`."""
        proofs = _read(self.proofs)
        done = set(_read(self.tests)) | {number for number in proofs if proofs[number]["equivalent"]}
        waiting = [mutation.number for mutation in self.mutations if mutation.number not in done]
        logs = [self.folder / f"worker{number}.log" for number in range(min(jobs, len(waiting)))]
        workers = [self._start(log, waiting[number::jobs], seconds) for number, log in enumerate(logs)]
        for worker, log in zip(workers, logs, strict=True):
            if worker.wait():
                raise RuntimeError(f"a worker ended with status {worker.returncode}:\n{log.read_text()[-3000:]}")

    def _start(self, log: Path, numbers: Sequence[int], seconds: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.mutation.worker", str(self.folder), str(seconds),
                   ",".join(map(str, numbers))]
        with open(log, "w") as file:
            return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
                                    env={**os.environ, "PYTHONPATH": str(ROOT)})

    def compare(self, numbers: Sequence[int], steps: int, each: float) -> None:
        """Try to show that these mutants are equivalent, by induction over `steps` cycles, `each` seconds for one."""
        known = _read(self.proofs)
        waiting = [number for number in numbers if number not in known
                   or (not known[number]["equivalent"] and known[number]["steps"] < steps)]
        equivalence = Equivalence(self.folder) if waiting else None
        for number in waiting:
            result = equivalence.shown(number, steps, each)
            entry = {"mutant": number, "steps": steps, "equivalent": result}
            if steps > 1 and not result:
                entry["apart"] = equivalence.apart(number, CYCLES, each)
            with open(self.proofs, "a") as file:
                file.write(json.dumps(entry) + "\n")

    def run(self, jobs: int, seconds: float, each: float) -> None:
        """Everything, or as much as `seconds` of tests allow: run the tests, and compare what survives with the design,
        first by what is quick."""
        self.kill(jobs, seconds)
        for steps in (1, STEPS):
            self.compare([one.mutation.number for one in self.verdicts() if one.survives], steps, each)

    def verdicts(self) -> list[Verdict]:
        """Of the mutants that the tests have run on, or that are shown equivalent."""
        tests, proofs = _read(self.tests), _read(self.proofs)
        found = []
        for mutation in self.mutations:
            test, proof = tests.get(mutation.number, {}), proofs.get(mutation.number, {})
            if test or proof.get("equivalent"):
                found.append(Verdict(mutation, test.get("killed_by", ""), proof.get("equivalent", False),
                                     bool(proof.get("apart")), tuple(test.get("blind", ()))))
        return found


def _read(path: Path) -> dict[int, dict[str, Any]]:
    if not path.exists():
        return {}
    return {entry["mutant"]: entry for entry in map(json.loads, path.read_text().splitlines())}


def shares(targets: Sequence[Target], count: int) -> list[int]:
    """`count` mutants divided among the targets by lines of source, by largest remainders; at least one each."""
    total = sum(target.lines for target in targets)
    exact = [count * target.lines / total for target in targets]
    found = [math.floor(share) for share in exact]
    for number in sorted(range(len(exact)), key=lambda number: found[number] - exact[number])[:count - sum(found)]:
        found[number] += 1
    return [max(share, 1) for share in found]


def killed_of(verdicts: Sequence[Verdict], waiting: int) -> float:
    """Killed among those not shown equivalent; those `waiting` for a verdict count as survivors. NaN of nothing."""
    killed = sum(bool(verdict.killed_by) for verdict in verdicts)
    counted = killed + sum(verdict.survives for verdict in verdicts) + waiting
    return killed / counted if counted else math.nan
