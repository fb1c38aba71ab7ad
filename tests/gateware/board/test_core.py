"""What a board adds to the device: the number of a start, and lamps."""

import pytest

from gateware.board.core import BoardCore, BootNonce, Stretcher
from gateware.config import DeviceConfig
from tests.gateware.simulation import simulate


@pytest.mark.parametrize("quiet", [1, 7, 100])
def test_nonce_is_the_cycle_of_the_first_fall_and_stays(quiet):
    dut = BootNonce()
    found = []

    async def testbench(ctx):
        await ctx.tick().repeat(quiet)
        assert ctx.get(dut.nonce) == 0
        for level in (0, 0, 1, 0, 1, 1, 0):
            ctx.set(dut.line, level)
            await ctx.tick()
            found.append(ctx.get(dut.nonce))

    simulate(dut, testbench)
    assert found == [quiet + 1] * len(found)


@pytest.mark.parametrize("cycles", [1, 2, 5, 8])
def test_lamp_is_high_for_its_cycles_behind_the_last_event(cycles):
    events = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1] + [0] * 12
    dut = Stretcher(cycles)
    seen = []

    async def testbench(ctx):
        for event in events:
            ctx.set(dut.event, event)
            await ctx.tick()
            seen.append(ctx.get(dut.lamp))

    simulate(dut, testbench)
    expected = [int(any(events[max(0, at - cycles + 1):at + 1])) for at in range(len(events))]
    assert seen == expected


def test_bad_parameters_are_refused():
    with pytest.raises(ValueError, match="cycles must be at least 1, not 0"):
        Stretcher(0)
    with pytest.raises(ValueError, match=r"uid must be in 0..2\*\*64-1, not -1"):
        BoardCore(DeviceConfig(), 0, -1)
