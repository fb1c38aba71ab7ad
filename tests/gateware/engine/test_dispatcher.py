"""Dispatcher: which slot gets a request, and the request word that goes to its ticket."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.engine.dispatcher import Dispatcher
from gateware.engine.slot import QUEUED_REQUESTS
from tests.gateware.packets import Pace, Packet, add_source, run_until

SLOTS = 3


def best(usable, quiesce, load, far):
    """The target by the contract; None: the packet waits."""
    if not usable:
        return SLOTS
    able = [slot for slot in range(SLOTS) if usable >> slot & 1 and load[slot] < QUEUED_REQUESTS]

    def rank(slot):
        if quiesce >> slot & 1:
            return (9, slot)
        if load[slot] == 0:
            return (0, slot)
        return (1 + 3 * (far >> slot & 1) + (load[slot] != 1), slot)

    return min(able, key=rank) if able else None


@pytest.mark.parametrize("seed", range(4))
def test_target_is_the_slot_that_answers_soonest(seed):
    dut, rng = Dispatcher(DeviceConfig(tenants=4, slots=SLOTS)), random.Random(seed)

    async def testbench(ctx):
        ctx.set(dut.requests.header.payload, {"tenant": 1, "length": 64})
        for _ in range(400):
            usable, quiesce, far = rng.randrange(8), rng.choice([0, 0, rng.randrange(8)]), rng.randrange(8)
            load = [rng.choice([0, 1, 2, 3, QUEUED_REQUESTS]) for _ in range(SLOTS)]
            full = rng.random() < 0.1
            ctx.set(dut.usable, usable)
            ctx.set(dut.quiesce, quiesce)
            ctx.set(dut.far, far)
            ctx.set(dut.full, full)
            for slot in range(SLOTS):
                ctx.set(dut.load[slot], load[slot])
            target = best(usable, quiesce, load, far)
            assert ctx.get(dut.requests.header.ready) == (target is not None and not full)
            if target is not None:
                assert ctx.get(dut.target) == target
            await ctx.delay(1e-9)

    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("data_width", [32, 64, 128])
@pytest.mark.parametrize("idle", [0, 0.5])
def test_request_word_is_the_first_eight_bytes_and_zero_beyond_the_end(data_width, idle):
    config = DeviceConfig(tenants=4, slots=SLOTS, data_width=data_width)
    dut, rng = Dispatcher(config), random.Random(data_width)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    packets = [Packet(rng.randbytes(length), {"tenant": length % 4}) for length in [*range(1, 20), 64, 3, 200]]
    words, tags, current = [], [], 0

    async def watch(ctx):
        nonlocal current
        async for _, _, enable, word, tenant, last in ctx.tick().sample(
                dut.word_enable, dut.word, dut.word_tenant,
                dut.requests.data.valid & dut.requests.data.ready & dut.requests.data.payload.last):
            for half in range(2):
                if enable >> half & 1:
                    mask = 0xFFFFFFFF << 32 * half
                    current = current & ~mask | word & mask
            if enable:
                tags.append(tenant)
            if last:
                words.append(current)

    async def sink(ctx):
        for slot in dut.slots:
            ctx.set(slot.header.ready, 1)
            ctx.set(slot.data.ready, 1)

    simulator.add_testbench(sink)
    simulator.add_process(watch)
    add_source(simulator, dut.requests, packets, config, Pace(idle, 1))
    run_until(simulator, lambda: len(words) == len(packets))
    assert words == [int.from_bytes(packet.payload[:8], "little") for packet in packets]
    assert set(tags) == {0, 1, 2, 3}
