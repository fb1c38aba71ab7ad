"""Engine slot: measured cost, `takes`, quiesce and drained, and the watchdog, with shards that take their time."""

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.engine.shard import ShardId, ShardSignature, Status
from gateware.engine.slot import LATE_GRANTS, LOOKAHEAD, EngineSlot
from tests.gateware.packets import beats_of

CONFIG = DeviceConfig(tenants=4)
LARGEST = CONFIG.max_packet_bytes // CONFIG.beat_bytes


class SlowShard(wiring.Component):
    """Takes the beats at once, or never if the first byte is 255, and as many cycles as the second and third say."""

    def __init__(self, config):
        super().__init__({"slot": In(ShardSignature(config))})

    def elaborate(self, platform):
        m = Module()
        header, beats, answers = self.slot.request.header, self.slot.request.data, self.slot.answers
        count, wanted, stuck, ended = Signal(16), Signal(16), Signal(), Signal()
        m.d.comb += [
            self.slot.kind.eq(ShardId.CRC32C),
            beats.ready.eq(header.valid & ~stuck & ~ended),
            header.ready.eq(ended & (count >= wanted)),
        ]
        with m.If(header.valid):
            m.d.sync += count.eq(count + 1)
        with m.If(beats.valid & beats.ready):
            m.d.sync += ended.eq(beats.payload.last)
            with m.If(wanted == 0):
                m.d.sync += [wanted.eq(beats.payload.data[8:24]), stuck.eq(beats.payload.data[:8] == 255)]
        with m.If(answers.ready):
            m.d.sync += answers.valid.eq(0)
        with m.If(header.valid & header.ready):
            m.d.sync += [
                count.eq(0), wanted.eq(0), ended.eq(0), answers.valid.eq(1), answers.payload.tag.eq(header.payload.tag),
                answers.payload.tenant.eq(header.payload.packet.tenant), answers.payload.status.eq(Status.OK)]
        return m


class Bench:
    """A slot, what it finished and what it answered."""

    def __init__(self):
        self.dut = EngineSlot(CONFIG, SlowShard(CONFIG))
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-8)
        self.bills, self.answers, self.cycle = [], [], 0
        self.simulator.add_process(self._watch)

    async def _watch(self, ctx):
        dut = self.dut
        async for _, _, finished, bill, taken, answer in ctx.tick().sample(
                dut.finished, dut.bill, dut.answers.valid & dut.answers.ready, dut.answers.payload):
            if finished:
                self.bills.append((self.cycle, bill.tenant, bill.price, bill.cost))
            if taken:
                self.answers.append((answer.tenant, answer.tag, answer.status))
            self.cycle += 1

    async def send(self, ctx, *, tenant=1, tag=0, price=0, cycles=10, stuck=False, length=16):
        """Give the slot a request; returns the cycles that it made the sender wait."""
        dut, waits = self.dut, 0
        ctx.set(dut.assigned, 1)
        await ctx.tick()
        ctx.set(dut.assigned, 0)
        payload = bytes([255 * stuck]) + cycles.to_bytes(2, "little") + bytes(length - 3)
        ctx.set(dut.requests.header.payload, {"packet": {"tenant": tenant, "length": length}, "tag": tag,
                                              "price": price})
        ctx.set(dut.requests.header.valid, 1)
        for word, empty, last in beats_of(payload, CONFIG):
            ctx.set(dut.requests.data.payload, {"data": word, "empty": empty, "last": last})
            ctx.set(dut.requests.data.valid, 1)
            while not ctx.get(dut.requests.data.ready):
                waits += 1
                await ctx.tick()
            await ctx.tick()
            ctx.set(dut.requests.header.valid, 0)
            ctx.set(dut.requests.data.valid, 0)
        return waits

    def run(self, course):
        async def testbench(ctx):
            ctx.set(self.dut.answers.ready, 1)
            await course(ctx)

        self.simulator.add_testbench(testbench)
        self.simulator.run()


@pytest.mark.slow
@pytest.mark.parametrize("cycles", [8, 100, 3000])
def test_cost_is_the_busy_time_of_each_request(cycles):
    bench = Bench()

    async def course(ctx):
        for tag in range(3):
            await bench.send(ctx, tenant=tag, tag=tag, price=tag + 7, cycles=cycles)
        await ctx.tick().repeat(3 * cycles + 60)
        assert ctx.get(bench.dut.busy_cycles) == sum(bill[3] for bill in bench.bills)
        assert ctx.get(bench.dut.served) == 3

    bench.run(course)
    assert [bill[1:3] for bill in bench.bills] == [(0, 7), (1, 8), (2, 9)]
    assert all(cycles <= bill[3] <= cycles + 4 for bill in bench.bills)
    assert bench.answers == [(tag, tag, Status.OK) for tag in range(3)]


def test_slot_takes_one_more_when_the_work_of_the_first_should_soon_be_over():
    bench = Bench()

    async def course(ctx):
        dut = bench.dut
        assert ctx.get(dut.takes)
        await bench.send(ctx, price=500, cycles=800)
        waited = 0
        while not ctx.get(dut.takes):
            waited += 1
            await ctx.tick()
        assert 500 - LOOKAHEAD - 10 <= waited <= 500 - LOOKAHEAD + 10
        await bench.send(ctx, cycles=50)
        await ctx.tick()
        assert not ctx.get(dut.takes)
        await ctx.tick().repeat(1000)
        assert ctx.get(dut.takes)
        ctx.set(dut.quiesce, 1)
        assert not ctx.get(dut.takes)

    bench.run(course)


def test_late_grants_of_the_largest_size_find_room_behind_the_one_at_work():
    bench = Bench()

    async def course(ctx):
        for _ in range(LATE_GRANTS + 1):
            assert await bench.send(ctx, cycles=5000, length=CONFIG.max_packet_bytes) == 0

    bench.run(course)


def test_drained_comes_when_late_grants_have_come_and_nothing_is_left():
    bench = Bench()

    async def course(ctx):
        dut = bench.dut
        await bench.send(ctx, cycles=2000)
        ctx.set(dut.quiesce, 1)
        await bench.send(ctx, cycles=100, tag=1)
        while len(bench.answers) < 2:
            assert not ctx.get(dut.drained)
            await ctx.tick()
        await ctx.tick().repeat(2)
        assert ctx.get(dut.drained)
        ctx.set(dut.quiesce, 0)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.drained)
        ctx.set(dut.quiesce, 1)
        await ctx.tick().repeat(LATE_GRANTS * LARGEST)
        assert not ctx.get(dut.drained), "grants that were under way may still come"
        await ctx.tick().repeat(LARGEST + 2)
        assert ctx.get(dut.drained)

    bench.run(course)


@pytest.mark.parametrize(("stuck", "cycles"), [(True, 10), (False, 60000)], ids=["takes no beat", "never ends"])
def test_watchdog_answers_resets_the_shard_and_goes_on(stuck, cycles):
    bench = Bench()

    async def course(ctx):
        dut = bench.dut
        ctx.set(dut.watchdog, 300)
        await bench.send(ctx, tag=0, cycles=200)
        await bench.send(ctx, tag=1, cycles=cycles, stuck=stuck, length=200)
        await bench.send(ctx, tag=2, tenant=3, cycles=50)
        await ctx.tick().repeat(800)
        assert ctx.get(dut.failed)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        await ctx.tick()
        assert not ctx.get(dut.failed)
        assert ctx.get(dut.load) == 0

    bench.run(course)
    assert bench.answers == [(1, 0, Status.OK), (1, 1, Status.TIMEOUT), (3, 2, Status.OK)]
    assert 300 <= bench.bills[1][3] <= 300 + 40, "what a request cost that was ended"


def test_without_a_watchdog_a_request_may_take_for_ever():
    bench = Bench()

    async def course(ctx):
        await bench.send(ctx, stuck=True)
        await ctx.tick().repeat(3000)
        assert not ctx.get(bench.dut.failed)

    bench.run(course)
    assert bench.answers == []
