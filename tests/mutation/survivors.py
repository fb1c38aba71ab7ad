"""Survivors that somebody has looked at: `survivors.toml`, one entry a line of the gateware.

An entry speaks of a line by its text, so that it stays true when lines move, and is stale when the line changes.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.netlist import Mutation

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("survivors.toml")


@dataclass(frozen=True)
class Explained:
    """file, code: the line that the mutated cell was made from. mutants: which of its mutants survive, as `kind` of a
    mutation starts. why: what would have to be tested, or why it cannot be."""

    file: str
    code: str
    mutants: tuple[str, ...]
    why: str

    def covers(self, mutation: Mutation) -> bool:
        """Whether the entry speaks of this mutant."""
        file, _, line = mutation.where.rpartition(":")
        return (file == self.file and (ROOT / file).read_text().splitlines()[int(line) - 1].strip() == self.code
                and any(mutation.kind.startswith(mutant) for mutant in self.mutants))


def explained(path: Path = LIST) -> list[Explained]:
    """The entries of the list; ValueError for one that is stale or says nothing."""
    entries = [Explained(**{**entry, "mutants": tuple(entry["mutants"])})
               for entry in tomllib.loads(path.read_text()).get("survivor", [])]
    for entry in entries:
        lines = [line.strip() for line in (ROOT / entry.file).read_text().splitlines()]
        if entry.code not in lines:
            raise ValueError(f"{path.name} speaks of a line that {entry.file} no longer has: {entry.code!r}")
        if not entry.mutants or not entry.why:
            raise ValueError(f"{path.name} says nothing about {entry.file}: {entry.code!r}")
    return entries


def unexplained(mutations: Sequence[Mutation], path: Path = LIST) -> list[Mutation]:
    """Those of the survivors that no entry speaks of."""
    entries = explained(path)
    return [mutation for mutation in mutations if not any(entry.covers(mutation) for entry in entries)]
