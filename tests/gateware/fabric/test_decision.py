"""Admission against a golden model of its crosspoints' books: decisions, bookings, places and headers, bit for bit."""

import random
from collections import deque
from functools import partial

import pytest
from amaranth.hdl import Cat

from gateware.config import DeviceConfig
from gateware.fabric.admission import Admission
from gateware.manager.allocation import FULL_RATE
from tests.gateware.fabric.bench import PROCESS, Packet, commit, drive_beats, drive_headers, header_dict, row
from tests.gateware.simulation import simulate

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

CONFIG = DeviceConfig(ports=3, data_width=64, tenants=4, pages=32)
HOST, NET, ENGINE = 0, 1, 2
REQUESTS, RESPONSE = (8, 9, 10), 12
PAGE_BEATS, PAGE_DESCRIPTORS = 16, 8


class Books:
    """One crosspoint: pages and the queue's end of each tenant; pages come home when `rng` likes, `pace` a cycle."""

    def __init__(self, rng, pace):
        self.rng, self.pace = rng, pace
        self.used = [0] * CONFIG.tenants
        self.place = [(0, 0, 0)] * CONFIG.tenants   # open, beats, descriptors; 0 is all
        self.home, self.coming = None, None   # (tenant, its queue is closed) in this cycle, and in the next

    def fits(self, tenant, need, quotas):
        """Whether so many pages may be booked."""
        if sum(self.used) + need > CONFIG.pages:
            return False
        after = [used + need * (tenant == number) for number, used in enumerate(self.used)]
        if need == 0 or after[tenant] <= quotas[tenant]:
            return True
        excess = sum(max(0, used - quota) for used, quota in zip(after, quotas, strict=True))
        return excess <= CONFIG.pages - sum(quotas)

    def placement(self, tenant, beats):
        """Where a packet of so many beats goes: fields of the placement."""
        is_open, used, descriptors = self.place[tenant]
        shares = bool(is_open and used and descriptors)
        end = (used if shares else 0) + beats - 1
        slot = descriptors if shares and end < PAGE_BEATS else 0
        return {"open": is_open, "shares": int(shares), "start": used if shares else 0, "slot": slot,
                "need": end // PAGE_BEATS + (not shares),
                "after": (1, (end + 1) % PAGE_BEATS, (slot + 1) % PAGE_DESCRIPTORS)}

    def answer(self, tenant):
        """(place, used, raced) as of this cycle; a queue that is closed in it or the next counts as closed."""
        events = [event for event in (self.home, self.coming) if event and event[0] == tenant]
        is_open, *rest = self.place[tenant]
        return (is_open and not any(closed for _, closed in events), *rest), self.used[tenant], bool(events)

    def step(self, near, booked):
        """To the next cycle: the page that comes home is gone, and another may be found. near: a tenant or None;
        booked: (tenant, placement) or None."""
        if self.home:
            tenant, closed = self.home
            self.used[tenant] -= 1
            if closed:
                self.place[tenant] = (0, *self.place[tenant][1:])
        if booked:
            tenant, placement = booked
            self.used[tenant] += placement["need"]
            self.place[tenant] = placement["after"]
        taken = booked[0] if booked else None
        if self.coming and self.coming[1] and self.coming[0] == taken:
            self.coming = None                # the booking came in the very cycle
        self.home, self.coming = self.coming, None
        tenant = self.rng.randrange(CONFIG.tenants)
        left = self.used[tenant] - (self.home is not None and self.home[0] == tenant)
        if self.home != (tenant, True) and self.rng.random() < self.pace:
            if left > self.place[tenant][0]:
                self.coming = (tenant, False)
            elif left and tenant != near:
                self.coming = (tenant, True)


class Model:
    """What the input must do with each packet, and what it books."""

    def __init__(self, rng, port, packets, tables, pace):
        self.rng, self.port, self.tables = rng, port, tables
        self.books = [Books(rng, pace) for _ in range(CONFIG.ports)]
        self.left = deque(packets)          # not decided on
        self.accumulators = [0] * CONFIG.tenants
        self.kinds, self.stalled = [], 0
        self.requests, self.stored = [], []   # (tenant, word); (destination, tenant, payload)

    def resolved(self, packet, table):
        """(destination, its tenant's accumulator then)."""
        if packet.destination != PROCESS or packet.tenant >= CONFIG.tenants:
            return packet.destination, None
        total = self.accumulators[packet.tenant] + table[packet.tenant]["host_share"]
        return (CONFIG.host_port if total >= 256 else CONFIG.engine_port), total % 256

    def is_granted(self, packet, table):
        """By the active table; also that it may fit one day."""
        destination, _ = self.resolved(packet, table)
        beats = -(-packet.announced // CONFIG.beat_bytes)
        if packet.tenant >= CONFIG.tenants or destination >= CONFIG.ports or not 1 <= beats <= 256:
            return False
        mine = table[packet.tenant]
        shared = CONFIG.pages - sum(content["pages"] for content in table)
        if -(-beats // PAGE_BEATS) > mine["pages"] + shared:
            return False
        if self.port == ENGINE and packet.flow_class == RESPONSE:
            return True
        back = destination != ENGINE or mine["ports"] >> self.port & 1
        return bool(mine["weight"] and mine["ports"] >> destination & 1 and back)

    def stamped(self, packet, table_epoch, cycle):
        answer = self.port == ENGINE and packet.flow_class == RESPONSE
        return {"tenant": packet.tenant, "source": self.port,
                "destination": self.resolved(packet, self.tables[table_epoch])[0], "length": packet.announced,
                "epoch": packet.epoch if answer else table_epoch, "flow_hash": packet.flow_hash,
                "flow_class": packet.flow_class, "timestamp": packet.timestamp if self.port == HOST else cycle}

    def decide(self, kind, header, epoch, cycle):
        """One packet was admitted or dropped: rightly? Returns its (destination, tenant, placement) if admitted."""
        packet, table = self.left.popleft(), self.tables[epoch]
        self.kinds.append(kind)
        assert header == self.stamped(packet, epoch, cycle) or (kind == "drop" and packet.destination == PROCESS)
        granted = self.is_granted(packet, table)
        if kind == "drop" and not granted:
            return None
        assert granted
        destination, total = self.resolved(packet, table)
        books = self.books[destination]
        placement = books.placement(packet.tenant, -(-packet.announced // CONFIG.beat_bytes))
        fits = books.fits(packet.tenant, placement["need"], [content["pages"] for content in table])
        assert fits == (kind == "admit")
        if kind == "drop":
            assert self.port == NET
            return None
        self.stored.append((destination, packet.tenant,
                            (packet.payload + bytes(packet.announced))[:packet.announced]))
        if packet.flow_class in REQUESTS and min(len(packet.payload), packet.announced) >= 8:
            self.requests.append((packet.tenant, int.from_bytes(packet.payload[:8], "little")))
        if total is not None:
            self.accumulators[packet.tenant] = total
        return destination, packet.tenant, placement


def place_of(value):
    return int(value.open), int(value.beats), int(value.descriptors)


class Checker:
    """Drives one admission with the model's books, and compares every cycle."""

    def __init__(self, dut, model, holds):
        self.dut, self.model, self.holds = dut, model, holds
        self.cycle, self.requests = 0, []
        self.stored, self.writing, self.payload = [], None, b""   # what is written whole; of the packet under way
        self.offered = deque()   # tenants of headers that were taken and are not decided on

    async def process(self, ctx):
        dut, model = self.dut, self.model
        i, headers = dut.ingress, dut.packets.header
        mine = [i.admit, i.drop, i.header, i.stalled, i.stalled_tenant, dut.pending, Cat(headers.valid, headers.ready),
                headers.payload.tenant, i.request, i.request_tenant, i.request_word.as_value()]
        theirs = [value for booking, point in zip(dut.bookings, dut.crosspoints, strict=True) for value in (
            booking.ask, Cat(booking.near, booking.near_tenant), booking.reserve,
            Cat(booking.above, booking.exact), booking.used, booking.quota, booking.left, booking.after, point.placed,
            Cat(point.put, point.write, point.first, point.end), point.tenant, point.header.as_value(), point.beat)]
        count = len(theirs) // CONFIG.ports
        while True:
            self.cycle = (self.cycle + 0x01234567) % (1 << 32)
            ctx.set(dut.cycle, self.cycle | 0xABCDEF << 32)
            epoch = ctx.get(dut.allocation.epoch)
            quotas = [content["pages"] for content in model.tables[epoch]]
            self.answer(ctx, quotas)
            found = (await ctx.tick().sample(*mine, *theirs))[2:]
            admit, drop, header, stalled, stalled_tenant, *waiting, request, tenant, word = found[:len(mine)]
            self.compare_pending(*waiting)
            decided = None
            if admit or drop:
                self.offered.popleft()
                decided = model.decide("admit" if admit else "drop", header_dict(header), epoch, self.cycle)
            if stalled:
                assert model.port != NET
                assert stalled_tenant == model.left[0].tenant
                model.stalled += 1
            if request:
                self.requests.append((tenant, word))
            for number, books in enumerate(model.books):
                mine_of = decided if decided and decided[0] == number else None
                told = found[len(mine) + count * number:][:count]
                self.follow(ctx, number, books, mine_of, quotas, *told[:9])
                self.store(number, mine_of, header.as_bits(), told[8], *told[9:])

    def answer(self, ctx, quotas):
        """Of each crosspoint to what it is asked for in this cycle."""
        for booking, books in zip(self.dut.bookings, self.model.books, strict=True):
            tenant, need = ctx.get(booking.tenant), ctx.get(booking.need)
            ctx.set(booking.fits, books.fits(tenant, need, quotas))
            uncertain = ctx.get(booking.above) and not ctx.get(booking.exact)
            ctx.set(booking.hold, bool(uncertain or books.home == (tenant, True) or self.holds()))

    def store(self, number, decided, header, placed, marks, tenant, header_now, beat):
        """One cycle of the writing side of one crosspoint: what an admitted packet says of itself, beat by beat."""
        put, write, first, end = (marks >> bit & 1 for bit in range(4))
        if decided:
            assert self.writing is None
            self.writing, self.payload = (number, decided[1], header, placed.as_bits()), b""
        assert put or not write
        if not write:
            return
        assert (number, tenant, header_now, placed.as_bits()) == self.writing
        assert (first == 1) == (decided is not None)
        count = CONFIG.beat_bytes - int(beat.empty)
        assert end == int(beat.last)
        assert end or not int(beat.empty)
        self.payload += int(beat.data).to_bytes(8, "little")[:count]
        if end:
            self.stored.append((number, tenant, self.payload))
            self.writing = None

    def compare_pending(self, pending, offered, tenant):
        """Tenants of headers that are offered, or were taken and are not decided on; of everybody when no more fit."""
        expected = {*self.offered, *([tenant] if offered & 1 else [])}
        mask = sum(1 << one for one in expected if one < CONFIG.tenants)
        assert pending & mask == mask
        if offered >> 1:
            assert pending == mask
        if offered == 3:
            self.offered.append(tenant)

    def follow(self, ctx, number, books, mine, quotas, ask, near, reserve, above, used, quota, left, after, placed):
        """One cycle of one crosspoint: what is booked is what was decided, and was computed from what it was told."""
        assert reserve == (mine is not None)
        if mine:
            _, tenant, placement = mine
            found = {name: int(placed[name]) for name in ("open", "shares", "start", "need", "slot")}
            assert {**found, "after": place_of(placed.after)} == placement
            assert place_of(after) == placement["after"]
            assert quota == quotas[tenant]
            assert (above & 1) == (placement["need"] > left)
            assert left == max(0, quota - used)
            assert used >= books.used[tenant]
            assert not above >> 1 or used == books.used[tenant], "not raced"
        place, pages, raced = books.answer(ask)
        is_open, beats, descriptors = place
        booking = self.dut.bookings[number]
        ctx.set(booking.place, {"open": is_open, "beats": beats, "descriptors": descriptors})
        ctx.set(booking.asked_used, pages)
        ctx.set(booking.asked_raced, raced)
        books.step(near >> 1 if near & 1 else None, mine[1:] if mine else None)


def random_packets(rng, count, port):
    """Runs of packets of one tenant and destination, and strays; every bit of a header is used."""
    packets, tenant, destination = [], 0, 0
    for _ in range(count):
        if rng.random() < 0.5:
            tenant = rng.choice([0, 0, 1, 1, 2, 3, rng.randrange(64)])
            destination = rng.choice([0, 1, 2, PROCESS, PROCESS, rng.randrange(16)])
        beats = rng.choice([1, 1, 1, 2, 3, 15, 16, 17, rng.randrange(1, 40), rng.choice([255, 256, 40])])
        length = rng.choice([8 * beats, max(1, 8 * beats - rng.randrange(9))])
        stray = rng.random()
        announced = rng.choice([0, 2049, rng.randrange(4096), rng.randrange(1, 60)]) if stray < 0.15 else None
        packets.append(Packet(tenant, destination, rng.randbytes(length), rng.choice([0, 1, 2, 3, *REQUESTS, RESPONSE]),
                              rng.getrandbits(16), announced, port, rng.getrandbits(8), rng.getrandbits(32)))
    return packets


def random_table(rng):
    cuts = sorted(rng.randrange(CONFIG.pages + 1) for _ in range(CONFIG.tenants))
    quotas = [after - before for before, after in zip([0, *cuts], cuts, strict=False)]
    return [row(CONFIG, weight=rng.choice([1, 1 << rng.randrange(16), rng.choice([0, 65535])]), pages=quota,
                rate=FULL_RATE, ports=rng.choice([7, 7, 7, rng.randrange(8)]),
                host_share=rng.choice([0, 256, 128, rng.randrange(257)])) for quota in quotas]


@pytest.mark.parametrize(("idle", "hold", "pace", "port"), [
    (0, 0, 0.2, HOST), (0.3, 0.1, 0.05, NET), (0, 0, 0.2, ENGINE),
    *(pytest.param(*case, marks=pytest.mark.long) for case in (
        (0.3, 0.1, 0.05, HOST), (0, 0, 0.2, NET), (0.3, 0.1, 0.05, ENGINE))),
])
def test_decisions_bookings_and_headers_are_those_of_the_model(port, idle, hold, pace):
    rng = random.Random(f"{port} {pace}")
    packets = random_packets(rng, 200, port)
    tables = {0: None}
    model = Model(rng, port, packets, tables, pace)
    dut = Admission(CONFIG, port)
    checker = Checker(dut, model, lambda: rng.random() < hold)
    tables[0] = [row(CONFIG, weight=4096, pages=CONFIG.pages, ports=7, host_share=0)] + [row(CONFIG)] * 3
    started = False

    async def when_started(drive, *arguments):
        *arguments, ctx = arguments
        while not started:
            await ctx.tick()
        await drive(ctx, *arguments)

    async def commits(ctx):
        nonlocal started
        bank, epoch = 0, 0
        while model.left:
            rows = random_table(rng)
            tables[epoch + 1] = rows
            bank, epoch = await commit(ctx, dut.allocation, rows, bank, epoch)
            started = True
            await ctx.tick().repeat(rng.choice([1, 5, 100, 200]))
            assert epoch < 250, "it is taking too long"
        await ctx.tick().repeat(300)   # the longest packet that was admitted last is filled up

    stream = dut.packets
    simulate(dut, commits, background=[
        partial(when_started, drive_headers, stream.header, packets),
        partial(when_started, drive_beats, stream.data, packets, CONFIG.beat_bytes, lambda: rng.random() < idle),
        checker.process])
    assert not model.left
    assert checker.stored == model.stored
    assert checker.requests == model.requests
    assert model.requests
    assert {"admit", "drop"} == set(model.kinds)
    assert model.stalled or port == NET or pace > 0.1
