"""The campaign of faults on the link: short runs of it, and whether it would notice a wrong design."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from device_link.framing import FrameDecoder, cobs_decode
from device_link.session import Session
from sim import faults
from sim.faults import EVERY, NOISE, FaultReport, run
from sim.line import FAULTS, Line

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # builds a model of the link


@pytest.mark.parametrize("seed", [
    0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, len(EVERY)))])
def test_damaged_bytes_are_never_silently_wrong(seed):
    report = run(3_000, seed)
    print(report)
    assert report.wrong == []
    assert report.frames >= 3_000
    assert set(report.faults) == set(FAULTS)
    assert report.hit > 3_000 / EVERY[seed]
    assert report.completed > 0.9 * report.exchanges
    assert report.slowest <= 1


@pytest.mark.parametrize("seed", range(len(NOISE)))
def test_noise_on_the_pins_is_never_silently_wrong(seed):
    report = run(300, seed, bits=True)
    print(report)
    assert report.wrong == []
    assert report.frames >= 250, "about as many as were asked for: the device's own are counted at the end"
    assert report.faults["noise"] > 5
    assert report.completed > 0.8 * report.exchanges


def test_idle_time_that_is_skipped_changes_nothing():
    assert run(300, 2) == run(300, 2, simulate_idle=True)


def test_same_seed_gives_the_same_run():
    assert run(500, 5) == run(500, 5)
    assert replace(run(500, 5), seed=6) != run(500, 6)


def wrong_with(monkeypatch, target, name, change, frames=4_000):
    """Whether the campaign notices that `name` was replaced by what `change` makes of it."""
    monkeypatch.setattr(target, name, change(getattr(target, name)))
    return run(frames, 0).wrong


def test_host_that_does_not_look_at_the_crc_is_noticed(monkeypatch):
    def trusting(self, frame):
        try:
            content = cobs_decode(frame)
        except ValueError:
            return None
        return content[:-4] if len(content) >= 7 else None

    assert wrong_with(monkeypatch, FrameDecoder, "_decode", lambda original: trusting, frames=20_000)


def test_write_that_was_applied_twice_is_noticed(monkeypatch):
    def doubled(original):
        return lambda line: [one for pair in original(line) for one in (pair, pair)]

    assert any("the registers took" in text for text in wrong_with(monkeypatch, Line, "applied", doubled))


def test_exchange_that_gives_what_was_not_read_is_noticed(monkeypatch):
    def off_by_one(original):
        def exchange(session, operations, *, ordered):
            return [[word ^ (word == max(words)) for word in words]
                    for words in original(session, operations, ordered=ordered)]
        return exchange

    assert any("instead of" in text for text in wrong_with(monkeypatch, Session, "exchange", off_by_one))


def test_exchange_that_takes_too_long_is_noticed(monkeypatch):
    """A host that waits for ever for an answer that was cut off."""
    def patient(original):
        def exchange(session, operations, *, ordered):
            session.timeout = 60.0
            return original(session, operations, ordered=ordered)
        return exchange

    monkeypatch.setattr(faults, "_CUT", 20)
    monkeypatch.setattr(faults, "_LONGEST_CUT", 30.0)
    assert any("times what it may take" in text for text in wrong_with(monkeypatch, Session, "exchange", patient))


def test_command_prints_counts_and_fails_when_anything_was_wrong(monkeypatch, capsys):
    found = FaultReport(7, False, frames=5, faults=Counter(flip=3), outcomes=Counter(unknown=1),
                        wrong=["seed 7, exchange 3: it was wrong"])
    monkeypatch.setattr(faults, "run", lambda *arguments, **options: found)
    assert faults.main(["--frames", "5", "--bit-frames", "0", "--seed", "7"]) == 1
    assert "wrong      1\n    seed 7, exchange 3: it was wrong\n" in capsys.readouterr().out
    assert faults.main(["--frames", "5", "--bit-frames", "0", "--seed", "7", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["frames"], document["schema"]) == (5, 1)
    assert (document["faults"], document["outcomes"]) == ({"flip": 3}, {"unknown": 1})


def test_interrupted_campaign_tells_what_it_has_done(monkeypatch, capsys):
    reports = iter([FaultReport(1, False, frames=10)])

    def one_then_interrupt(*arguments, **options):
        found = next(reports, None)
        if found is None:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(faults, "run", one_then_interrupt)
    assert faults.main(["--frames", "100", "--bit-frames", "0"]) == 130
    assert "10 frames, 0 of them hit" in capsys.readouterr().out
