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


class Column:
    """The fabric's engine column as the array may see it: a queue a tenant, and grants made ahead of the transfer.

    A grant is decided from `eligible` while up to `ahead` granted packets wait for the port, which takes a beat a
    cycle: `ahead` 2 is the latest that the array has to bear.
    """

    def __init__(self, simulator, dut, config, requests, ahead, seed):
        self.queues = defaultdict(list)
        for request in requests:
            self.queues[request.fields["tenant"]].append(request)
        self.stalls = defaultdict(int)   # cycles in which the port did not take a beat, by tenant
        self.charges = defaultdict(int)
        self._dut, self._config, self._ahead = dut, config, ahead
        self._granted, self._rng = [], random.Random(seed)
        simulator.add_testbench(self._grant, background=True)
        simulator.add_testbench(self._transfer, background=True)
        simulator.add_process(self._watch)

    async def _watch(self, ctx):
        feedback = self._dut.feedback
        async for _, _, charged, tenant, cost in ctx.tick().sample(feedback.charged, feedback.tenant, feedback.cost):
            if charged:
                self.charges[tenant] += cost

    async def _grant(self, ctx):
        while True:
            _, _, eligible = await ctx.tick().sample(self._dut.feedback.eligible)
            able = [tenant for tenant, queue in self.queues.items() if queue and eligible >> tenant & 1]
            if able and len(self._granted) < self._ahead:
                self._granted.append(self.queues[self._rng.choice(able)].pop(0))

    async def _transfer(self, ctx):
        header, data = self._dut.requests.header, self._dut.requests.data
        await ctx.tick().repeat(10)
        while True:
            if not self._granted:
                await ctx.tick()
                continue
            packet = self._granted.pop(0)
            ctx.set(header.payload, packet.header())
            ctx.set(header.valid, 1)
            for word, empty, last in beats_of(packet.payload, self._config):
                ctx.set(data.payload, {"data": word, "empty": empty, "last": last})
                ctx.set(data.valid, 1)
                while True:
                    _, _, taken, header_taken = await ctx.tick().sample(data.ready, header.ready)
                    if header_taken:
                        ctx.set(header.valid, 0)
                    if taken:
                        break
                    self.stalls[packet.fields["tenant"]] += 1
                ctx.set(data.valid, 0)


def run(config, requests, slots_of, *, ahead=2, seed=0, until=None, course=None):
    dut = EngineArray(config)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

    async def setup(ctx):
        await give_slots(ctx, dut, slots_of)
        if course is not None:
            await course(ctx, dut)

    simulator.add_testbench(setup, background=True)
    column = Column(simulator, dut, config, requests, ahead, seed)
    sink = Sink(simulator, dut.responses, config)
    run_until(simulator, lambda: until(sink, column) if until else len(sink.packets) == len(requests))
    return sink, column


def numbered(lengths, rng):
    """Requests of (tenant, length), told apart by their first bytes and flow hash."""
    return [Packet(number.to_bytes(8, "little") + rng.randbytes(length - 8), {
        "tenant": tenant, "source": 0, "flow_hash": number}) for number, (tenant, length) in enumerate(lengths)]


@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("slot_bytes", [1, 4])
def test_a_backlogged_slot_holds_up_nobody_else(ahead, slot_bytes):
    """Tenant 1 fills its own slot with the largest requests; the others' small ones go through the other slot."""
    config = DeviceConfig(tenants=TENANTS, slots=2, slot_bytes=slot_bytes)
    rng = random.Random(ahead)
    small = numbered([(rng.choice([0, 2, 3]), 64) for _ in range(60)], rng)
    large = numbered([(1, config.max_packet_bytes)] * 12, rng)
    for number, request in enumerate(large):
        request.fields["flow_hash"] = 1000 + number
    own = {1: 0b01}
    sink, column = run(config, [*small, *large], own, ahead=ahead, until=lambda sink, _: sum(
        packet.fields["tenant"] != 1 for packet in sink.packets) == len(small))
    # A cycle passes between two packets; the chooser's one comes on top of it.
    assert max(column.stalls.values()) <= 2 * len(small)
    assert column.stalls[1] <= 2 * len(large)
    done = sum(packet.fields["tenant"] == 1 for packet in sink.packets)
    assert done < len(large), "the small requests waited for the large ones"
    assert column.queues[1], "the fabric is where requests wait"


@pytest.mark.slow
@pytest.mark.parametrize("slots_of", [{}, {1: 0b01}, {0: 0b01, 1: 0b10}], ids=str)
@pytest.mark.parametrize("ahead", [1, 2])
def test_no_grant_that_was_allowed_ever_waits_at_the_port(slots_of, ahead):
    config = DeviceConfig(tenants=TENANTS, slots=2, slot_bytes=2)
    rng = random.Random(ahead)
    requests = numbered([(rng.randrange(TENANTS), rng.choice([8, 64, 300, 2048])) for _ in range(60)], rng)
    sink, column = run(config, requests, slots_of, ahead=ahead, seed=ahead)
    refused = [tenant for tenant in range(TENANTS)
               if not slots_of.get(tenant, 0b11 & ~sum(slots_of.values()))]
    check_answers(requests, sink.packets, refused)
    check_order(requests, sink.packets)
    assert sum(column.stalls.values()) <= 2 * len(requests)


@pytest.mark.parametrize("seed", range(2))
def test_each_tenant_is_charged_what_the_engines_worked_for_it(seed):
    config = DeviceConfig(tenants=TENANTS, slots=2)
    rng = random.Random(seed)
    requests = numbered([(rng.randrange(2), rng.choice([32, 64, 1000])) for _ in range(40)], rng)
    busy = [0] * TENANTS
    dut = EngineArray(config)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

    async def setup(ctx):
        await give_slots(ctx, dut, {0: 0b01, 1: 0b10})

    async def watch(ctx):
        async for sample in ctx.tick().sample(*dut.busy):
            for state in sample[2:]:
                busy[state.tenant] += state.busy

    simulator.add_testbench(setup, background=True)
    simulator.add_process(watch)
    column = Column(simulator, dut, config, requests, 2, seed)
    sink = Sink(simulator, dut.responses, config)
    run_until(simulator, lambda: len(sink.packets) == len(requests))
    charged = [column.charges[tenant] for tenant in range(TENANTS)]
    for tenant in range(2):
        # At most the prices that were too high for what was on its way at the end are ahead of the work.
        assert busy[tenant] - 4 <= charged[tenant] <= busy[tenant] + 4 * 260
    assert charged[2:] == [0, 0]


def test_refused_requests_are_charged_their_beats():
    config = DeviceConfig(tenants=TENANTS, slots=1)
    requests = numbered([(2, 80)] * 7, random.Random(1))
    _, column = run(config, requests, {1: 0b1})
    assert column.charges[2] == 7 * 10


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
