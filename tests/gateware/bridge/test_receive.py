"""The buffer in front of the executor against a model: messages stay whole, in order, or are lost whole."""

import random

import pytest

from gateware.bridge.receive import MessageBuffer
from tests.gateware.simulation import simulate

DEPTH, LONGEST = 64, 30


def run_buffer(items, *, seed, pause):
    """Push (message, error) items while a reader takes messages, `pause` cycles between two.

    Returns what the reader saw: bytes, or None for a corrupt mark.
    """
    dut = MessageBuffer(depth=DEPTH, messages=4, max_bytes=LONGEST)
    rng = random.Random(seed)
    seen = []

    async def push(ctx):
        for message, error in items:
            for byte in message:
                ctx.set(dut.input.payload, {"data": byte, "end": 0, "error": 0})
                ctx.set(dut.input.valid, 1)
                await ctx.tick()
                if rng.random() < 0.2:
                    ctx.set(dut.input.valid, 0)
                    await ctx.tick()
            ctx.set(dut.input.payload, {"data": 0, "end": 1, "error": error})
            ctx.set(dut.input.valid, 1)
            await ctx.tick()
            ctx.set(dut.input.valid, 0)

    async def take(ctx):
        for _ in range(6000):
            await ctx.tick()
            if not ctx.get(dut.present):
                continue
            if ctx.get(dut.corrupt):
                seen.append(None)
            else:
                whole = await read(ctx)
                if rng.random() < 0.5:
                    ctx.set(dut.rewind, 1)
                    await ctx.tick()
                    ctx.set(dut.rewind, 0)
                    assert await read(ctx) == whole[3:], "a rewound message differs"
                seen.append(whole)
            for _ in range(rng.randrange(pause + 1)):
                await ctx.tick()
            ctx.set(dut.release, 1)
            await ctx.tick()
            ctx.set(dut.release, 0)

    async def read(ctx):
        data = bytearray()
        while ctx.get(dut.remaining):
            ready = rng.random() < 0.7
            ctx.set(dut.output.ready, ready)
            _, _, valid, byte = await ctx.tick().sample(dut.output.valid, dut.output.payload)
            if valid and ready:
                data.append(byte)
        ctx.set(dut.output.ready, 0)
        return bytes(data)

    simulate(dut, take, background=[push])
    return seen


def random_items(seed, count):
    """Messages that tell their number, some of them in error."""
    rng = random.Random(seed)
    return [(bytes([number]) * 2 + rng.randbytes(rng.randrange(1, LONGEST - 1)), rng.random() < 0.2)
            for number in range(count)]


@pytest.mark.parametrize("seed", [1, 2])
def test_messages_and_marks_come_in_order_when_there_is_room(seed):
    items = random_items(seed, 3)
    assert run_buffer(items, seed=seed, pause=0) == [None if error else message for message, error in items]


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_message_without_room_is_lost_whole_and_no_other_is_harmed(seed):
    items = random_items(seed, 60)
    seen = run_buffer(items, seed=seed, pause=60)
    messages = [message for message, error in items if not error]
    found = [message for message in seen if message is not None]
    assert set(found) <= set(messages)
    assert found == [message for message in messages if message in found]
    assert 0 < len(found) < len(messages)


@pytest.mark.parametrize(("options", "text"), [
    ({"depth": 48}, "depth must be a power of two"), ({"depth": 32, "max_bytes": 30}, "depth must be"),
    ({"messages": 1}, "messages must be at least 2"),
])
def test_sizes_that_cannot_work_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        MessageBuffer(**options)
