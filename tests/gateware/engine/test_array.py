"""The engine array: every request answered, a tenant's responses in order, slots by ownership, quiesce, counters."""

import random
from collections import defaultdict

import google_crc32c
import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.csr import regmap
from gateware.engine.array import EngineArray
from tests.gateware.csr.initiator import access
from tests.gateware.packets import Pace, Packet, Sink, add_source, run_until

TENANTS = 4
SLOT = regmap.node("slot")


def requests_of(rng, count, tenants, longest=120):
    """Requests whose first eight bytes number them, so that a response is told from every other."""
    return [Packet(number.to_bytes(8, "little") + rng.randbytes(rng.randint(0, longest)), {
        "tenant": rng.choice(tenants), "source": rng.randrange(3), "flow_hash": number, "epoch": rng.randrange(256)})
        for number in range(count)]


async def give_slots(ctx, dut, slots_of, weights=(1000,) * TENANTS, bank=1):
    """Write a table into `bank`, as the resource manager does, and commit it."""
    for tenant in range(TENANTS):
        ctx.set(dut.allocation.tenant, tenant)
        ctx.set(dut.allocation.bank, bank)
        ctx.set(dut.allocation.row.slots, slots_of.get(tenant, 0))
        ctx.set(dut.allocation.row.weight, weights[tenant])
        ctx.set(dut.allocation.write, 1)
        await ctx.tick()
    ctx.set(dut.allocation.write, 0)
    ctx.set(dut.allocation.active_bank, bank)
    await ctx.tick()


def serve(config, requests, slots_of, *, idle=0.0, stall=0.0, seed=0):
    """Responses of the array, and how many cycles each slot was busy for each tenant."""
    dut = EngineArray(config)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    busy = defaultdict(int)

    async def setup(ctx):
        await give_slots(ctx, dut, slots_of)

    async def watch(ctx):
        async for sample in ctx.tick().sample(*dut.busy):
            for slot, state in enumerate(sample[2:]):
                if state.busy:
                    busy[slot, state.tenant] += 1


    simulator.add_testbench(setup)
    simulator.add_process(watch)
    add_source(simulator, dut.requests, requests, config, Pace(idle, seed), after=10)
    sink = Sink(simulator, dut.responses, config, Pace(stall, seed + 1))
    run_until(simulator, lambda: len(sink.packets) == len(requests))
    return sink, busy


def check_answers(requests, responses, refused=()):
    by_number = {response.fields["flow_hash"]: response for response in responses}
    assert len(by_number) == len(requests) == len(responses)
    for request in requests:
        response = by_number[request.fields["flow_hash"]]
        served = request.fields["tenant"] not in refused
        crc = google_crc32c.value(request.payload) if served else 0
        assert response.payload == (request.payload[:8] + crc.to_bytes(4, "little")
                                    + bytes([not served, served, 0, 0]))
        assert response.fields["tenant"] == request.fields["tenant"]
        assert response.fields["destination"] == request.fields["source"]
        assert response.fields["epoch"] == request.fields.get("epoch", 0), "not under its request's epoch"


def check_order(requests, responses):
    for tenant in range(TENANTS):
        asked = [packet.fields["flow_hash"] for packet in requests if packet.fields["tenant"] == tenant]
        answered = [packet.fields["flow_hash"] for packet in responses if packet.fields["tenant"] == tenant]
        assert answered == asked, f"responses of tenant {tenant} out of order"


@pytest.mark.slow
@pytest.mark.parametrize(("idle", "stall", "seed"), [(0, 0, 0), (0.4, 0, 1), (0, 0.5, 2)])
@pytest.mark.parametrize("slots_of", [{}, {1: 0b01}, {1: 0b01, 2: 0b110}, {0: 0b111}], ids=str)
def test_every_request_is_answered_in_order_by_the_slots_of_its_tenant(slots_of, idle, stall, seed):
    config = DeviceConfig(tenants=TENANTS, slots=3)
    rng = random.Random(seed)
    requests = requests_of(rng, 30, range(TENANTS))
    sink, busy = serve(config, requests, slots_of, idle=idle, stall=stall, seed=seed)
    shared = 0b111 & ~sum(slots_of.values())
    refused = [tenant for tenant in range(TENANTS) if not slots_of.get(tenant, shared)]
    check_answers(requests, sink.packets, refused)
    check_order(requests, sink.packets)
    for slot, tenant in busy:
        assert slots_of.get(tenant, shared) >> slot & 1, f"tenant {tenant} in slot {slot}"
    for tenant in set(range(TENANTS)) - set(refused):
        assert any(key[1] == tenant for key in busy)


@pytest.mark.slow
def test_long_and_short_requests_of_one_tenant_stay_in_order():
    config = DeviceConfig(tenants=TENANTS)
    rng = random.Random(5)
    requests = [Packet(number.to_bytes(8, "little") + rng.randbytes(1200 if number % 3 == 0 else 4), {
        "tenant": 0, "source": 0, "flow_hash": number}) for number in range(24)]
    sink, busy = serve(config, requests, {})
    check_answers(requests, sink.packets)
    check_order(requests, sink.packets)
    assert {slot for slot, _ in busy} == {0, 1}, "both slots work for the one tenant"


@pytest.mark.slow
def test_two_slots_match_the_rate_of_a_64_bit_port():
    config = DeviceConfig(tenants=TENANTS, slot_bytes=4)
    rng = random.Random(6)
    requests = [Packet(number.to_bytes(8, "little") + rng.randbytes(120), {
        "tenant": 0, "source": 0, "flow_hash": number}) for number in range(40)]
    sink, _ = serve(config, requests, {})
    assert sink.cycles[-1] - sink.cycles[0] <= 1.05 * 39 * 16


@pytest.mark.slow
def test_quiesced_slot_takes_nothing_new_and_reports_drained():
    config = DeviceConfig(tenants=TENANTS, slot_bytes=4)
    dut = EngineArray(config)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    rng = random.Random(7)
    requests = requests_of(rng, 40, range(TENANTS))
    sink = Sink(simulator, dut.responses, config)
    add_source(simulator, dut.requests, requests, config)
    base, seen = SLOT.address, {}
    offsets = {register.name: register.offset for register in SLOT.registers}

    async def read(ctx, slot, name):
        error, value, _ = await access(ctx, dut.bus, base + slot * SLOT.stride + offsets[name])
        assert not error
        return value

    async def software(ctx):
        await give_slots(ctx, dut, {})
        await access(ctx, dut.bus, base + offsets["control"], 1)
        while not await read(ctx, 0, "status") & 2:
            await ctx.tick()
        seen["taken"] = await read(ctx, 0, "requests")
        while len(sink.packets) < len(requests):
            await ctx.tick()
        seen["requests"] = [await read(ctx, slot, "requests") for slot in range(2)]
        seen["busy_cycles"] = [await read(ctx, slot, "busy_cycles") for slot in range(2)]
        seen["shard"] = await read(ctx, 0, "shard")
        seen["status"] = [await read(ctx, slot, "status") for slot in range(2)]

    simulator.add_testbench(software)
    simulator.run()
    check_answers(requests, sink.packets)
    assert seen["taken"] < len(requests) // 4, "the slot was not drained before the others did the rest"
    assert seen["requests"][0] == seen["taken"], "the quiesced slot took a request"
    assert sum(seen["requests"]) == len(requests)
    assert seen["shard"] == 1
    assert seen["status"] == [2, 0]
    # A word a cycle, and each further byte of a length that is no multiple of four.
    least = sum(len(request.payload) // 4 + len(request.payload) % 4 for request in requests)
    assert least <= sum(seen["busy_cycles"]) <= 1.5 * least


@pytest.mark.slow
def test_commit_while_requests_wait_loses_and_reorders_nothing():
    config = DeviceConfig(tenants=TENANTS)
    dut = EngineArray(config)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    rng = random.Random(8)
    requests = requests_of(rng, 80, range(TENANTS))
    sink = Sink(simulator, dut.responses, config, Pace(0.3, 1))
    add_source(simulator, dut.requests, requests, config)

    async def commits(ctx):
        tables = [{}, {0: 1}, {1: 2}, {0: 1, 2: 2}, {3: 3}]
        for number in range(1000):
            await give_slots(ctx, dut, tables[number % len(tables)], bank=(number + 1) % 3)
            for _ in range(rng.randint(1, 60)):
                await ctx.tick()

    simulator.add_testbench(commits, background=True)
    run_until(simulator, lambda: len(sink.packets) == len(requests))
    check_order(requests, sink.packets)
    assert len({packet.fields["flow_hash"] for packet in sink.packets}) == len(requests)
    statuses = {packet.payload[12] for packet in sink.packets}
    assert statuses == {0, 1}


@pytest.mark.slow
def test_backlog_beyond_a_queue_waits_and_loses_nothing():
    config = DeviceConfig(tenants=TENANTS, slots=1)
    rng = random.Random(9)
    requests = [Packet(number.to_bytes(8, "little") + rng.randbytes(length), {
        "tenant": number % 2, "source": 0, "flow_hash": number})
        for number, length in enumerate([1000, 900, 2040, 200, 1000, *[4] * 24])]
    sink, _ = serve(config, requests, {})
    check_answers(requests, sink.packets)
    check_order(requests, sink.packets)
