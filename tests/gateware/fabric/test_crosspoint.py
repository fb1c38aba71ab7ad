"""Crosspoint: a queue per tenant, and a page account that agrees with a model page for page."""

import random
from collections import deque

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.fabric.crosspoint import Crosspoint
from tests.gateware.fabric.bench import commit, header_dict, row

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

CONFIG = DeviceConfig(ports=2, data_width=32, tenants=4, pages=32)


class Model:
    """Pages by the rules of the docstring: a page ends after 16 beats or 8 descriptors, or when a queue is empty."""

    def __init__(self, quotas):
        self.quotas = quotas
        self.used = [0] * CONFIG.tenants
        self.queues = [deque() for _ in quotas]   # (header, beats, pages to give back)
        self.open = [None] * CONFIG.tenants       # [beats, descriptors] of the tail page

    def need(self, tenant, beats):
        tail = self.open[tenant] if self.queues[tenant] else None
        if tail is None or tail[0] == 16 or tail[1] == 8:
            return -(-beats // 16)
        return -(-(tail[0] + beats) // 16) - 1

    def fits(self, tenant, beats):
        need = self.need(tenant, beats)
        after = list(self.used)
        after[tenant] += need
        if sum(self.used) + need > CONFIG.pages:
            return False
        if after[tenant] <= self.quotas[tenant]:
            return True
        excess = sum(max(0, used - quota) for used, quota in zip(after, self.quotas, strict=True))
        return excess <= CONFIG.pages - sum(self.quotas)

    def put(self, tenant, beats, header, words, stored=None):
        """Enters a packet of which `stored` (default: all) of its reserved `beats` came."""
        need = self.need(tenant, beats)
        stored = beats if stored is None else stored
        queue = self.queues[tenant]
        tail = self.open[tenant] if queue else None
        self.used[tenant] += need
        new = tail is None or tail[0] == 16 or tail[1] == 8
        if new:
            tail = [0, 0]
        total = tail[0] + stored
        pages = (total - 1) // 16   # page ends within the packet
        beats_in_tail = total - 16 * pages
        descriptors = tail[1] + 1 if pages == 0 else 0
        self.open[tenant] = [beats_in_tail, descriptors]
        popped = pages + new
        full = beats_in_tail == 16 or descriptors == 8
        queue.append({"header": header, "words": words, "ends": pages, "full": full, "unused": need - popped})

    def take(self, tenant):
        packet = self.queues[tenant].popleft()
        last = packet["full"] or not self.queues[tenant]
        self.used[tenant] -= packet["ends"] + last + packet["unused"]
        return packet


class Driver:
    """One transaction at a time on each side, in lock step with the model."""

    def __init__(self, ctx, dut, model):
        self.ctx, self.dut, self.model = ctx, dut, model
        self.number = 0

    async def ask(self, tenant, beats):
        """The answer of the crosspoint, after any `hold`."""
        ctx, w = self.ctx, self.dut.w
        ctx.set(w.tenant, tenant)
        ctx.set(w.beats, beats)
        ctx.set(w.quota, self.model.quotas[tenant])
        while ctx.get(w.hold):
            await ctx.tick()
        return ctx.get(w.fits)

    async def put(self, tenant, beats, stored=None):
        """Reserves and writes a packet; the answer must have been yes."""
        ctx, w = self.ctx, self.dut.w
        ctx.set(w.reserve, 1)
        await ctx.tick()
        ctx.set(w.reserve, 0)
        self.number += 1
        header = {"tenant": tenant, "flow_hash": self.number & 0xFFFF, "length": 4 * (stored or beats)}
        words = [self.number << 12 | index for index in range(stored or beats)]
        for index, word in enumerate(words):
            last = index == len(words) - 1
            ctx.set(w.write, 1)
            ctx.set(w.beat, {"data": word, "empty": 0, "last": last})
            ctx.set(w.end, last)
            ctx.set(w.header, header)
            await ctx.tick()
        ctx.set(w.write, 0)
        self.model.put(tenant, beats, header, words, stored)

    async def take(self, tenant, pause=lambda: False):
        """Reads one packet and compares it with the model's."""
        ctx, r = self.ctx, self.dut.r
        assert ctx.get(r.ready) >> tenant & 1
        ctx.set(r.start, 1)
        ctx.set(r.tenant, tenant)
        await ctx.tick()
        ctx.set(r.start, 0)
        expected = self.model.take(tenant)
        words = []
        last = False
        while not last:
            assert ctx.get(r.valid)
            header = header_dict(ctx.get(r.header))
            if pause():
                await ctx.tick()
                continue
            beat = ctx.get(r.beat)
            words.append(int(beat.data))
            last = int(beat.last)
            ctx.set(r.take, 1)
            await ctx.tick()
            ctx.set(r.take, 0)
        assert not ctx.get(r.valid)
        assert words == expected["words"]
        assert {name: header[name] for name in expected["header"]} == expected["header"]


def run(quotas, testbench):
    dut = Crosspoint(CONFIG)
    model = Model(quotas)

    async def main(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=1, pages=quota) for quota in quotas])
        await ctx.tick()
        await testbench(ctx, dut, model, Driver(ctx, dut, model))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(main)
    simulator.run()


def ready_mask(model):
    return sum(bool(queue) << tenant for tenant, queue in enumerate(model.queues))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", [(1, 2, 3), (1, 15, 16, 17, 31), (1, 5, 64, 100, 256)])
def test_queues_and_accounts_agree_with_the_model(seed, sizes):
    rng = random.Random(seed)

    async def testbench(ctx, dut, model, driver):
        for step in range(150):
            tenant = rng.randrange(CONFIG.tenants)
            filling = rng.random() < (0.7 if step < 90 else 0.3)
            if filling:
                beats = rng.choice(sizes)
                fits = await driver.ask(tenant, beats)
                assert fits == model.fits(tenant, beats), (step, tenant, beats)
                if fits:
                    stored = rng.randrange(1, beats + 1) if rng.random() < 0.2 else None
                    await driver.put(tenant, beats, stored)
            elif model.queues[tenant]:
                await driver.take(tenant, lambda: rng.random() < 0.1)
            assert ctx.get(dut.r.ready) == ready_mask(model)
        for tenant in range(CONFIG.tenants):
            while model.queues[tenant]:
                await driver.take(tenant)
        assert sum(model.used) == 0
        # Every page has come home: the whole crosspoint can be filled again.
        for tenant in range(CONFIG.tenants):
            for _ in range(8):
                assert await driver.ask(tenant, 16) == model.fits(tenant, 16) == 1
                await driver.put(tenant, 16)
        assert not await driver.ask(0, 1)

    run([8, 8, 8, 8], testbench)


@pytest.mark.parametrize("seed", range(2))
def test_reading_and_writing_at_once_mixes_nothing_up(seed):
    """Both sides work concurrently with random pauses; per tenant, what comes out is what went in."""
    rng = random.Random(seed)
    m = Module()
    m.submodules.dut = dut = Crosspoint(CONFIG)
    # As in admission: the answer and the booking are of one cycle, whatever the reader does in it.
    want = Signal()
    m.d.comb += dut.w.reserve.eq(want & dut.w.fits & ~dut.w.hold)
    sent = [[] for _ in range(CONFIG.tenants)]
    got = [[] for _ in range(CONFIG.tenants)]
    total = 150
    quotas = [4, 4, 0, 0]

    async def write(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=1, pages=quota) for quota in quotas])
        w = dut.w
        for number in range(total):
            while rng.random() < 0.2:
                await ctx.tick()
            tenant, beats = rng.randrange(CONFIG.tenants), rng.choice([1, 1, 2, 7, 16, 33, 120])
            ctx.set(w.tenant, tenant)
            ctx.set(w.beats, beats)
            ctx.set(w.quota, quotas[tenant])
            ctx.set(want, 1)
            booked = False
            while not booked:
                _, _, booked = await ctx.tick().sample(w.reserve)
            ctx.set(want, 0)
            beats -= rng.random() < 0.1 and beats > 1
            for index in range(beats):
                while rng.random() < 0.1:
                    await ctx.tick()
                ctx.set(w.write, 1)
                ctx.set(w.end, index == beats - 1)
                ctx.set(w.beat, {"data": number * 256 + index, "empty": 0, "last": index == beats - 1})
                ctx.set(w.header, {"flow_hash": number})
                await ctx.tick()
                ctx.set(w.write, 0)
            sent[tenant].append((number, beats))

    async def read(ctx):
        r = dut.r
        while sum(map(len, got)) < total:
            ready = [tenant for tenant in range(CONFIG.tenants) if ctx.get(r.ready) >> tenant & 1]
            if not ready or rng.random() < 0.2:
                await ctx.tick()
                continue
            tenant = rng.choice(ready)
            ctx.set(r.start, 1)
            ctx.set(r.tenant, tenant)
            await ctx.tick()
            ctx.set(r.start, 0)
            beats = 0
            while ctx.get(r.valid):
                ctx.set(r.take, 0)
                if rng.random() < 0.2:
                    await ctx.tick()
                    continue
                beat, number = ctx.get(r.beat), ctx.get(r.header.flow_hash)
                assert beat.data == number * 256 + beats
                beats += 1
                ctx.set(r.take, 1)
                await ctx.tick()
                ctx.set(r.take, 0)
            got[tenant].append((number, beats))

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(write)
    simulator.add_testbench(read)
    simulator.run_until(0.02)
    assert sum(map(len, got)) == total
    assert got == sent


def test_a_reservation_may_come_in_any_cycle_of_the_last_packets_reading():
    """The queue runs empty, or does not, exactly as the next packet asks: every alignment of the two is tried."""
    m = Module()
    m.submodules.dut = dut = Crosspoint(CONFIG)
    want = Signal()
    m.d.comb += dut.w.reserve.eq(want & dut.w.fits & ~dut.w.hold)
    w, r = dut.w, dut.r

    async def write_beats(ctx, number, beats):
        for index in range(beats):
            ctx.set(w.write, 1)
            ctx.set(w.end, index == beats - 1)
            ctx.set(w.beat, {"data": number * 256 + index, "empty": 0, "last": index == beats - 1})
            ctx.set(w.header, {"flow_hash": number})
            await ctx.tick()
        ctx.set(w.write, 0)

    async def reserve(ctx, beats):
        ctx.set(w.beats, beats)
        ctx.set(want, 1)
        booked = 0
        while not booked:
            _, _, booked = await ctx.tick().sample(w.reserve)
        ctx.set(want, 0)

    async def read(ctx, number, beats):
        """Reads with `take` always high; returns after the last beat."""
        while not ctx.get(r.ready):
            await ctx.tick()
        ctx.set(r.start, 1)
        await ctx.tick()
        ctx.set(r.start, 0)
        ctx.set(r.take, 1)
        for index in range(beats):
            assert ctx.get(r.valid)
            assert ctx.get(r.header.flow_hash) == number
            assert ctx.get(r.beat.data) == number * 256 + index
            await ctx.tick()
        ctx.set(r.take, 0)

    async def testbench(ctx):
        await commit(ctx, dut.allocation, [row(CONFIG, weight=1, pages=8)] * 4)
        ctx.set(w.quota, 2)   # so that a page that does not come home is missed at once
        for beats in (1, 3, 16):
            for delay in range(beats + 4):
                await reserve(ctx, beats)
                await write_beats(ctx, 1, beats)
                while not ctx.get(r.ready):
                    await ctx.tick()
                # The second packet asks `delay` cycles after the first one's start.
                ctx.set(r.start, 1)
                asked = left = False
                sent = 0
                for cycle in range(beats + 6):
                    if cycle == delay:
                        ctx.set(w.beats, beats)
                        ctx.set(want, 1)
                    _, _, booked, beat, valid, take = await ctx.tick().sample(w.reserve, r.beat, r.valid, r.take)
                    ctx.set(r.start, 0)
                    ctx.set(r.take, sent + (valid & take) < beats)
                    if valid and take:
                        assert beat.data == 256 + sent
                        sent += 1
                        left = sent == beats
                    if booked:
                        ctx.set(want, 0)
                        asked = True
                    if left:
                        ctx.set(r.take, 0)
                assert asked
                assert left
                await write_beats(ctx, 2, beats)
                await read(ctx, 2, beats)
                await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def test_short_packets_share_pages():
    """Eight one-beat packets need one page, not eight."""
    async def testbench(ctx, dut, model, driver):
        for _ in range(8 * CONFIG.pages):
            assert await driver.ask(0, 1)
            await driver.put(0, 1)
        assert not await driver.ask(0, 1)

    run([CONFIG.pages, 0, 0, 0], testbench)


def test_a_guarantee_holds_while_another_tenant_hogs_the_rest():
    async def testbench(ctx, dut, model, driver):
        while await driver.ask(0, 16):
            await driver.put(0, 16)
        assert model.used[0] == CONFIG.pages - 6     # its own 4 and the shared pool of 22
        for tenant, guarantee in ((1, 4), (2, 2)):
            for _ in range(guarantee):
                assert await driver.ask(tenant, 16)
                await driver.put(tenant, 16)
            assert not await driver.ask(tenant, 16)

    run([4, 4, 2, 0], testbench)


def test_a_lowered_quota_is_a_debt_that_drains():
    """After a commit that takes pages from tenant 0, its packets stay; others get what it gives back."""
    async def testbench(ctx, dut, model, driver):
        for _ in range(24):
            assert await driver.ask(0, 16)
            await driver.put(0, 16)
        quotas = [2, 20, 0, 0]
        await commit(ctx, dut.allocation, [row(CONFIG, weight=1, pages=quota) for quota in quotas],
                     bank=1, epoch=1)
        model.quotas = quotas
        # 22 of tenant 0's 24 pages are above its quota, and the shared pool has 10: nobody may borrow.
        assert not await driver.ask(2, 16)
        assert not await driver.ask(0, 16)
        for _ in range(8):
            assert await driver.ask(1, 16)
            await driver.put(1, 16)
        assert not await driver.ask(1, 16)            # guaranteed, but the pages are still in use
        for taken in range(24):
            await driver.take(0)
            for tenant in range(4):
                assert await driver.ask(tenant, 16) == model.fits(tenant, 16), (taken, tenant)
        assert await driver.ask(2, 16)

    run([24, 0, 0, 0], testbench)


@pytest.mark.parametrize("seed", range(2))
def test_account_is_right_after_commits_in_the_middle_of_releases(seed):
    """The sum of excesses is made anew while pages are being released; afterwards it is exact."""
    rng = random.Random(seed)

    async def testbench(ctx, dut, model, driver):
        bank, epoch, quotas = 1, 1, model.quotas
        for _ in range(25):
            for _ in range(rng.randrange(12)):
                tenant, beats = rng.randrange(4), rng.choice([1, 16, 40])
                if await driver.ask(tenant, beats):
                    await driver.put(tenant, beats)
            cut = sorted(rng.randrange(33) for _ in quotas)
            quotas = [cut[0], cut[1] - cut[0], cut[2] - cut[1], cut[3] - cut[2]]
            bank, epoch = await commit(ctx, dut.allocation, [row(CONFIG, weight=1, pages=quota)
                                                             for quota in quotas], bank, epoch)
            model.quotas = quotas
            for _ in range(rng.randrange(4)):
                waiting = [tenant for tenant in range(4) if model.queues[tenant]]
                if waiting:
                    await driver.take(rng.choice(waiting))
            for tenant in range(4):
                beats = rng.choice([1, 16, 100])
                assert await driver.ask(tenant, beats) == model.fits(tenant, beats)

    run([8, 8, 8, 8], testbench)


def test_account_is_exact_when_a_page_comes_home_in_any_cycle_of_the_new_sum():
    """Tenants 0 to 2 are above their quotas; each gives a page back k cycles after a commit, for every k."""
    quotas = [2, 2, 2, 8]

    async def testbench(ctx, dut, model, driver):
        rows = [row(CONFIG, weight=1, pages=quota) for quota in quotas]
        bank, epoch = 1, 1
        for _ in range(2):
            bank, epoch = await commit(ctx, dut.allocation, rows, bank, epoch)
        for tenant in (0, 1, 2):
            for _ in range(6):
                assert await driver.ask(tenant, 16)
                await driver.put(tenant, 16)
        for tenant in (0, 1, 2):
            for delay in range(CONFIG.tenants + 3):
                ctx.set(dut.r.start, 1)
                ctx.set(dut.r.tenant, tenant)
                await ctx.tick()
                ctx.set(dut.r.start, 0)
                ctx.set(dut.r.take, 1)
                await ctx.tick().repeat(15)
                ctx.set(dut.r.take, 0)
                epoch += 1
                ctx.set(dut.allocation.epoch, epoch)
                for _ in range(delay):
                    await ctx.tick()
                ctx.set(dut.r.take, 1)
                await ctx.tick()
                ctx.set(dut.r.take, 0)
                assert not ctx.get(dut.r.valid)
                model.take(tenant)
                await ctx.tick().repeat(2 * CONFIG.tenants)
                for pages in (5, 6, 7, 8):
                    assert await driver.ask(0, 16 * pages) == model.fits(0, 16 * pages), (tenant, delay, pages)
                assert await driver.ask(tenant, 16)
                await driver.put(tenant, 16)

    run(quotas, testbench)
