"""The engine array and the column in front of it: who may be granted, late grants, and that nobody blocks the port."""

import random
from collections import defaultdict

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.engine.array import EngineArray
from tests.gateware.engine.test_array import check_answers, check_order, give_slots
from tests.gateware.packets import Packet, Sink, beats_of, run_until

pytestmark = pytest.mark.slow

TENANTS = 4
SETTLED = 60   # cycles


class Column:
    """The fabric's engine column as the array may see it: a queue a tenant, and grants made ahead of the transfer.

    A grant is decided from `eligible` while fewer than `wanted` packets are on the way, of which each takes `path`
    cycles, and the port takes a beat a cycle.
    """

    def __init__(self, simulator, dut, config, requests, path, seed):
        self.queues = defaultdict(list)
        for request in requests:
            self.queues[request.fields["tenant"]].append(request)
        self.stalls = defaultdict(int)   # cycles in which the port did not take a beat, by tenant
        self.most = 0                    # packets on the way, once the table of the test is in force
        self._dut, self._config, self._path = dut, config, path
        self._granted, self._rng = [], random.Random(seed)
        self._cycle, self._coming = 0, []  # when each packet on the way counts no more, if that is known
        simulator.add_testbench(self._grant, background=True)
        simulator.add_testbench(self._transfer, background=True)

    async def _grant(self, ctx):
        feedback = self._dut.feedback
        while True:
            ctx.set(feedback.waiting, sum(bool(queue) << tenant for tenant, queue in self.queues.items()))
            _, _, eligible, wanted = await ctx.tick().sample(feedback.eligible, feedback.wanted)
            self._cycle += 1
            self._coming = [until for until in self._coming if until is None or until > self._cycle]
            able = [tenant for tenant, queue in self.queues.items() if queue and eligible >> tenant & 1]
            if able and len(self._coming) < wanted:
                self._coming.append(None)
                if self._cycle > SETTLED:
                    self.most = max(self.most, len(self._coming))
                self._granted.append((self._cycle + self._path, self.queues[self._rng.choice(able)].pop(0)))

    async def _transfer(self, ctx):
        header, data = self._dut.requests.header, self._dut.requests.data
        await ctx.tick().repeat(10)
        while True:
            if not self._granted or self._granted[0][0] > self._cycle:
                await ctx.tick()
                continue
            packet = self._granted.pop(0)[1]
            ctx.set(header.payload, packet.header())
            ctx.set(header.valid, 1)
            for word, empty, last in beats_of(packet.payload, self._config):
                ctx.set(data.payload, {"data": word, "empty": empty, "last": last})
                ctx.set(data.valid, 1)
                while True:
                    _, _, taken, header_taken = await ctx.tick().sample(data.ready, header.ready)
                    if header_taken and ctx.get(header.valid):
                        ctx.set(header.valid, 0)
                        self._coming[self._coming.index(None)] = self._cycle + 2
                    if taken:
                        break
                    self.stalls[packet.fields["tenant"]] += 1
                ctx.set(data.valid, 0)


def run(config, requests, slots_of, *, path=4, seed=0, until=None, course=None):
    dut = EngineArray(config)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

    async def setup(ctx):
        await give_slots(ctx, dut, slots_of)
        if course is not None:
            await course(ctx, dut)

    simulator.add_testbench(setup, background=True)
    column = Column(simulator, dut, config, requests, path, seed)
    sink = Sink(simulator, dut.responses, config)
    run_until(simulator, lambda: until(sink, column) if until else len(sink.packets) == len(requests))
    return sink, column


def numbered(lengths, rng):
    """Requests of (tenant, length), told apart by their first bytes and flow hash."""
    return [Packet(number.to_bytes(8, "little") + rng.randbytes(length - 8), {
        "tenant": tenant, "source": 0, "flow_hash": number}) for number, (tenant, length) in enumerate(lengths)]


@pytest.mark.parametrize("path", [1, 6])
@pytest.mark.parametrize("slot_bytes", [1, 4])
def test_a_backlogged_slot_holds_up_nobody_else(path, slot_bytes):
    """Tenant 1 fills its own slot with the largest requests; the others' small ones go through the other slot."""
    config = DeviceConfig(tenants=TENANTS, slots=2, slot_bytes=slot_bytes)
    rng = random.Random(path)
    small = numbered([(rng.choice([0, 2, 3]), 64) for _ in range(60)], rng)
    large = numbered([(1, config.max_packet_bytes)] * 12, rng)
    for number, request in enumerate(large):
        request.fields["flow_hash"] = 1000 + number
    own = {1: 0b01}
    sink, column = run(config, [*small, *large], own, path=path, until=lambda sink, _: sum(
        packet.fields["tenant"] != 1 for packet in sink.packets) == len(small))
    # A cycle passes between two packets; the chooser's one comes on top of it.
    assert max(column.stalls.values()) <= 2 * len(small)
    assert column.stalls[1] <= 2 * len(large)
    done = sum(packet.fields["tenant"] == 1 for packet in sink.packets)
    assert done < len(large), "the small requests waited for the large ones"
    assert column.queues[1], "the fabric is where requests wait"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("slots_of", [{}, {1: 0b01}, {0: 0b01, 1: 0b10}], ids=str)
@pytest.mark.parametrize("path", [1, 6])
def test_no_grant_that_was_allowed_ever_waits_at_the_port(slots_of, path):
    config = DeviceConfig(tenants=TENANTS, slots=2, slot_bytes=2)
    rng = random.Random(path)
    requests = numbered([(rng.randrange(TENANTS), rng.choice([8, 64, 300, 2048])) for _ in range(60)], rng)
    sink, column = run(config, requests, slots_of, path=path, seed=path)
    refused = [tenant for tenant in range(TENANTS)
               if not slots_of.get(tenant, 0b11 & ~sum(slots_of.values()))]
    check_answers(requests, sink.packets, refused)
    check_order(requests, sink.packets)
    assert sum(column.stalls.values()) <= 2 * len(requests)


def busy_shares(config, lengths, weights, slots_of, cycles):
    """Engine time of each tenant from 2000 to `cycles`, in cycles; those that are served have requests to the end."""
    busy, now = [0] * TENANTS, [0]
    dut = EngineArray(config)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

    async def setup(ctx):
        await give_slots(ctx, dut, slots_of, weights)

    async def watch(ctx):
        async for sample in ctx.tick().sample(*dut.busy):
            now[0] += 1
            for state in sample[2:]:
                busy[state.tenant] += state.busy * (now[0] >= 2000)

    simulator.add_testbench(setup, background=True)
    simulator.add_process(watch)
    requests = numbered([(tenant, length) for tenant, length in lengths.items() for _ in range(400)], random.Random(1))
    column = Column(simulator, dut, config, requests, 4, 1)
    Sink(simulator, dut.responses, config)
    run_until(simulator, lambda: now[0] >= cycles)
    assert all(column.queues[tenant] for tenant in range(TENANTS) if busy[tenant]), "a tenant ran out of requests"
    return busy


@pytest.mark.long
def test_shared_slots_are_shared_by_weight_and_engine_time_whatever_the_sizes_of_requests():
    config = DeviceConfig(tenants=TENANTS, slots=2)
    busy = busy_shares(config, {0: 32, 1: 256, 2: 256}, [1000, 3000, 2000, 0], {}, 14_000)
    assert [one / sum(busy) for one in busy] == pytest.approx([1 / 6, 1 / 2, 1 / 3, 0], abs=0.02)
    assert sum(busy) >= 0.97 * 2 * 12_000


def test_a_tenant_with_a_slot_of_its_own_has_all_of_it_and_takes_nothing_from_the_others():
    config = DeviceConfig(tenants=TENANTS, slots=2)
    busy = busy_shares(config, {0: 128, 1: 256, 2: 32}, [100, 3000, 1000, 0], {0: 0b01}, 10_000)
    assert busy[0] >= 0.97 * 8000
    assert busy[1] + busy[2] >= 0.97 * 8000
    assert busy[1] / busy[2] == pytest.approx(3, rel=0.06)


def test_requests_that_are_refused_hold_up_nobody_who_has_a_slot():
    config = DeviceConfig(tenants=TENANTS, slots=1)
    busy = busy_shares(config, {0: 128, 2: 16}, [1000] * TENANTS, {0: 0b1}, 6000)
    assert busy[0] >= 0.95 * 4000
    assert busy[2] == 0


@pytest.mark.parametrize("slots", [1, 2])
def test_one_request_is_granted_for_each_slot_that_is_free(slots):
    """Long requests: what was granted is at work or, when a slot is nearly free, on its way; no slot has a queue."""
    config = DeviceConfig(tenants=TENANTS, slots=slots, slot_bytes=1)
    requests = numbered([(tenant, 1024) for tenant in (0, 1, 2) for _ in range(8)], random.Random(slots))
    sink, column = run(config, requests, {}, until=lambda sink, _: len(sink.packets) >= 4)
    granted = len(requests) - sum(map(len, column.queues.values()))
    assert granted <= len(sink.packets) + 2 * slots
    assert column.most <= slots


def test_grants_on_their_way_when_their_slot_is_quiesced_are_served_by_it():
    config = DeviceConfig(tenants=TENANTS, slots=1, slot_bytes=1)
    requests = numbered([(0, 400)] * 12, random.Random(2))
    seen = {}

    async def course(ctx, dut):
        await ctx.tick().repeat(60)
        ctx.set(dut.bus.valid, 1)
        ctx.set(dut.bus.write, 1)
        ctx.set(dut.bus.address, (0x8000 + 8) // 4)
        ctx.set(dut.bus.w_data, 1)
        ctx.set(dut.bus.w_mask, 15)
        await ctx.tick().until(dut.bus.ready)
        ctx.set(dut.bus.valid, 0)
        await ctx.tick().repeat(4)
        assert ctx.get(dut.feedback.eligible) == 0
        await ctx.tick().repeat(6000)
        seen["quiet"] = True

    sink, column = run(config, requests, {}, until=lambda *_: seen.get("quiet"), course=course)
    taken = len(requests) - len(column.queues[0])
    assert 1 <= taken <= 4
    assert len(sink.packets) == taken, "a request that was granted was not served"


@pytest.mark.parametrize(("length", "rate"), [(8, 0.38), (16, 0.24)])
def test_short_requests_are_answered_nearly_as_fast_as_the_slots_can(length, rate):
    """Two slots of two bytes a cycle could do a request of 8 bytes every other cycle, one of 16 in four."""
    config = DeviceConfig(tenants=TENANTS, slots=2)
    requests = numbered([(number % TENANTS, length) for number in range(1000)], random.Random(length))
    sink, column = run(config, requests, {}, until=lambda sink, _: len(sink.packets) >= 600)
    first, last = sink.cycles[199], sink.cycles[599]
    assert 400 / (last - first) >= rate
    assert column.most <= 4
