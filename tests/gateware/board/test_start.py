"""When a board's device may run: after the PLL has locked and stayed so, and never again once the lock was lost."""

import pytest

from gateware.board.start import Start
from tests.gateware.simulation import simulate

SYNCHRONISER = 2


def resets(cycles, levels):
    """`reset` in each cycle in which `locked` is as in `levels`."""
    dut = Start(cycles)
    seen = []

    async def testbench(ctx):
        for level in levels:
            ctx.set(dut.locked, level)
            await ctx.tick()
            seen.append(ctx.get(dut.reset))

    simulate(dut, testbench)
    return seen


@pytest.mark.parametrize("cycles", [1, 5, 240])
def test_device_starts_when_the_lock_has_lasted(cycles):
    seen = resets(cycles, [0] * 3 + [1] * (cycles + 10))
    assert seen == [1] * (3 + SYNCHRONISER + cycles - 1) + [0] * (11 - SYNCHRONISER)


def test_lock_that_comes_and_goes_before_the_start_only_delays_it():
    seen = resets(5, [1, 1, 1, 0, 1, 1, 0] + [1] * 20)
    assert seen == [1] * (7 + SYNCHRONISER + 4) + [0] * (20 - SYNCHRONISER - 4)


@pytest.mark.parametrize("gap", [1, 100])
def test_device_that_lost_its_clock_stays_in_reset(gap):
    start = [1] * 20
    seen = resets(5, start + [0] * gap + [1] * 300)
    assert seen[:len(start) + SYNCHRONISER] == resets(5, start) + [0] * SYNCHRONISER
    assert all(seen[len(start) + SYNCHRONISER:])


def test_wait_of_no_cycle_is_refused():
    with pytest.raises(ValueError, match="cycles must be at least 1, not 0"):
        Start(0)
