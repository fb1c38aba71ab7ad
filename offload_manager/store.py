"""Where the manager remembers: decisions with their tables, the baseline, settings.

`Store` is the interface; `SqliteStore` keeps a file (write-ahead log, synchronous FULL), `MemoryStore` is for tests
and for benches that need no history. A decision is written ahead: `intend` before the commit is sent, `conclude`
after its outcome is known; the id of the row is the tag that the device keeps beside its table, so that after a crash
the two can be compared.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from morphnic.errors import EnvironmentFault, InputError
from offload_manager.allocation import Allocation
from offload_manager.api import SCHEMA, SCHEMA_MAJOR, Baseline, Decision, DecisionTiming, Outcome
from offload_manager.fault import fault_point

OPEN_OUTCOMES = (Outcome.PENDING, Outcome.AWAITING)


@dataclass(frozen=True, slots=True)
class Record:
    """A decision and the tables it went between. `boot_nonce` names the run of the device that it was for."""

    decision: Decision
    before: Allocation
    after: Allocation
    boot_nonce: int


class Store(ABC):
    """What the manager needs of a metadata store."""

    @abstractmethod
    def intend(self, record: Record) -> Record:
        """Write a decision ahead of its commit; the record with its id and tag."""

    @abstractmethod
    def conclude(self, tag: int, outcome: Outcome, *, detail: str = "", epoch: int | None = None,
                 timing: DecisionTiming | None = None) -> Decision:
        """Write how the decision goes on or ended."""

    @abstractmethod
    def records(self, *, limit: int = 100, before: int | None = None) -> list[Record]:
        """Newest first, those with an id under `before`."""

    @abstractmethod
    def unsettled(self) -> list[Record]:
        """Decisions that neither ended nor failed, oldest first."""

    @abstractmethod
    def record(self, tag: int) -> Record | None:
        """The decision with this tag."""

    @abstractmethod
    def put_setting(self, key: str, value: object) -> None:
        """Keep a JSON value."""

    @abstractmethod
    def setting(self, key: str) -> object | None:
        """The JSON value, or None."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def put_baseline(self, baseline: Baseline) -> None:
        """Keep the baseline of this start."""
        self.put_setting("baseline", baseline.model_dump(mode="json"))

    def baseline(self) -> Baseline | None:
        """The newest baseline."""
        value = self.setting("baseline")
        return None if value is None else Baseline.model_validate(value)


def _numbered(record: Record, number: int) -> Record:
    return replace(record, decision=record.decision.model_copy(update={"id": number, "tag": number}))


def _concluded(decision: Decision, outcome: Outcome, detail: str, epoch: int | None,
               timing: DecisionTiming | None) -> Decision:
    update: dict[str, object] = {"outcome": outcome}
    if detail:
        update["detail"] = detail
    if epoch is not None:
        update["epoch"] = epoch
    if timing is not None:
        update["timing"] = timing
    return decision.model_copy(update=update)


class MemoryStore(Store):
    """A store that is gone with its process."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._settings: dict[str, str] = {}

    def intend(self, record: Record) -> Record:
        """Keep the record under the next number."""
        written = _numbered(record, len(self._records) + 1)
        self._records[written.decision.tag] = written
        return written

    def conclude(self, tag: int, outcome: Outcome, *, detail: str = "", epoch: int | None = None,
                 timing: DecisionTiming | None = None) -> Decision:
        """Change the record."""
        record = self._records[tag]
        decision = _concluded(record.decision, outcome, detail, epoch, timing)
        self._records[tag] = replace(record, decision=decision)
        return decision

    def records(self, *, limit: int = 100, before: int | None = None) -> list[Record]:
        """Newest first."""
        newest = sorted(self._records.values(), key=lambda r: -r.decision.id)
        return [r for r in newest if before is None or r.decision.id < before][:limit]

    def unsettled(self) -> list[Record]:
        """Oldest first."""
        return [r for r in self._records.values() if r.decision.outcome in OPEN_OUTCOMES]

    def record(self, tag: int) -> Record | None:
        """The record with this tag."""
        return self._records.get(tag)

    def put_setting(self, key: str, value: object) -> None:
        """Keep the value as JSON, as a file would."""
        self._settings[key] = json.dumps(value)

    def setting(self, key: str) -> object | None:
        """The value."""
        text = self._settings.get(key)
        return None if text is None else json.loads(text)

    def close(self) -> None:
        """Nothing to let go of."""


_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    outcome TEXT NOT NULL,
    boot_nonce INTEGER NOT NULL,
    document TEXT NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL
) STRICT;
CREATE INDEX decisions_by_outcome ON decisions (outcome);
CREATE TABLE settings (key TEXT PRIMARY KEY, schema TEXT NOT NULL, value TEXT NOT NULL) STRICT;
"""


class SqliteStore(Store):
    """A store in one SQLite file. A row is durable when the call returns; one process writes at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise EnvironmentFault(f"store {path}: {error}: name another file with --store, or remove this one "
                                   "if it is no store of Morphnic's") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it is in the file, or nothing is; a file that takes nothing more is `EnvironmentFault`."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:   # after some errors (a full disk) SQLite has taken it back already
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise EnvironmentFault(f"store {self._path} cannot be written: {error}; make room, or end what else "
                                   "writes there, and start the manager again") from error

    def _open(self) -> None:
        """Make the tables of a new file, refuse a file of another major version."""
        with self._transaction():
            if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                for statement in _TABLES.split(";\n"):
                    if statement.strip():
                        self._db.execute(statement)
                self._db.execute("INSERT INTO meta VALUES ('schema', ?)", (SCHEMA,))
        found = self._db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        version = found[0] if found else "none"
        if version.split(".")[0] != SCHEMA_MAJOR:
            self._db.close()
            raise InputError(f"store {self._path} has schema {version}, this manager reads {SCHEMA_MAJOR}.x: use the "
                             "version that wrote it, or name another file with --store")

    def intend(self, record: Record) -> Record:
        """Insert the row; the file has it when this returns."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO decisions (outcome, boot_nonce, document, before, after) VALUES (?, ?, '', ?, ?)",
                (record.decision.outcome.value, record.boot_nonce, _table(record.before), _table(record.after)))
            written = _numbered(record, int(cursor.lastrowid or 0))
            self._db.execute("UPDATE decisions SET document = ? WHERE id = ?",
                             (written.decision.model_dump_json(), written.decision.id))
            fault_point("store")
        return written

    def conclude(self, tag: int, outcome: Outcome, *, detail: str = "", epoch: int | None = None,
                 timing: DecisionTiming | None = None) -> Decision:
        """Update the row."""
        record = self.record(tag)
        if record is None:
            raise ValueError(f"tag must be that of a decision in the store, not {tag!r}")
        decision = _concluded(record.decision, outcome, detail, epoch, timing)
        with self._transaction():
            self._db.execute("UPDATE decisions SET outcome = ?, document = ? WHERE id = ?",
                             (outcome.value, decision.model_dump_json(), decision.id))
            fault_point("store")
        return decision

    def records(self, *, limit: int = 100, before: int | None = None) -> list[Record]:
        """Newest first."""
        rows = self._db.execute(
            "SELECT document, before, after, boot_nonce FROM decisions WHERE id < ? ORDER BY id DESC LIMIT ?",
            (before if before is not None else 1 << 62, limit))
        return [self._record(row) for row in rows]

    def unsettled(self) -> list[Record]:
        """Oldest first."""
        rows = self._db.execute(
            "SELECT document, before, after, boot_nonce FROM decisions WHERE outcome IN (?, ?) ORDER BY id",
            tuple(outcome.value for outcome in OPEN_OUTCOMES))
        return [self._record(row) for row in rows]

    def record(self, tag: int) -> Record | None:
        """The row with this id (a tag is an id; four thousand million decisions fit)."""
        row = self._db.execute("SELECT document, before, after, boot_nonce FROM decisions WHERE id = ?",
                               (tag,)).fetchone()
        return None if row is None else self._record(row)

    def _record(self, row: tuple[str, str, str, int]) -> Record:
        decision = Decision.model_validate_json(row[0])
        before, after = (_allocation(text) for text in row[1:3])
        return Record(decision, before, after, row[3])

    def put_setting(self, key: str, value: object) -> None:
        """Insert or replace."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", (key, SCHEMA, json.dumps(value)))

    def setting(self, key: str) -> object | None:
        """The value; one of another major version is refused."""
        row = self._db.execute("SELECT schema, value FROM settings WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if row[0].split(".")[0] != SCHEMA_MAJOR:
            raise InputError(f"store {self._path}: setting {key} has schema {row[0]}, this manager reads "
                             f"{SCHEMA_MAJOR}.x")
        value: object = json.loads(row[1])
        return value

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _table(allocation: Allocation) -> str:
    return json.dumps({"epoch": allocation.epoch, "rows": allocation.to_lists()})


def _allocation(text: str) -> Allocation:
    document = json.loads(text)
    return Allocation.from_lists(document["rows"], document["epoch"])
