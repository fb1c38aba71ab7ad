"""Skid buffers against the identity, under every mix of idle source and busy sink."""

import random

import pytest
from amaranth.hdl import unsigned

from gateware.stream.skid import ReadyBuffer, SkidBuffer
from tests.gateware.simulation import simulate


def exchange(buffer, words, idle, busy, cycles):
    """Sends `words` through a buffer; returns [(cycle, word)] as sent and as received."""
    dut = buffer(unsigned(8))
    sent, received = [], []

    async def watch(ctx):
        held = None
        ticks = ctx.tick().sample(dut.i.valid, dut.i.ready, dut.i.payload, dut.o.valid, dut.o.ready, dut.o.payload)
        cycle = 0
        async for _, _, i_valid, i_ready, i_word, o_valid, o_ready, o_word in ticks:
            if i_valid and i_ready:
                sent.append((cycle, i_word))
            assert held is None or (o_valid and o_word == held), "an offer was withdrawn or changed"
            held = o_word if o_valid and not o_ready else None
            if o_valid and o_ready:
                received.append((cycle, o_word))
            cycle += 1

    async def drive(ctx):
        queue = list(words)
        offering = False
        for _ in range(cycles):
            if queue and not offering:
                offering = not idle()
            ctx.set(dut.i.valid, offering)
            ctx.set(dut.i.payload, queue[0] if offering else 0)
            ctx.set(dut.o.ready, not busy())
            _, _, ready = await ctx.tick().sample(dut.i.ready)
            if offering and ready:
                queue.pop(0)
                offering = False

    simulate(dut, drive, background=[watch])
    return sent, received


@pytest.mark.slow
@pytest.mark.parametrize("buffer", [SkidBuffer, ReadyBuffer])
@pytest.mark.parametrize("idle", [0, 0.3, 0.8])
@pytest.mark.parametrize("busy", [0, 0.3, 0.8])
def test_buffer_keeps_every_word_in_order(buffer, idle, busy):
    rng = random.Random(int(100 * idle + 7 * busy))
    words = [rng.randrange(256) for _ in range(200)]
    sent, received = exchange(buffer, words, lambda: rng.random() < idle, lambda: rng.random() < busy, 3000)
    assert [word for _, word in sent] == words
    assert [word for _, word in received] == words


@pytest.mark.parametrize(("buffer", "latency"), [(SkidBuffer, 1), (ReadyBuffer, 0)])
def test_buffer_moves_a_word_a_cycle_and_delays_it_by_its_latency(buffer, latency):
    words = list(range(50))
    sent, received = exchange(buffer, words, lambda: False, lambda: False, 60)
    assert [cycle for cycle, _ in received] == [cycle + latency for cycle, _ in sent]
    assert sent[-1][0] - sent[0][0] == len(words) - 1


@pytest.mark.parametrize(("buffer", "taken"), [(SkidBuffer, [1, 2]), (ReadyBuffer, [1])])
def test_buffer_takes_its_capacity_when_the_sink_is_stopped(buffer, taken):
    sent, received = exchange(buffer, [1, 2, 3], lambda: False, lambda: True, 20)
    assert [word for _, word in sent] == taken
    assert received == []
