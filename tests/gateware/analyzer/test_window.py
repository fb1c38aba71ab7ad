"""The window clock against counting: windows, parts and slices of every length, and boundaries where they belong."""

import random

import pytest

from gateware.analyzer.window import PARTS, WindowClock
from tests.gateware.simulation import simulate

SHORTEST, RESET, SLICE = 40, 70, 8


def edges(length):
    """Of each cycle of a window: whether it ends a slice, a part, and the window."""
    parts = [length // PARTS] * (PARTS - 1) + [length - length // PARTS * (PARTS - 1)]
    for number, cycles in enumerate(parts):
        for cycle in range(cycles):
            part_ends = cycle == cycles - 1
            whole = (cycle + 1) % SLICE == 0 and cycles - (cycle + 1) >= SLICE   # the last slice takes the rest
            yield whole or part_ends, part_ends, part_ends and number == PARTS - 1, number


def clocked(setting_of, base, cycles):
    """Run for `cycles`; `setting_of(window)` is the setting while that window runs. Compares every output."""
    dut = WindowClock(RESET, SHORTEST, SLICE)

    async def bench(ctx):
        number, length, start, bank, now = 0, RESET, 0, 0, 0
        while now < cycles:
            ctx.set(dut.setting, setting_of(number))
            for slice_end, part_end, window_end, part in edges(length):
                ctx.set(dut.cycle, base + now)
                assert (ctx.get(dut.slice_end), ctx.get(dut.part_end), ctx.get(dut.window_end), ctx.get(dut.part),
                        ctx.get(dut.bank), ctx.get(dut.length), ctx.get(dut.start)) == (
                    slice_end, part_end, window_end, part, bank, length, start), f"cycle {now}, window of {length}"
                bank ^= slice_end
                await ctx.tick()
                now += 1
                if now == cycles:
                    return
            start, length, number = base + now, max(setting_of(number), SHORTEST), number + 1

    simulate(dut, bench)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_windows_parts_and_slices_follow_each_other_without_a_gap(seed):
    """Every rest of a length by 16, settings below the shortest, slices of a part alone and several."""
    rng = random.Random(seed)
    lengths = [0, 16 * 7 + 1, SHORTEST - 1, SHORTEST, SHORTEST + 1,
               *(16 * rng.randint(3, 30) + rest for rest in range(16))]
    rng.shuffle(lengths)
    clocked(lambda number: lengths[number % len(lengths)], rng.getrandbits(64) >> 1, 5000)


@pytest.mark.parametrize("bit", range(6, 28))
def test_a_long_window_does_not_end_early(bit):
    """Its first part has 2**bit + 3 cycles: a countdown that lost a bit would end within a few."""
    length = 16 * ((1 << bit) + 3) + bit % 16
    clocked(lambda number: length, (1 << 63) + (1 << bit), RESET + 60)


def test_start_is_the_cycle_after_the_boundary_in_all_its_bits():
    for base in (0xAAAA_AAAA_AAAA_AAAA, 0x5555_5555_5555_5555, (1 << 63) - 1 - RESET):
        clocked(lambda number: 0, base, 2 * RESET)
