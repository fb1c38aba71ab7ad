"""Response collector: any order of answers, the order of requests on the port, places for all, limits a tenant."""

import random
from collections import defaultdict

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.engine.collector import SPARE, ResponseCollector
from gateware.engine.shard import ShardId, Status, outstanding_limit
from tests.gateware.packets import Pace, Sink, run_until

CONFIG = DeviceConfig(tenants=5, slots=2)
LIMIT = outstanding_limit(CONFIG)


class Bench:
    """A collector with three sources, driven by `course`."""

    def __init__(self, *, stall=0.0, seed=0):
        self.dut = ResponseCollector(CONFIG, 3)
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-8)
        self.sink = Sink(self.simulator, self.dut.responses, CONFIG, Pace(stall, seed))

    async def issue(self, ctx, tenant, number):
        """Open a ticket whose request word and flow hash are `number`; returns its tag."""
        dut = self.dut
        ctx.set(dut.tenant, tenant)
        ctx.set(dut.ticket, {"destination": number & 3, "flow_hash": number})
        ctx.set(dut.issue, 1)
        tag = ctx.get(dut.tag)
        await ctx.tick()
        ctx.set(dut.issue, 0)
        ctx.set(dut.word_place, {"tenant": tenant, "tag": tag})
        ctx.set(dut.word, number)
        ctx.set(dut.word_enable, 3)
        await ctx.tick()
        ctx.set(dut.word_enable, 0)
        return tag

    def answer(self, ctx, source, tenant, tag, number):
        ctx.set(self.dut.answers[source].payload, {
            "tenant": tenant, "tag": tag, "result": number ^ 0xFFFF, "status": Status.OK, "shard": ShardId.CRC32C})
        ctx.set(self.dut.answers[source].valid, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("stall", "seed"), [(0, 0), (0, 1), (0.6, 2), (0.9, 3)])
def test_answers_in_any_order_leave_in_the_order_of_requests(stall, seed):
    bench, rng = Bench(stall=stall, seed=seed), random.Random(seed)
    count, asked, outstanding = 300, defaultdict(list), []

    async def course(ctx):
        number = 0
        while number < count or outstanding:
            tenant = rng.randrange(CONFIG.tenants)
            if number < count and not ctx.get(bench.dut.full) >> tenant & 1 and rng.random() < 0.7:
                outstanding.append((tenant, await bench.issue(ctx, tenant, number), number))
                asked[tenant].append(number)
                number += 1
            await ctx.tick()
            rng.shuffle(outstanding)
            offered = [outstanding.pop() for _ in range(min(len(outstanding), rng.randrange(4)))][:3]
            for source, (tenant, tag, which) in enumerate(offered):
                bench.answer(ctx, source, tenant, tag, which)
            left = set(range(len(offered)))
            for _ in range(4):
                if not left:
                    break
                taken = [source for source in left if ctx.get(bench.dut.answers[source].ready)]
                await ctx.tick()
                for source in taken:
                    ctx.set(bench.dut.answers[source].valid, 0)
                    left.remove(source)
            assert not left, "an answer was not taken"

    bench.simulator.add_testbench(course, background=True)
    run_until(bench.simulator, lambda: len(bench.sink.packets) == count)
    got = defaultdict(list)
    for packet in bench.sink.packets:
        number = packet.fields["flow_hash"]
        got[packet.fields["tenant"]].append(number)
        assert packet.fields["destination"] == number & 3
        assert packet.payload == (number.to_bytes(8, "little") + (number ^ 0xFFFF).to_bytes(4, "little")
                                  + bytes([0, 1, 0, 0]))
    assert got == asked


def test_tenant_has_as_many_tickets_as_places_and_room_falls_before():
    bench, seen = Bench(), []

    async def course(ctx):
        tags = []
        for number in range(LIMIT):
            seen.append((ctx.get(bench.dut.room) >> 2 & 1, ctx.get(bench.dut.full) >> 2 & 1))
            tags.append(await bench.issue(ctx, 2, number))
        assert ctx.get(bench.dut.full) == 1 << 2
        assert ctx.get(bench.dut.room) == 0b11011
        assert len(set(tags)) == LIMIT
        bench.answer(ctx, 0, 2, tags[0], 0)
        await ctx.tick()
        ctx.set(bench.dut.answers[0].valid, 0)
        await ctx.tick().repeat(10)
        assert ctx.get(bench.dut.full) == 0

    bench.simulator.add_testbench(course)
    bench.simulator.run()
    assert seen == [(number < LIMIT - SPARE, 0) for number in range(LIMIT)]
    assert len(bench.sink.packets) == 1


def test_oldest_unanswered_request_holds_its_own_tenant_only():
    bench = Bench()

    async def course(ctx):
        held = await bench.issue(ctx, 0, 100)
        later = await bench.issue(ctx, 0, 101)
        other = await bench.issue(ctx, 1, 102)
        for tenant, tag, number in ((0, later, 101), (1, other, 102)):
            bench.answer(ctx, 0, tenant, tag, number)
            await ctx.tick()
            ctx.set(bench.dut.answers[0].valid, 0)
        await ctx.tick().repeat(20)
        assert [packet.fields["flow_hash"] for packet in bench.sink.packets] == [102]
        bench.answer(ctx, 2, 0, held, 100)
        await ctx.tick()
        ctx.set(bench.dut.answers[2].valid, 0)
        await ctx.tick().repeat(20)

    bench.simulator.add_testbench(course)
    bench.simulator.run()
    assert [packet.fields["flow_hash"] for packet in bench.sink.packets] == [102, 100, 101]


def test_responses_follow_each_other_without_a_pause():
    bench = Bench()

    async def course(ctx):
        tags = [await bench.issue(ctx, 3, number) for number in range(8)]
        for number, tag in enumerate(tags):
            bench.answer(ctx, 0, 3, tag, number)
            await ctx.tick()
        ctx.set(bench.dut.answers[0].valid, 0)
        await ctx.tick().repeat(50)

    bench.simulator.add_testbench(course)
    bench.simulator.run()
    assert bench.sink.cycles[-1] - bench.sink.cycles[0] == 7 * 2
