"""How full ports were in each part, and how busy slots were in each window, against plain sums."""

import random
from fractions import Fraction

import pytest

from gateware.analyzer.load import MAX_LENGTH, Load
from gateware.config import DeviceConfig
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=2, tenants=3, slots=2)
PORTS, SLOTS = range(CONFIG.ports), range(CONFIG.slots)


def masks_of(part):
    """Inputs and outputs that were used for more than 7/8 of the part."""
    return tuple(sum((Fraction(sum(cycle[side][port] or 0 for cycle in part), len(part)) > Fraction(7, 8)) << port
                     for port in PORTS) for side in ("arrived", "left"))


def run(windows):
    """Drive windows, lists of parts, lists of cycles, and compare in every cycle with what ended last."""
    dut = Load(CONFIG)

    async def bench(ctx):
        masks, busy = None, None
        for window in windows:
            for number, part in enumerate(window):
                for index, cycle in enumerate(part):
                    for side in ("arrived", "left"):
                        for port, beats in zip(getattr(dut, side), cycle[side], strict=True):
                            # Without a packet the length means nothing.
                            ctx.set(port, {"valid": beats is not None, "beats": MAX_LENGTH if beats is None else beats})
                    for port, tenant in zip(dut.slots, cycle["slots"], strict=True):
                        ctx.set(port, {"busy": tenant is not None, "tenant": tenant or 0})
                    ctx.set(dut.part_end, index == len(part) - 1)
                    ctx.set(dut.window_end, part is window[-1] and index == len(part) - 1)
                    if masks is not None and index:   # the product takes a cycle
                        assert (ctx.get(dut.inputs_full), ctx.get(dut.outputs_full)) == masks, f"before part {number}"
                    if busy is not None:
                        assert [ctx.get(cycles) for cycles in dut.busy_cycles] == busy
                    await ctx.tick()
                masks = masks_of(part)
            busy = [sum(cycle["slots"][slot] is not None for part in window for cycle in part) for slot in SLOTS]

    simulate(dut, bench)


def part_of(rng, cycles, totals, slots):
    """A part in which each port (inputs, then outputs) passes so many beats in all, in packets of all lengths."""
    part = [{"arrived": [None] * CONFIG.ports, "left": [None] * CONFIG.ports,
             "slots": [rng.randrange(CONFIG.tenants) if rng.random() < load else None for load in slots]}
            for _ in range(cycles)]
    for number, total in enumerate(totals):
        side, port = ("arrived", "left")[number // CONFIG.ports], number % CONFIG.ports
        for index, cycle in enumerate(rng.sample(range(cycles), cycles), 1):
            beats = min(total, rng.choice([1, 8, rng.randint(1, 64), MAX_LENGTH])) if index < cycles else total
            if beats:
                part[cycle][side][port] = beats
                total -= beats
    return part


@pytest.mark.parametrize("seed", [1, 2])
def test_full_is_more_than_seven_eighths_of_the_beats_of_a_part(seed):
    """Just at the threshold, one beat above, far from it; parts of all lengths, packets of all lengths."""
    rng = random.Random(seed)

    def part():
        cycles = rng.choice([9, 16, 40, rng.randint(8, 64)])
        near = cycles * 7 // 8
        totals = [rng.choice([near, near + 1, near + 1, 0, cycles, MAX_LENGTH]) for _ in range(4)]
        return part_of(rng, cycles, totals, (rng.random(), 0.9))

    run([[part() for _ in range(rng.randint(1, 4))] for _ in range(14)])


@pytest.mark.slow
def test_sums_hold_more_than_the_largest_packet_in_every_cycle_of_a_long_part():
    """What 32 bits hold is not reached in a test; the longest packets in each cycle of a part take 21."""
    rng = random.Random(3)
    long = [{"arrived": [MAX_LENGTH, 1], "left": [None, MAX_LENGTH], "slots": [0, None]} for _ in range(600)]
    run([[long, part_of(rng, 40, [36, 35, 0, 36], (1, 0))], [part_of(rng, 40, [0] * 4, (0, 1))]] * 2)
