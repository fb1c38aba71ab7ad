"""Windows on the telemetry stream: whole or skipped, however the consumer takes them."""

import random

import pytest

from gateware.analyzer.push import HEADER_WORDS, SCHEMA, WindowPush
from gateware.config import DeviceConfig
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(tenants=3)
WORDS = 16 * CONFIG.tenants
INFO = {"number": 32, "start": 64, "cycles": 32, "epoch": 8, "tag": 32}


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "ready", "enabled"), [
    (1, 1.0, 1.0), (2, 0.5, 0.8), (3, 0.1, 1.0), (4, 0.9, 0.5), (5, 0.45, 1.0)])
def test_windows_are_sent_whole_and_those_that_find_it_busy_are_skipped_and_counted(seed, ready, enabled):
    rng = random.Random(seed)
    dut, sent, expected = WindowPush(CONFIG), [], []
    state = {"busy": False, "skipped": 0, "refused": 0}

    async def drive(ctx):
        for _ in range(30):
            info = {name: rng.getrandbits(bits) for name, bits in INFO.items()}
            words = [rng.getrandbits(32) for _ in range(WORDS)]
            enable = rng.random() < enabled
            ctx.set(dut.enable, enable)
            ctx.set(dut.info, info)
            ctx.set(dut.complete, 1)
            if enable and not state["busy"]:
                state["busy"] = True
                expected.append([SCHEMA | CONFIG.tenants, info["number"], info["start"] & 0xFFFFFFFF,
                                 info["start"] >> 32, info["cycles"], info["epoch"], state["skipped"], info["tag"],
                                 *words])
            elif enable:
                state["skipped"] += 1
            await ctx.tick()
            assert ctx.get(dut.skipped) == state["skipped"]
            ctx.set(dut.complete, 0)
            ctx.set(dut.info, {name: rng.getrandbits(bits) for name, bits in INFO.items()})
            if rng.random() < 0.5:
                ctx.set(dut.enable, rng.random() < 0.5)   # it counts when the window is complete
            for index in rng.sample(range(WORDS), WORDS):
                while rng.random() < 0.3:
                    await ctx.tick()
                ctx.set(dut.word_valid, 1)
                ctx.set(dut.word_index, index)
                ctx.set(dut.word, words[index])
                await ctx.tick()
                ctx.set(dut.word_valid, 0)
                ctx.set(dut.word, rng.getrandbits(32))
            ctx.set(dut.published, 1)
            await ctx.tick()
            ctx.set(dut.published, 0)
            await ctx.tick().repeat(rng.choice([1, 100, 250]))

    async def take(ctx):
        words, before = [], None
        while True:
            taken = rng.random() < ready
            ctx.set(dut.telemetry.ready, taken)
            _, _, valid, payload = await ctx.tick().sample(dut.telemetry.valid, dut.telemetry.payload)
            assert before in (None, (valid, payload)), "what is offered stays until it is taken"
            before = (valid, payload) if valid and not taken else None
            if valid and taken:
                words.append(payload.data)
                if payload.last:
                    sent.append(words)
                    words = []
                    state["busy"] = False

    simulate(dut, drive, background=[take])
    assert sent == expected[:len(sent)], f"seed {seed}"
    assert len(expected) - len(sent) <= 1
    assert len(sent) > 3
    assert {len(words) for words in sent} == {HEADER_WORDS + WORDS}
    if ready < 0.5:
        assert state["skipped"], "the stimulus misses a case"
