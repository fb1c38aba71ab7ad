"""The combinational CRC-32C step against google-crc32c, at every width a block uses."""

import random

import google_crc32c
import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from gateware.bridge.crc32c import CRC32C_FINAL, CRC32C_INIT, CRC32C_RESIDUE, crc32c_step


def run_step(data_bytes, messages):
    """Registers that the step gives for whole `messages`, whose length is a multiple of `data_bytes`."""
    m = Module()
    state, data, result = Signal(32), Signal(8 * data_bytes), Signal(32)
    m.d.comb += result.eq(crc32c_step(state, data))
    results = []

    async def bench(ctx):
        for message in messages:
            register = CRC32C_INIT
            for start in range(0, len(message), data_bytes):
                ctx.set(state, register)
                ctx.set(data, int.from_bytes(message[start:start + data_bytes], "little"))
                await ctx.delay(1e-9)
                register = ctx.get(result)
            results.append(register)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return results


@pytest.mark.slow
@pytest.mark.parametrize("data_bytes", [1, 2, 3, 4, 5, 8, 16])
def test_step_matches_reference(data_bytes):
    rng = random.Random(data_bytes)
    messages = [rng.randbytes(data_bytes * rng.randrange(1, 9)) for _ in range(40)]
    expected = [google_crc32c.value(message) for message in messages]
    assert [register ^ CRC32C_FINAL for register in run_step(data_bytes, messages)] == expected


def test_check_value_of_the_standard():
    assert run_step(1, [b"123456789"])[0] ^ CRC32C_FINAL == 0xE3069283


def test_message_with_its_checksum_leaves_the_residue():
    messages = [bytes([index]) * index for index in range(1, 20)]
    framed = [message + google_crc32c.value(message).to_bytes(4, "little") for message in messages]
    assert set(run_step(1, framed)) == {CRC32C_RESIDUE}


@pytest.mark.parametrize(("state", "data", "text"), [
    (Signal(31), Signal(8), "state must be 32 bits wide, not 31"),
    (Signal(32), Signal(9), "whole number of bytes"),
    (Signal(32), Signal(0), "whole number of bytes"),
])
def test_wrong_width_is_refused(state, data, text):
    with pytest.raises(ValueError, match=text):
        crc32c_step(state, data)
