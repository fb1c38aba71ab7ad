"""Rates are measured from a break and 0x55, at any rate, and from nothing else."""

import random

import pytest

from gateware.bridge.autobaud import BREAK_BITS, BaudDetector
from gateware.bridge.uart import MIN_PERIOD
from tests.gateware.bridge.test_uart import levels
from tests.gateware.simulation import simulate

SYNC = 0x55


def periods(waveform, initial=8 * 20):
    """Periods that the detector changes to over (level, cycles), with fractions of cycles."""
    dut, found = BaudDetector(initial), []

    async def bench(ctx):
        time, total = 0.0, 0
        for level, cycles in waveform:
            ctx.set(dut.level, level)
            time += cycles
            for _ in range(round(time) - total):
                _, _, changed, period = await ctx.tick().sample(dut.changed, dut.period)
                if changed:
                    found.append(period)
            total = round(time)

    simulate(dut, bench)
    return found


def byte(value, bit):
    return [(level, bit) for level in levels(value)] + [(1, bit)]


def greeting(bit, *, low, value=SYNC):
    """A break of `low` cycles and a byte."""
    return [(1, 50), (0, low), (1, 30), *byte(value, bit), (1, 50)]


@pytest.mark.slow
@pytest.mark.parametrize("bit", [4.3, 5, 8.333, 20, 33.333, 100, 868.06])
def test_rate_behind_a_break_is_measured(bit):
    found = periods(greeting(bit, low=max(BREAK_BITS * bit, 20 * BREAK_BITS) + 5))
    assert len(found) == 1
    assert abs(found[0] - 8 * bit) <= 1, "edges are seen to a cycle"


def test_longest_low_of_a_byte_is_no_break():
    assert periods([(1, 50), *byte(0, 20), *byte(SYNC, 20), (1, 50)]) == []


def test_break_one_cycle_short_is_none_and_the_exact_one_is():
    assert periods(greeting(10, low=BREAK_BITS * 20 - 1)) == []
    assert periods(greeting(10, low=BREAK_BITS * 20)) == [80]


@pytest.mark.slow
@pytest.mark.parametrize("value", [value for value in range(256) if value != SYNC][::5])
def test_other_byte_behind_a_break_changes_nothing(value):
    assert periods(greeting(20, low=300, value=value)) == []


@pytest.mark.slow
def test_zeros_of_a_slower_host_are_taken_only_with_the_sync_byte():
    """At a tenth of the rate every zero looks like a break, and frames begin with one."""
    rng = random.Random(5)
    noise = [item for _ in range(12) for item in [*byte(0, 200), *byte(rng.choice([0x12, 0xA9, 0x00, 0xFE]), 200)]]
    assert periods([(1, 50), *noise, (1, 50)]) == []
    assert periods([(1, 50), *noise, *greeting(200, low=2500)]) == [1600]


@pytest.mark.parametrize("pause", [10, 30, 400, 1200])
def test_greeting_behind_the_zero_that_ends_a_frame_of_a_slower_host(pause):
    """The zero arms the detector, so that it takes the break for a start bit at first."""
    found = periods([(1, 50), *byte(0, 33.333), (1, 3000), (0, 2500), (1, pause), *byte(SYNC, 33.333), (1, 50)],
                    initial=67)
    assert len(found) == 1
    assert abs(found[0] - 8 * 33.333) <= 1


def test_second_break_begins_again():
    assert periods([(1, 50), (0, 300), (1, 10), (0, 20), (1, 20), *greeting(20, low=300)]) == [160]


@pytest.mark.parametrize("initial", [MIN_PERIOD - 1, 1 << 20])
def test_impossible_first_period_is_refused(initial):
    with pytest.raises(ValueError, match="initial must be in"):
        BaudDetector(initial)
