"""The write engine against a host memory, under pauses, refusals and a table that changes."""

import random

import pytest

from gateware.pcie.dma import Outcome
from gateware.pcie.dma_write import DmaWriter
from gateware.pcie.tlp import RequestKind
from tests.gateware.pcie.dma_model import (
    BASE,
    Guarded,
    bus_of,
    check_request,
    command_bits,
    draw,
    grant_all,
    reports_of,
)
from tests.gateware.pcie.test_protection import grant_region
from tests.gateware.pcie.tlps import collect, request_layout, sink, source, until
from tests.gateware.simulation import simulate


def packed(data, width):
    size = width // 8
    return [int.from_bytes(data[start:start + size], "little") for start in range(0, len(data), size)]


def written(tlp):
    """Bytes that a write changes: address -> value."""
    enabled = [tlp.first_be if index == 0 else tlp.last_be if index == tlp.length - 1 else 0xF
               for index in range(tlp.length)]
    return {4 * tlp.address + place: value for place, value in enumerate(tlp.payload)
            if enabled[place // 4] >> place % 4 & 1}


def run(width, commands, data, max_payload, rng, idle=0.0, busy=0.0, during=None):
    """Carry out `commands`; requests and reports as they left."""
    dut = Guarded(DmaWriter(width))
    engine, requests, reports = dut.engine, [], []

    async def test(ctx):
        ctx.set(engine.max_payload, max_payload)
        await grant_all(ctx, dut, write=True)
        await source(engine.commands, [command_bits(command) for command in commands])(ctx)
        await until(ctx, lambda: len(reports) == len(commands), 30_000)
        await ctx.tick().repeat(20)

    async def meanwhile(ctx):
        if during:
            await during(ctx, dut, requests)

    simulate(dut, test, meanwhile, background=[
        source(engine.data, data, lambda: rng.random() < idle),
        sink(engine.reports, reports, lambda: rng.random() < busy),
        sink(engine.requests, requests, lambda: rng.random() < busy)])
    return collect(requests, request_layout(width), width), reports_of(reports)


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 128, 256, 512])
@pytest.mark.parametrize(("idle", "busy", "max_payload"), [(0, 0, 1), (0.4, 0, 0), (0, 0.4, 5), (0.3, 0.3, 1)])
def test_random_commands_write_their_bytes_and_no_others(width, idle, busy, max_payload):
    seed = width + int(10 * idle + 100 * busy)
    print("seed", seed)
    rng = random.Random(seed)
    drawn = [draw(rng, number) for number in range(40)]
    payloads = [rng.randbytes(command["length"]) for command, _ in drawn]
    data = [beat for payload in payloads for beat in packed(payload, width)]
    requests, reports = run(width, [command for command, _ in drawn], data, max_payload, rng, idle, busy)
    assert reports == [(command["tag"], outcome) for command, outcome in drawn]
    queue = iter(requests)
    for (command, outcome), payload in zip(drawn, payloads, strict=True):
        if outcome is not Outcome.DONE:
            continue
        start, end = bus_of(command["tenant"], command["address"]), command["length"]
        done = 0
        while done < end:
            tlp = next(queue)
            address, size = check_request(tlp, RequestKind.WRITE, 128 << max_payload)
            assert address == start + done
            assert written(tlp) == dict(enumerate(payload[done:done + size], address))
            done += size
        assert done == end
    assert next(queue, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("delay", [1, 7, 20, 33, 60, 200])
def test_a_command_whose_region_is_taken_back_stops_and_the_next_tenant_goes_on(delay):
    command = {"tenant": 1, "generation": 5, "address": BASE + 3, "length": 1000, "tag": 1}
    other = command | {"tenant": 0, "tag": 2}
    rng = random.Random(delay)
    marks = []

    async def during(ctx, dut, requests):
        await until(ctx, lambda: requests)
        await ctx.tick().repeat(delay)
        await grant_region(ctx, dut, 1, 3)  # nothing any more
        marks.append(len(requests))

    requests, reports = run(64, [command, other], packed(bytes(2000), 64), 0, rng, during=during)
    mine = [tlp for tlp in requests if 4 * tlp.address >= 0x7_0000_0000]
    assert reports[1] == (2, Outcome.DONE)
    assert sum(len(written(tlp)) for tlp in requests if tlp not in mine) == 1000
    if delay < 100:
        assert reports[0] == (1, Outcome.REVOKED)
        assert sum(len(written(tlp)) for tlp in mine) < 1000
        # What had begun before the first word of the row was written is finished, and nothing else.
        assert len(requests) - len(mine) > 0
    else:
        assert reports[0] == (1, Outcome.DONE)


def test_a_beat_leaves_in_every_cycle_and_two_are_lost_between_commands():
    dut, cycles, requests, reports = Guarded(DmaWriter(64)), [], [], []
    commands = [{"tenant": 0, "generation": 5, "address": BASE + 0x1000 * index, "length": 0x1000, "tag": index}
                for index in range(3)]

    async def watch(ctx):
        cycle = 0
        async for _, _, valid in ctx.tick().sample(dut.engine.requests.valid):
            cycle += 1
            if valid:
                cycles.append(cycle)

    async def test(ctx):
        ctx.set(dut.engine.max_payload, 1)
        await grant_all(ctx, dut, write=True)
        await source(dut.engine.commands, [command_bits(command) for command in commands])(ctx)
        await until(ctx, lambda: len(reports) == 3)

    simulate(dut, test, background=[watch, source(dut.engine.data, packed(bytes(3 * 0x1000), 64)),
                                    sink(dut.engine.requests, requests), sink(dut.engine.reports, reports)])
    assert len(cycles) == 3 * 512
    assert cycles[-1] - cycles[0] + 1 - len(cycles) <= 2 * 3
