"""Crosspoint and reader: a queue per tenant, and a page account that agrees with a model page for page."""

import random
from collections import deque
from itertools import product

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from gateware.config import CREDIT_PAGES, DeviceConfig
from gateware.fabric.crosspoint import Crosspoint
from gateware.fabric.reader import Reader
from gateware.stream.packet import FlowClass
from tests.gateware.fabric.bench import commit, header_dict, row
from tests.gateware.simulation import simulate

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
        if need == 0 or after[tenant] <= self.quotas[tenant]:   # what shares a page takes none, whatever is owed
            return True
        excess = sum(max(0, used - quota) for used, quota in zip(after, self.quotas, strict=True))
        return excess <= CONFIG.pages - sum(self.quotas)

    def lack(self, tenant):
        """Pages of the shared pool that the largest packet with credit may need; none if it can never be admitted."""
        above = max(0, self.used[tenant] + CREDIT_PAGES - max(self.quotas[tenant], self.used[tenant]))
        return 0 if self.used[tenant] == 0 and above > CONFIG.pages - sum(self.quotas) else above

    def credit(self):
        """(room, own) of all tenants."""
        excess = sum(max(0, used - quota) for used, quota in zip(self.used, self.quotas, strict=True))
        free = CONFIG.pages - sum(self.quotas) - excess if sum(self.used) <= CONFIG.pages - CREDIT_PAGES else 0
        lacks = [self.lack(tenant) for tenant in range(CONFIG.tenants)]
        return (sum((lack == 0 or lack <= free) << tenant for tenant, lack in enumerate(lacks)),
                sum((lack == 0) << tenant for tenant, lack in enumerate(lacks)))

    def put(self, tenant, beats, header, words):
        """Enters a packet."""
        need = self.need(tenant, beats)
        queue = self.queues[tenant]
        tail = self.open[tenant] if queue else None
        self.used[tenant] += need
        new = tail is None or tail[0] == 16 or tail[1] == 8
        if new:
            tail = [0, 0]
        total = tail[0] + beats
        pages = (total - 1) // 16   # page ends within the packet
        self.open[tenant] = [total - 16 * pages, tail[1] + 1 if pages == 0 else 1]
        if new and queue:
            queue[-1]["leaves"] = True
        queue.append({"header": header, "words": words, "ends": pages, "leaves": False})

    def take(self, tenant):
        """A packet leaves; the page in which it ends is left by the next packet, or when the queue is empty."""
        packet = self.queues[tenant].popleft()
        self.used[tenant] -= packet["ends"]
        if not self.queues[tenant]:
            self.used[tenant] -= 1
        elif packet["leaves"]:
            self.left_behind(tenant, 1)
        return packet

    def left_behind(self, tenant, pages):
        """The page of a packet that has left is still held: the next packet, which begins elsewhere, gives it back."""
        self.queues[tenant][0]["ends"] += pages


class Bench(wiring.Component):
    """One crosspoint, and the reader of its column."""

    def __init__(self):
        self.dut, self.reader = Crosspoint(CONFIG, credit=True), Reader(CONFIG, 0)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut, m.submodules.reader = self.dut, self.reader
        wiring.connect(m, self.reader.crosspoints[0], self.dut.r)
        return m


def placement(place, beats):
    """(shares, start, new pages, slot, after) of a packet behind `place` = (open, beats, descriptors; 0 is all)."""
    is_open, used, descriptors = place
    shares = bool(is_open) and used != 0 and descriptors != 0
    start = used if shares else 0
    end = start + beats - 1
    slot = descriptors if shares and end < 16 else 0
    after = {"open": 1, "beats": (end + 1) % 16, "descriptors": (slot + 1) % 8}
    return shares, start, end // 16 + (not shares), slot, after


class Driver:
    """One transaction at a time on each side, in lock step with the model."""

    def __init__(self, ctx, bench, model):
        self.ctx, self.dut, self.reader, self.model = ctx, bench.dut, bench.reader, model
        self.number = 0

    async def settle(self):
        """Until the walk has closed what is empty."""
        await self.ctx.tick().repeat(2 * CONFIG.tenants + 4)

    async def ask(self, tenant, beats):
        """The answer of the crosspoint, after any `hold`; meanwhile its credit has become the model's."""
        await self.settle()
        self.assert_credit()
        answer = await self.offer(tenant, beats)
        assert self.ctx.get(self.dut.booking.used) == self.model.used[tenant], "nothing is on its way home"
        return answer

    async def offer(self, tenant, beats):
        """Looks up, and asks in the next cycle, without waiting."""
        ctx, booking = self.ctx, self.dut.booking
        ctx.set(booking.ask, tenant)
        await ctx.tick()
        place = ctx.get(booking.place)
        self.place = (place.open, place.beats, place.descriptors)
        self.placed = placement(self.place, beats)
        ctx.set(booking.tenant, tenant)
        used, need, quota = ctx.get(booking.asked_used), self.placed[2], self.model.quotas[tenant]
        ctx.set(booking.used, used)
        ctx.set(booking.need, need)
        ctx.set(booking.quota, quota)
        left = max(0, quota - used)
        ctx.set(booking.left, left)
        ctx.set(booking.above, need > left)
        ctx.set(booking.exact, 1)
        ctx.set(booking.after, self.placed[4])
        return ctx.get(booking.fits) and not ctx.get(booking.hold)

    async def put(self, tenant, beats, pause=lambda: False):
        """Books and writes the packet that was asked for; the answer must have been yes."""
        self.number += 1
        rng = random.Random(self.number)
        header = {"flow_hash": rng.getrandbits(16), "length": 4 * beats - rng.randrange(4), "epoch": rng.getrandbits(8),
                  "flow_class": rng.choice(list(FlowClass)).value, "timestamp": rng.getrandbits(32)}
        words = [rng.getrandbits(32) for _ in range(beats)]
        self.model.put(tenant, beats, header, words)
        await self.write(tenant, words, header, pause, self.assert_credit)

    def assert_credit(self):
        """That of the model: in the cycle after a booking, and when the walk has seen the rest."""
        assert (self.ctx.get(self.dut.room), self.ctx.get(self.dut.own)) == self.model.credit()

    async def write(self, tenant, words, header, pause=lambda: False, booked=lambda: None):
        """A packet, once it is placed; `booked` is called in the cycle after its booking."""
        ctx, w = self.ctx, self.dut.w
        shares, start, need, slot, after = self.placed
        ctx.set(w.placed, {"open": self.place[0], "shares": shares, "start": start, "need": need, "slot": slot,
                           "after": after})
        ctx.set(w.tenant, tenant)
        ctx.set(w.header, header)
        for index, word in enumerate(words):
            while index and pause():
                ctx.set(self.dut.booking.reserve, 0)
                ctx.set(w.put, 0)
                ctx.set(w.write, 0)
                await ctx.tick()
            last = index == len(words) - 1
            ctx.set(self.dut.booking.reserve, index == 0)
            ctx.set(w.put, 1)
            ctx.set(w.write, 1)
            ctx.set(w.first, index == 0)
            ctx.set(w.end, last)
            ctx.set(w.beat, {"data": word, "empty": 0, "last": last})
            await ctx.tick()
            if not index:
                booked()
        ctx.set(self.dut.booking.reserve, 0)
        ctx.set(w.put, 0)
        ctx.set(w.write, 0)

    async def grant(self, tenant):
        """Grants one packet."""
        ctx, grant = self.ctx, self.reader.grant
        ctx.set(grant.payload, {"mask": 1 << tenant, "tenant": tenant})
        ctx.set(grant.valid, 1)
        ready = 0
        while not ready:
            _, _, ready = await ctx.tick().sample(grant.ready)
        ctx.set(grant.valid, 0)

    async def read(self, pause=lambda: False):
        """The next packet of the reader: (header, words)."""
        ctx, reader = self.ctx, self.reader
        words, header = [], None
        while True:
            ctx.set(reader.take, not pause())
            _, _, valid, take, first, beat, found = await ctx.tick().sample(
                reader.valid, reader.take, reader.first, reader.beat, reader.header)
            if not valid or not take:
                continue
            assert first == (not words)
            header = header_dict(found) if first else header
            words.append(int(beat.data))
            if beat.last:
                ctx.set(reader.take, 0)
                return header, words

    async def read_rest(self):
        """The beats of the packet under way, up to its last."""
        ctx, reader = self.ctx, self.reader
        words, last = [], 0
        ctx.set(reader.take, 1)
        while not last:
            _, _, valid, beat = await ctx.tick().sample(reader.valid, reader.beat)
            if valid:
                words.append(int(beat.data))
                last = beat.last
        ctx.set(reader.take, 0)
        return words

    async def take(self, tenant, pause=lambda: False):
        """Reads one packet and compares it with the model's."""
        assert self.ctx.get(self.dut.r.ready) >> tenant & 1
        await self.grant(tenant)
        header, words = await self.read(pause)
        expected = self.model.take(tenant)
        assert words == expected["words"]
        assert header["tenant"] == tenant
        assert {name: header[name] for name in expected["header"]} == expected["header"]


def run(quotas, testbench):
    bench = Bench()
    model = Model(quotas)

    async def main(ctx):
        await commit(ctx, bench.dut.allocation, [row(CONFIG, weight=1, pages=quota) for quota in quotas])
        await ctx.tick()
        await testbench(ctx, bench.dut, model, Driver(ctx, bench, model))

    simulate(bench, main)


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
                    await driver.put(tenant, beats, lambda: rng.random() < 0.1)
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


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("busy", [0, 0.3])
def test_reading_and_writing_at_once_mixes_nothing_up(seed, busy):
    """Both sides work at once, grants ahead of the reading; per tenant, what comes out is what went in."""
    rng = random.Random(f"{seed} {busy}")
    bench = Bench()
    quotas = [4, 4, 0, 0]
    model = Model(quotas)
    sent, got = [[[] for _ in quotas] for _ in range(2)]
    total = 150

    async def write(ctx):
        await commit(ctx, bench.dut.allocation, [row(CONFIG, weight=1, pages=quota) for quota in quotas])
        driver = Driver(ctx, bench, model)
        for number in range(total):
            while rng.random() < busy:
                await ctx.tick()
            tenant, beats = rng.randrange(4), rng.choice([1, 1, 1, 2, 7, 16, 33, 120])
            # The lookup is of the cycle before the booking here; admission's is one earlier, and tested there.
            while not await driver.offer(tenant, beats) or ctx.get(bench.dut.booking.asked_raced):
                pass
            words = [number << 8 | index for index in range(beats)]
            sent[tenant].append((number, words))
            await driver.write(tenant, words, {"flow_hash": number, "length": 4 * beats}, lambda: rng.random() < busy)

    async def grants(ctx):
        driver = Driver(ctx, bench, model)
        while True:
            ready = ctx.get(bench.dut.r.ready)
            choices = [tenant for tenant in range(4) if ready >> tenant & 1]
            if choices and rng.random() >= busy:
                await driver.grant(rng.choice(choices))
            else:
                await ctx.tick()

    async def read(ctx):
        driver = Driver(ctx, bench, model)
        for _ in range(total):
            header, words = await driver.read(lambda: rng.random() < busy)
            got[header["tenant"]].append((header["flow_hash"], words))

    simulator = Simulator(bench)
    simulator.add_clock(1e-6)
    simulator.add_testbench(write, background=True)
    simulator.add_testbench(grants, background=True)
    simulator.add_testbench(read)
    simulator.run_until(0.02)
    assert sum(map(len, got)) == total
    assert got == sent


@pytest.mark.parametrize("beats", [1, 3, 16, 20])
def test_a_booking_may_come_in_any_cycle_around_the_end_of_a_queue(beats):
    """The queue runs empty and is closed, or goes on, exactly as the next packet asks: every alignment is tried."""
    bench = Bench()
    model = Model([8] * 4)

    async def testbench(ctx):
        await commit(ctx, bench.dut.allocation, [row(CONFIG, weight=1, pages=8)] * 4)
        driver = Driver(ctx, bench, model)
        model.quotas = [4] * 4   # so that a page that does not come home is missed soon
        for delay in range(beats + 3 * CONFIG.tenants):
            assert await driver.ask(0, beats)
            await driver.write(0, [1000 + n for n in range(beats)], {"flow_hash": 1, "length": 4 * beats})
            while not ctx.get(bench.dut.r.ready):
                await ctx.tick()
            ctx.set(bench.reader.take, 1)
            await driver.grant(0)
            first = []
            for _ in range(delay):
                _, _, valid, beat = await ctx.tick().sample(bench.reader.valid, bench.reader.beat)
                first += [int(beat.data)] if valid else []
            ctx.set(bench.reader.take, 0)
            while not await driver.offer(0, beats) or ctx.get(bench.dut.booking.asked_raced):
                pass
            await driver.write(0, [2000 + n for n in range(beats)], {"flow_hash": 2, "length": 4 * beats})
            if len(first) < beats:
                first += (await driver.read_rest())
            assert first == [1000 + n for n in range(beats)]
            while not ctx.get(bench.dut.r.ready):
                await ctx.tick()
            await driver.grant(0)
            header, words = await driver.read()
            assert (header["flow_hash"], words) == (2, [2000 + n for n in range(beats)])

    simulate(bench, testbench)


def test_the_queue_of_a_booking_that_is_near_is_not_closed():
    async def testbench(ctx, dut, model, driver):
        booking = dut.booking
        assert await driver.ask(0, 1)
        ctx.set(booking.near_tenant, 0)
        ctx.set(booking.near, 1)
        await driver.put(0, 1)
        await driver.take(0)
        for near, is_open in ((1, 1), (0, 0)):
            ctx.set(booking.near, near)
            await driver.settle()
            assert ctx.get(booking.place.open) == is_open

    run([8, 8, 8, 8], testbench)


def test_a_booking_above_the_quota_waits_while_its_pages_may_be_out_of_date():
    """By the asker's word, and in the cycle in which a page of that tenant comes home."""
    async def testbench(ctx, dut, model, driver):
        booking = dut.booking
        await driver.settle()
        for above, exact, hold in ((0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 0)):
            ctx.set(booking.above, above)
            ctx.set(booking.exact, exact)
            assert ctx.get(booking.hold) == hold, (above, exact)
        ctx.set(booking.above, 1)
        ctx.set(booking.exact, 1)
        ctx.set(driver.reader.take, 1)
        for packets, tenant, asker in product((1, 2), (0, 3), (0, 3)):   # a page each
            for _ in range(packets):
                assert await driver.ask(tenant, 16)
                await driver.put(tenant, 16)
            await driver.settle()
            ctx.set(booking.tenant, asker)
            ctx.set(booking.above, 1)
            held = 0
            for _ in range(packets):
                await driver.grant(tenant)
                for _ in range(16 + 4 * CONFIG.tenants):
                    held += ctx.get(booking.hold)
                    await ctx.tick()
                model.take(tenant)
            assert held == packets * (asker == tenant), (packets, tenant, asker)

    run([8, 8, 8, 8], testbench)


@pytest.mark.parametrize("tenant", range(CONFIG.tenants))
def test_queues_of_packets_that_are_claimed_and_not_read_to_their_ends_are_not_closed(tenant):
    """One tenant's packet is being read, which the sink holds up; the next one is claimed meanwhile."""
    async def testbench(ctx, dut, model, driver):
        before = (tenant + 1) % CONFIG.tenants
        for number in (before, tenant):
            assert await driver.ask(number, 40)
            await driver.put(number, 40)
        for number in (before, tenant):
            await driver.grant(number)
        assert not ctx.get(dut.r.ready)
        for number in (before, tenant):
            ctx.set(dut.booking.ask, number)
            await ctx.tick()
            for _ in range(4 * CONFIG.tenants):
                await ctx.tick()
                assert ctx.get(dut.booking.place.open), number
        for number in (before, tenant):
            header, words = await driver.read()
            assert (header["tenant"], words) == (number, model.take(number)["words"])
        await driver.settle()
        assert not ctx.get(dut.booking.place.open)

    run([8, 8, 8, 8], testbench)


def test_a_first_beat_that_does_not_count_changes_nothing_when_no_page_is_vacant():
    async def testbench(ctx, dut, model, driver):
        w = dut.w
        for number in range(CONFIG.pages):
            assert await driver.ask(number % 4, 16)
            await driver.put(number % 4, 16)
        for tenant in range(4):
            assert not await driver.ask(tenant, 1)
            ctx.set(w.tenant, tenant)
            ctx.set(w.placed, {"open": 1, "shares": 0, "start": 0, "need": 1, "slot": 0, "after": driver.placed[4]})
            ctx.set(w.beat, {"data": 0xDEADBEEF, "empty": 0, "last": 1})
            for signal in (w.put, w.first, w.end):
                ctx.set(signal, 1)
            await ctx.tick().repeat(3)
            ctx.set(w.put, 0)
        for number in range(CONFIG.pages):
            await driver.take(number % 4)

    run([8, 8, 8, 8], testbench)


def test_packets_that_end_just_behind_a_power_of_two_of_beats_are_read_to_their_end():
    """With the next one claimed already, that would begin too early."""
    async def testbench(ctx, dut, model, driver):
        for beats in [(1 << bit) + behind for bit in range(1, 7) for behind in (0, 1)]:
            for _ in range(2):
                assert await driver.ask(1, beats)
                await driver.put(1, beats)
            for _ in range(2):
                await driver.grant(1)
            for _ in range(2):
                assert (await driver.read())[1] == model.take(1)["words"]

    run([4, 16, 4, 4], testbench)


def test_credit_knows_how_large_the_pool_is():
    """Tenant 0 has one page, tenant 1 none, tenant 2 what is not shared: credit for what can never come is given."""
    async def testbench(ctx, dut, model, driver):
        bank, epoch = 1, 1
        for shared in range(CONFIG.pages):
            model.quotas = [1, 0, CONFIG.pages - 1 - shared, 0]
            bank, epoch = await commit(ctx, dut.allocation, [row(CONFIG, weight=1, pages=quota)
                                                             for quota in model.quotas], bank, epoch)
            await driver.settle()
            assert (ctx.get(dut.room), ctx.get(dut.own)) == model.credit(), shared

    run([8, 8, 8, 8], testbench)


def test_a_queue_that_is_closed_does_not_open_again_by_itself():
    """In each cycle from the grant of the last packet on."""
    async def testbench(ctx, dut, model, driver):
        ctx.set(driver.reader.take, 1)
        for tenant in range(CONFIG.tenants):
            assert await driver.ask(tenant, 3)
            await driver.put(tenant, 3)
            await driver.settle()
            ctx.set(dut.booking.ask, tenant)
            await driver.grant(tenant)
            seen = []
            for _ in range(6 * CONFIG.tenants):
                seen.append(ctx.get(dut.booking.place.open))
                await ctx.tick()
            assert (seen[0], seen[-1]) == (1, 0)
            assert seen == sorted(seen, reverse=True)
            model.take(tenant)

    run([8, 8, 8, 8], testbench)


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
            await ctx.tick().repeat(1 + taken % 2)
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


def test_any_excess_of_one_tenant_is_counted():
    """Tenant 0 has every page and gives them back, one by one, while tables follow each other; epochs pass 128."""
    rng = random.Random(1)
    # Pages given back under a table; tenant 0's quota; what is shared. The first sum is made of all pages.
    tables = [(12, 0, 16), *((1, rng.choice([0, rng.randrange(9)]), rng.choice([0, 8, 16, 23])) for _ in range(20))]

    async def testbench(ctx, dut, model, driver):
        bank, epoch = 1, 122
        while await driver.ask(0, 16):
            await driver.put(0, 16)
        assert model.used[0] == CONFIG.pages
        for pages, own, shared in tables:
            model.quotas = [own, CONFIG.pages - own - shared, 0, 0]
            bank, epoch = await commit(ctx, dut.allocation, [row(CONFIG, weight=1, pages=quota)
                                                             for quota in model.quotas], bank, epoch)
            for _ in range(pages):
                await driver.take(0)
                for tenant, beats in product(range(3), (16, 100)):
                    assert await driver.ask(tenant, beats) == model.fits(tenant, beats), (model.used, model.quotas)
        assert epoch > 128

    run([CONFIG.pages, 0, 0, 0], testbench)


def test_account_is_exact_when_a_commit_falls_into_the_new_sum_of_the_one_before():
    """In any cycle of it, with tenants 0 to 2 above their quotas."""
    quotas = [2, 2, 2, 8]

    async def testbench(ctx, dut, model, driver):
        for tenant in (0, 1, 2):
            for _ in range(5):
                assert await driver.ask(tenant, 16)
                await driver.put(tenant, 16)
        epoch = ctx.get(dut.allocation.epoch)
        for between in range(1, CONFIG.tenants + 8):
            for _ in range(2):
                epoch += 1
                ctx.set(dut.allocation.epoch, epoch)
                await ctx.tick().repeat(between)
            for pages in range(3, 13):
                assert await driver.ask(3, 16 * pages) == model.fits(3, 16 * pages), (between, pages)
                assert await driver.ask(0, 16 * pages) == model.fits(0, 16 * pages), (between, pages)

    run(quotas, testbench)


def test_account_is_exact_when_a_page_comes_home_in_any_cycle_of_the_new_sum():
    """Tenants 0 to 2 are above their quotas; each gives a page back before, in and after every cycle of the sum."""
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
        ctx.set(driver.reader.take, 1)
        for tenant in (0, 1, 2):
            # Reading the second packet brings the page of the first one home, two cycles after its grant.
            for ahead in range(-8, CONFIG.tenants + 6):
                epoch += 1
                if ahead < 0:
                    await driver.grant(tenant)
                    await ctx.tick().repeat(-ahead)
                ctx.set(dut.allocation.epoch, epoch)
                if ahead >= 0:
                    for _ in range(ahead):
                        await ctx.tick()
                    await driver.grant(tenant)
                await ctx.tick().repeat(40)
                model.take(tenant)
                for pages in (3, 4, 5, 6, 7, 8):
                    assert await driver.ask(3, 16 * pages) == model.fits(3, 16 * pages), (tenant, ahead, pages)
                    assert await driver.ask(0, 16 * pages) == model.fits(0, 16 * pages), (tenant, ahead, pages)
                assert await driver.ask(tenant, 16)
                await driver.put(tenant, 16)

    run(quotas, testbench)
