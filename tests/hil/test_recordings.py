"""Recorded bench sessions are replayed without the bench: what the suite asks, and what it makes of the answers."""

import json
from pathlib import Path

import pytest

from device_link import conformance
from device_link.conformance import CHECKS, Outcome
from device_link.registers import register_map

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.jsonl"))


def test_there_is_a_recording():
    assert RECORDINGS


def recorded_hash(path):
    """Hash of the register map that the recorded device told: the second word of the first exchange."""
    for line in path.read_text().splitlines()[1:2]:
        return json.loads(line)["words"][0][1]
    return None


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recorded_session_gives_the_same_outcomes_again(path):
    assert recorded_hash(path) == register_map().hash, (
        f"{path.name} was recorded with another register map: `make recordings`, or at its bench "
        "`morphnic test --record`")
    report = conformance.run(f"replay://{path}")
    assert [result.name for result in report.results] == [check.name for check in CHECKS]
    assert {result.name: result.message for result in report.results if result.outcome is Outcome.FAIL} == {}
    assert report.count(Outcome.PASS) >= len(CHECKS) - 2


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_session_whose_answers_were_changed_fails(path, tmp_path):
    """A replay that would pass whatever the record says would prove nothing."""
    lines = path.read_text().splitlines()
    magic = next(number for number, line in enumerate(lines) if '"execute":[["read_list",0]]' in line)
    changed = json.loads(lines[magic])
    changed["words"][0][0] ^= 1
    lines[magic] = json.dumps(changed)
    (tmp_path / "changed.jsonl").write_text("\n".join(lines) + "\n")
    report = conformance.run(f"replay://{tmp_path}/changed.jsonl")
    assert report.count(Outcome.FAIL) >= 1
