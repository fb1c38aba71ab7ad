"""The store: what is written is there after a crash, what is foreign is refused."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from morphnic.errors import EnvironmentFault, InputError
from offload_manager.allocation import reset_allocation
from offload_manager.api import Baseline, Decision, DecisionTiming, Outcome, RowChange
from offload_manager.store import MemoryStore, Record, SqliteStore, Store
from tests.offload_manager.views import LIMITS, equal_table, profiles


def record(**values: object) -> Record:
    """A pending decision."""
    decision = Decision.model_validate({
        "id": 0, "tag": 0, "window": 3, "source": "loop", "policy": "maxmin", "reason": "because",
        "outcome": Outcome.PENDING, "base_epoch": 5, "timing": DecisionTiming(window_cycle=400),
        "changes": [RowChange(tenant=1, field="weight", before=1, after=2)], **values})
    return Record(decision, reset_allocation(LIMITS), equal_table(profiles()), 77)


MAKERS: dict[str, Callable[[Path], Store]] = {
    "memory": lambda path: MemoryStore(), "sqlite": lambda path: SqliteStore(path / "store.db")}


@pytest.fixture(params=list(MAKERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each implementation."""
    return MAKERS[request.param](tmp_path)


def test_intent_gets_a_number_that_is_its_tag(store: Store) -> None:
    first, second = store.intend(record()), store.intend(record())
    assert (first.decision.id, first.decision.tag) == (1, 1)
    assert second.decision.tag == 2
    assert store.record(2) == second
    assert store.record(3) is None


def test_record_comes_back_whole(store: Store) -> None:
    written = store.intend(record(score=0.5))
    assert store.records() == [written]


def test_unsettled_are_those_neither_ended_nor_failed_oldest_first(store: Store) -> None:
    tags = [store.intend(record()).decision.tag for _ in range(6)]
    store.conclude(tags[0], Outcome.CONFIRMED)
    store.conclude(tags[1], Outcome.AWAITING)
    store.conclude(tags[2], Outcome.REFUSED)
    store.conclude(tags[3], Outcome.ROLLED_BACK)
    store.conclude(tags[4], Outcome.ABANDONED)
    assert [r.decision.tag for r in store.unsettled()] == [tags[1], tags[5]]


def test_outcome_keeps_what_it_does_not_change(store: Store) -> None:
    tag = store.intend(record()).decision.tag
    store.conclude(tag, Outcome.AWAITING, epoch=6, timing=DecisionTiming(window_cycle=400, commit_cycle=500))
    last = store.conclude(tag, Outcome.CONFIRMED, detail="good")
    assert (last.epoch, last.timing.commit_cycle, last.detail, last.reason) == (6, 500, "good", "because")


def test_pages_of_records_newest_first(store: Store) -> None:
    for _ in range(5):
        store.intend(record())
    assert [r.decision.id for r in store.records(limit=2)] == [5, 4]
    assert [r.decision.id for r in store.records(limit=2, before=4)] == [3, 2]
    assert store.records(before=1) == []


def test_settings_and_baseline(store: Store) -> None:
    assert store.setting("a") is None
    store.put_setting("a", {"b": [1, 2]})
    store.put_setting("a", {"b": [3]})
    assert store.setting("a") == {"b": [3]}
    assert store.baseline() is None
    baseline = Baseline(windows=2, first_window=0, window_cycles=100, tenants=[])
    store.put_baseline(baseline)
    assert store.baseline() == baseline


def test_file_is_there_for_the_next_manager(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "deep" / "store.db")
    written = first.intend(record())
    first.close()
    second = SqliteStore(tmp_path / "deep" / "store.db")
    assert second.records() == [written]
    assert second.intend(record()).decision.tag == 2


def test_file_is_a_write_ahead_log_with_full_synchronisation(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    store.intend(record())
    store._db.execute("DELETE FROM decisions")
    assert store.intend(record()).decision.tag == 2


def test_unknown_major_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '2.0'")
    db.close()
    with pytest.raises(InputError, match=r"schema 2\.0, this manager reads 1\.x"):
        SqliteStore(path)


def test_unknown_major_version_of_a_setting_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    store.put_setting("a", 1)
    store._db.execute("UPDATE settings SET schema = '9.1'")
    with pytest.raises(InputError, match=r"setting a has schema 9\.1"):
        store.setting("a")


def test_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, and long enough to be no database header" * 10)
    before = path.read_bytes()
    with pytest.raises(EnvironmentFault, match="--store"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_folder_that_cannot_be_made_is_an_environment_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="store"):
        SqliteStore(tmp_path / "file" / "s.db")


def test_write_that_fails_half_way_leaves_nothing_and_the_next_one_works(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path / "s.db")
    kept = store.intend(record())

    def fails(point: str) -> None:
        raise RuntimeError(f"at {point}")

    with monkeypatch.context() as patch:
        patch.setattr("offload_manager.store.fault_point", fails)
        for write in (lambda: store.intend(record()), lambda: store.conclude(kept.decision.tag, Outcome.CONFIRMED)):
            with pytest.raises(RuntimeError, match="at store"):
                write()
    assert store.records() == [kept]
    assert store.intend(record()).decision.tag == 2


def test_full_disk_is_an_environment_fault_that_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    kept = store.intend(record())
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        while True:
            store.intend(record(reason="long " * 500))

    with pytest.raises(EnvironmentFault, match=r"s\.db cannot be written: .*full; make room"):
        fill()
    written = store.records(limit=1)[0].decision.id
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        store.put_setting("a", "b" * 100_000)
    assert store.setting("a") is None
    store._db.execute("PRAGMA max_page_count = 10000")
    assert store.intend(record()).decision.id == written + 1
    assert store.record(1) == kept


def test_file_that_another_process_is_writing_is_an_environment_fault(tmp_path: Path) -> None:
    first, second = (SqliteStore(tmp_path / "s.db") for _ in range(2))
    second._db.execute("PRAGMA busy_timeout = 0")
    first._db.execute("BEGIN IMMEDIATE")
    with pytest.raises(EnvironmentFault, match=r"locked.* end what else writes there"):
        second.intend(record())
    first._db.execute("ROLLBACK")
    assert second.intend(record()).decision.tag == 1


WRITER = """
import sys
from pathlib import Path
from offload_manager import fault
from offload_manager.api import Outcome
from offload_manager.store import SqliteStore
from tests.offload_manager.test_store import record

fault.arm_from_environment()
store = SqliteStore(Path(sys.argv[1]))
for _ in range(10):
    written = store.intend(record())
    print("intended", written.decision.tag, flush=True)
    store.conclude(written.decision.tag, Outcome.CONFIRMED)
    print("concluded", written.decision.tag, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_killed_in_the_middle_of_a_write_leaves_what_was_reported(tmp_path: Path, count: int) -> None:
    path = tmp_path / "s.db"
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(path)], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "MORPHNIC_FAULT": f"store:{count}", "PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL, done.stderr
    reported = [line.split() for line in done.stdout.splitlines()]
    assert len(reported) == count - 1
    store = SqliteStore(path)
    rows = {r.decision.tag: r.decision.outcome for r in store.records()}
    expected: dict[int, Outcome] = {}
    for what, tag in reported:
        expected[int(tag)] = Outcome.PENDING if what == "intended" else Outcome.CONFIRMED
    assert rows == expected
    assert store.intend(record()).decision.tag == len(expected) + 1
