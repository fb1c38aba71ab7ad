"""The recorder against the golden model: runs, wrap-around, share before the trigger, and every way to an end."""

import random

import pytest

from gateware.scope import recorder
from gateware.scope.recorder import Recorder, State
from tests.gateware.scope.model import capture_of
from tests.gateware.simulation import simulate

WIDTH = 5
LONGEST = 8  # cycles of a run, with three bits for them: long runs end in a test


def samples_with_idle(rng, count, idle):
    """Random samples; each stays for a while with the probability `idle`."""
    samples, value = [], rng.getrandbits(WIDTH)
    for _ in range(count):
        if rng.random() >= idle:
            value = rng.getrandbits(WIDTH)
        samples.append(value)
    return samples


def record(samples, *, rows, before, trigger=None, stop=None, after=0, early=()):
    """Arm, and show `samples`; what the recorder has then. early: indices of triggers that must not count again."""
    dut = Recorder(WIDTH, rows)
    found = {}

    async def read(ctx):
        found.update(state=State(ctx.get(dut.state)), triggered=ctx.get(dut.triggered), end=ctx.get(dut.end))
        first, length = ctx.get(dut.first), ctx.get(dut.length)
        found["after"] = (ctx.get(dut.trigger_row) - first) % rows
        found["runs"] = []
        for index in range(length):
            ctx.set(dut.read_row, (first + index) % rows)
            await ctx.tick()
            word = ctx.get(dut.read_data)
            found["runs"].append((word & (1 << WIDTH) - 1, (word >> WIDTH) + 1))

    async def test(ctx):
        ctx.set(dut.before, before)
        ctx.set(dut.after, after)
        ctx.set(dut.sample, samples[0] ^ 1)
        ctx.set(dut.arm, 1)
        await ctx.tick()
        ctx.set(dut.arm, 0)
        previous = samples[0] ^ 1
        for index, sample in enumerate(samples):
            ctx.set(dut.sample, sample)
            ctx.set(dut.changed, sample != previous)
            ctx.set(dut.trigger, index == trigger or index in early)
            ctx.set(dut.stop, index == stop)
            ctx.set(dut.cycle, 1000 + index)
            previous = sample
            await ctx.tick()
        ctx.set(dut.trigger, 0)
        ctx.set(dut.stop, 0)
        await read(ctx)

    simulate(dut, test)
    return found


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    monkeypatch.setattr(recorder, "RUN_BITS", 3)


def compare(found, expected, trigger):
    """With the model's capture; the row of the trigger begins with it."""
    if expected is None:
        assert found["state"] in (State.WAITING, State.TRIGGERED)
        return
    end, runs, triggered = expected
    assert found["state"] is State.COMPLETE
    assert (found["end"] - 1000, found["runs"], bool(found["triggered"])) == (end, runs, triggered)
    if triggered:
        assert end - sum(cycles for _, cycles in runs[found["after"]:]) == trigger


@pytest.mark.slow
@pytest.mark.parametrize("idle", [0, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(12))
def test_capture_is_that_of_the_model(seed, idle):
    rng = random.Random(f"{seed} {idle}")
    rows = rng.choice([2, 4, 16])
    samples = samples_with_idle(rng, 300, idle)
    trigger = rng.choice([None, 0, 1, rng.randrange(300), rng.randrange(100)])
    stop = rng.choice([None, rng.randrange(1, 300), trigger and trigger + rng.randrange(3)])
    settings = {"rows": rows, "before": rng.randrange(rows), "after": rng.choice([0, 0, 1, rng.randrange(1, 60)])}
    print(f"seed={seed} idle={idle} trigger={trigger} stop={stop} {settings}")
    later = [] if trigger is None else [index for index in range(trigger + 1, 300) if rng.random() < 0.1]
    found = record(samples, trigger=trigger, stop=stop, early=later, **settings)
    compare(found, capture_of(samples, trigger=trigger, stop=stop, longest=LONGEST, **settings), trigger)


@pytest.mark.parametrize("before", [0, 1, 4, 7])
def test_rows_before_the_trigger_are_kept_after_a_wrap(before):
    samples = [index % 32 for index in range(100)]
    found = record(samples, rows=8, before=before, trigger=50)
    assert found["state"] is State.COMPLETE
    assert found["runs"] == [(sample % 32, 1) for sample in range(50 - before, 58 - before)]
    assert found["after"] == before


def test_quiet_probes_take_one_row_for_as_many_cycles_as_it_can_count():
    found = record([3] * 50, rows=8, before=0, trigger=10, stop=40)
    assert found["runs"] == [(3, 8), (3, 2), (3, 8), (3, 8), (3, 8), (3, 6)]


def test_stop_before_the_trigger_keeps_the_newest_rows():
    found = record([index % 32 for index in range(60)], rows=4, before=1, stop=40)
    assert (found["state"], found["triggered"]) == (State.COMPLETE, 0)
    assert found["runs"] == [(sample % 32, 1) for sample in range(36, 40)]


def test_trigger_in_the_first_sample_with_nothing_before_it():
    found = record([index % 32 for index in range(20)], rows=4, before=2, trigger=0)
    assert found["runs"] == [(0, 1), (1, 1)], "the share before the trigger stays empty"
    assert found["triggered"]


def test_stop_without_any_sample_leaves_no_row():
    found = record([1, 2, 3], rows=4, before=0, stop=0)
    assert (found["state"], found["runs"], found["end"]) == (State.COMPLETE, [], 1000)


@pytest.mark.parametrize("rows", [0, 1, 3, 12])
def test_rows_must_be_a_power_of_two(rows):
    with pytest.raises(ValueError, match="rows must be a power of two"):
        Recorder(WIDTH, rows)
