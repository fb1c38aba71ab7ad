"""Host queues against a golden model: good rings and hostile ones side by side, with pauses on every side."""

import random
from dataclasses import dataclass, field

import pytest

from gateware.config import CREDIT_BEATS, DeviceConfig
from gateware.pcie.dma import Command, Outcome, Report
from gateware.pcie.queue_engine import BAD_INDEX, PATIENCE, Status
from gateware.pcie.queue_table import CONTROL, DROPPED, FAULT, HEAD, RECEIVED, REFUSED, SENT, TAIL
from gateware.pcie.queues import HostQueues
from gateware.stream.packet import FlowClass, PacketHeader, beat_layout
from tests.gateware.csr.initiator import access
from tests.gateware.pcie.tlps import fields, payload_bits, sink, until
from tests.gateware.simulation import simulate

TENANTS = 3
CONFIG = DeviceConfig(tenants=TENANTS, pcie_width=64, host_queues=True)
LONGEST = CREDIT_BEATS * CONFIG.beat_bytes
ORDER, ENTRIES = 4, 16
SIZE, TX, RX, ROOM = 0x4000, 0x100, 0x200, 0x1000  # guest memory: rings, then payloads
GENERATION = 5
DONE = 1 << 31


@dataclass
class Tenant:
    """Memory of a tenant, and what the golden model says of it."""

    number: int
    memory: bytearray
    sent: list = field(default_factory=list)
    counts: dict = field(default_factory=lambda: dict.fromkeys((SENT, RECEIVED, REFUSED, DROPPED), 0))
    heads: list = field(default_factory=lambda: [0, 0])
    tails: list = field(default_factory=lambda: [0, 0])
    messages: int = 0

    def put(self, address, *words):
        for index, word in enumerate(words):
            self.memory[address + 4 * index:address + 4 * index + 4] = word.to_bytes(4, "little")

    def word(self, address):
        return int.from_bytes(self.memory[address:address + 4], "little")


def place(ring, index):
    return (TX, RX)[ring] + 16 * (index % ENTRIES)


class Dma:
    """The engines with their gate, for tenants whose memory begins at guest address 0: refuses what lies outside."""

    def __init__(self, port, size, tenants, rng, idle, latency=0):
        self.port, self.tenants, self.rng, self.idle, self.latency = port, tenants, rng, idle, latency
        self.size = size  # of a beat, in bytes
        self.now, self.commands, self.resets = 0, {"read": [], "write": []}, 0

    def background(self):
        return [self.count, self.reads, self.writes, *(self.accept(side) for side in self.commands)]

    async def count(self, ctx):
        while True:
            await ctx.tick()
            self.now += 1

    def accept(self, side):
        async def run(ctx):
            while True:
                command = await self.next(ctx, getattr(self.port, f"{side}_commands"))
                self.commands[side].append((self.now + self.latency, command))
        return run

    async def due(self, ctx, side):
        """The oldest command, when its time has come."""
        commands = self.commands[side]
        while not commands or commands[0][0] > self.now:
            await ctx.tick()
        return self.resets, commands.pop(0)[1]

    def reset(self):
        """The engines forget their commands; what they offer is withdrawn."""
        self.resets += 1
        for commands in self.commands.values():
            commands.clear()

    def outcome(self, command):
        if command["generation"] != GENERATION:
            return Outcome.STALE
        inside = command["address"] + command["length"] <= SIZE
        return Outcome.DONE if inside else Outcome.NO_REGION

    async def pause(self, ctx):
        while self.rng.random() < self.idle:
            await ctx.tick()

    async def reads(self, ctx):
        port = self.port
        while True:
            resets, command = await self.due(ctx, "read")
            outcome, (start, length) = self.outcome(command), (command["address"], command["length"])
            memory = self.tenants[command["tenant"]].memory
            content = bytes(memory[start:start + length] if outcome is Outcome.DONE else self.size)
            beats = [content[at:at + self.size] for at in range(0, len(content), self.size)]
            for index, beat in enumerate(beats):
                last = index == len(beats) - 1
                await self.offer(ctx, port.read_data, int.from_bytes(beat, "little") | last << 8 * self.size, resets)
            await self.report(ctx, port.read_reports, outcome, resets)

    async def writes(self, ctx):
        port = self.port
        while True:
            resets, command = await self.due(ctx, "write")
            outcome, content = self.outcome(command), b""
            while len(content) < command["length"] and self.resets == resets:
                ready = self.rng.random() >= self.idle
                ctx.set(port.write_data.ready, ready)
                _, _, valid, word = await ctx.tick().sample(port.write_data.valid, port.write_data.payload)
                ctx.set(port.write_data.ready, 0)
                content += word.to_bytes(self.size, "little") if ready and valid else b""
            if outcome is Outcome.DONE and self.resets == resets:
                memory, start = self.tenants[command["tenant"]].memory, command["address"]
                memory[start:start + command["length"]] = content[:command["length"]]
            await self.report(ctx, port.write_reports, outcome, resets)

    async def next(self, ctx, commands):
        await self.pause(ctx)
        ctx.set(commands.ready, 1)
        valid = bits = 0
        while not valid:   # not `until`: it complains when the test ends while it waits
            _, _, valid, bits = await ctx.tick().sample(commands.valid, payload_bits(commands))
        ctx.set(commands.ready, 0)
        return fields(Command, bits)

    async def offer(self, ctx, stream, bits, resets):
        await self.pause(ctx)
        ctx.set(payload_bits(stream), bits)
        ctx.set(stream.valid, self.resets == resets)
        while self.resets == resets and not (await ctx.tick().sample(stream.ready))[2]:
            pass
        ctx.set(stream.valid, 0)

    async def report(self, ctx, stream, outcome, resets):
        await self.offer(ctx, stream, Report.const({"tag": 0, "outcome": outcome}).as_bits(), resets)


class Bench:
    """The queues with a fabric that takes and gives packets, and a program for each tenant."""

    def __init__(self, seed, idle, latency=0, config=CONFIG):
        print("seed", seed, "idle", idle)
        self.config = config
        self.rng, self.idle = random.Random(seed), idle
        self.dut = HostQueues(config)
        self.tenants = [Tenant(number, bytearray(self.rng.randbytes(SIZE))) for number in range(TENANTS)]
        for tenant in self.tenants:
            tenant.memory[:ROOM] = bytes(ROOM)
        self.dma = Dma(self.dut.dma, config.beat_bytes, self.tenants, self.rng, idle, latency)
        self.headers, self.beats, self.other_headers, self.other_beats = [], [], [], []

    def run(self, test):
        def busy():
            return self.rng.random() < self.idle
        dut = self.dut
        simulate(dut, test, background=[
            *self.dma.background(), sink(dut.transmit.header, self.headers, busy),
            sink(dut.transmit.data, self.beats, busy), sink(dut.others.header, self.other_headers),
            sink(dut.others.data, self.other_beats), self.count])

    async def count(self, ctx):
        while True:
            _, _, raised = await ctx.tick().sample(self.dut.raised)
            for tenant in self.tenants:
                tenant.messages += raised >> tenant.number & 1

    async def word(self, ctx, tenant, word, value=None):
        error, got, _ = await access(ctx, self.dut.registers, 64 * tenant + 4 * word, value)
        assert error == 0
        return got

    async def enable(self, ctx, tenant, tx=TX, rx=RX):
        for word, value in enumerate((tx, 0, rx, 0, GENERATION << 8 | ORDER << 4 | 1)):
            await self.word(ctx, tenant, word, value)

    def post(self, tenant, ring, descriptor):
        """Write a descriptor; the model's `tails` go on. `ring`: 0 transmit, 1 receive."""
        tenant.put(place(ring, tenant.tails[ring]), *descriptor)
        tenant.tails[ring] += 1

    def packets(self, headers, beats):
        """(tenant, header fields, bytes) of what left."""
        found, left = [], list(beats)
        for bits in headers:
            header, content = fields(PacketHeader, bits), b""
            while True:
                beat = left.pop(0)
                last, empty = beat >> 67 & 1, beat >> 64 & 7
                content += (beat & (1 << 64) - 1).to_bytes(8, "little")
                assert last or not empty
                if last:
                    break
            found.append((header["tenant"], header, content[:len(content) - empty]))
        assert left == []
        return found

    async def deliver(self, ctx, tenant, content):
        """A packet from the fabric."""
        port, size, layout = self.dut.receive, self.config.beat_bytes, beat_layout(self.config)
        header = PacketHeader.const({"tenant": tenant, "length": len(content)}).as_bits()
        ctx.set(payload_bits(port.header), header)
        ctx.set(port.header.valid, 1)
        pieces = [content[at:at + size] for at in range(0, len(content), size)]
        offered = True
        for index, piece in enumerate(pieces):
            while self.rng.random() < self.idle:
                offered = await self.clock(ctx, port, offered)
            last = index == len(pieces) - 1
            ctx.set(payload_bits(port.data), layout.const({
                "data": int.from_bytes(piece, "little"), "empty": size - len(piece), "last": last}).as_bits())
            ctx.set(port.data.valid, 1)
            taken = False
            while not taken:
                _, _, header_ready, taken = await ctx.tick().sample(port.header.ready, port.data.ready)
                if offered and header_ready:
                    ctx.set(port.header.valid, 0)
                    offered = False
            ctx.set(port.data.valid, 0)

    async def clock(self, ctx, port, offered):
        _, _, ready = await ctx.tick().sample(port.header.ready)
        if offered and ready:
            ctx.set(port.header.valid, 0)
            return False
        return offered

    async def settle(self, ctx, tenant, ring):
        """Until the head has reached the tail."""
        for _ in range(400):
            if await self.word(ctx, tenant.number, HEAD + ring) == tenant.tails[ring] & 0xFFFF:
                return
            await ctx.tick().repeat(20)
        raise AssertionError(f"queue {tenant.number} does not go on")


def transmit(bench, tenant):
    """Post a random descriptor, some of them hostile; the model says what must come of it."""
    rng = bench.rng
    length = rng.choice([1, 8, rng.randrange(1, LONGEST + 1), LONGEST])
    address = ROOM + rng.randrange(SIZE - ROOM - LONGEST)
    status, fault = Status.DONE.value, rng.random()
    if fault < 0.1:
        length, status = rng.choice([0, LONGEST + 1, 0xFFFF]), Status.LENGTH.value
    elif fault < 0.2:
        address, status = rng.choice([SIZE - length + 1, 1 << 60, (1 << 64) - 8]), Outcome.NO_REGION.value
    destination, flow_class, flow = rng.randrange(16), rng.choice(list(FlowClass)).value, rng.getrandbits(16)
    index = tenant.tails[0]
    bench.post(tenant, 0, (address & 0xFFFFFFFF, address >> 32, length | destination << 16 | flow_class << 20, flow))
    if status == 0:
        tenant.sent.append((destination, flow_class, flow, bytes(tenant.memory[address:address + length])))
    tenant.counts[REFUSED if status else SENT] += 1
    return place(0, index), length if status == 0 else 0, status


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "idle"), [pytest.param(0, 0.0, marks=pytest.mark.long), (1, 0.4)])
def test_what_rings_post_is_sent_in_order_and_what_is_wrong_with_one_is_said_there(seed, idle):
    bench = Bench(seed, idle)

    async def test(ctx):
        ctx.set(bench.dut.credit, -1)
        for tenant in bench.tenants:
            await bench.enable(ctx, tenant.number)
        for _ in range(3):
            expected = {tenant.number: [transmit(bench, tenant) for _ in range(bench.rng.randrange(1, ENTRIES + 1))]
                        for tenant in bench.tenants}
            for tenant in bench.tenants:
                await bench.word(ctx, tenant.number, TAIL, tenant.tails[0])
            for tenant in bench.tenants:
                await bench.settle(ctx, tenant, 0)
                for address, length, status in expected[tenant.number]:
                    assert (tenant.word(address + 8), tenant.word(address + 12)) == (length, DONE | status << 16)
        await ctx.tick().repeat(200)
        found = bench.packets(bench.headers, bench.beats)
        for tenant in bench.tenants:
            sent = [(header["destination"], header["flow_class"], header["flow_hash"], content)
                    for number, header, content in found if number == tenant.number]
            assert sent == tenant.sent
            assert all(header["length"] == len(content) for _, header, content in found)
            for word in (SENT, REFUSED):
                assert await bench.word(ctx, tenant.number, word) == tenant.counts[word]
            assert 3 <= tenant.messages <= tenant.counts[SENT] + tenant.counts[REFUSED]

    bench.run(test)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "idle"), [pytest.param(2, 0.0, marks=pytest.mark.long), (3, 0.4)])
def test_packets_are_received_into_posted_buffers_or_dropped_and_counted(seed, idle):
    bench = Bench(seed, idle)

    async def test(ctx):
        rng, passed = bench.rng, []
        for number in (0, 1):
            await bench.enable(ctx, number)
        for round_ in range(10):
            tenant, content = bench.tenants[rng.randrange(TENANTS)], rng.randbytes(rng.randrange(1, 200))
            if tenant.number == 2:  # has no queue
                passed.append(content)
                await bench.deliver(ctx, 2, content)
                continue
            case = rng.choice(["room", "room", "too small", "nothing", "outside"])
            address, room = ROOM + 256 * round_, len(content) + rng.randrange(3)
            if case == "outside":
                address = SIZE - len(content) + 1
            if case == "too small":
                room = len(content) - 1
            before, index = bytes(tenant.memory), place(1, tenant.tails[1])
            if case != "nothing":
                bench.post(tenant, 1, (address, 0, room, 0))
                await bench.word(ctx, tenant.number, TAIL + 1, tenant.tails[1])
            messages = tenant.messages
            await bench.deliver(ctx, tenant.number, content)
            await bench.settle(ctx, tenant, 1)
            await ctx.tick().repeat(100)
            status = {"room": 0, "too small": Status.NO_ROOM.value, "outside": Outcome.NO_REGION.value}.get(case)
            tenant.counts[{"room": RECEIVED, "nothing": DROPPED}.get(case, REFUSED)] += 1
            if case == "nothing":
                assert bytes(tenant.memory) == before
                assert tenant.messages == messages
                continue
            assert (tenant.word(index + 8), tenant.word(index + 12)) == (
                len(content) if case == "room" else 0, DONE | status << 16)
            assert tenant.messages == messages + 1
            if case == "room":
                assert bytes(tenant.memory[address:address + len(content)]) == content
        for tenant in bench.tenants[:2]:
            for word, count in tenant.counts.items():
                assert await bench.word(ctx, tenant.number, word) == count
        assert [content for *_, content in bench.packets(bench.other_headers, bench.other_beats)] == passed

    bench.run(test)


@pytest.mark.slow
def test_a_hostile_ring_stops_itself_and_disturbs_nobody():
    """Bad index, ring outside of the region, another's generation: the queue ends with its fault; others go on."""
    bench = Bench(4, 0.2)

    async def test(ctx):
        dut, (victim, hostile, _) = bench.dut, bench.tenants
        ctx.set(dut.credit, -1)
        await bench.enable(ctx, 0)
        for tail, ring, generation, fault in (
                (ENTRIES + 1, TX, GENERATION, BAD_INDEX), (0xFFFF, TX, GENERATION, BAD_INDEX),
                (1, SIZE - 8, GENERATION, Outcome.NO_REGION.value), (1, TX, GENERATION + 1, Outcome.STALE.value)):
            await bench.enable(ctx, 1, tx=ring)
            await bench.word(ctx, 1, CONTROL, generation << 8 | ORDER << 4 | 1)
            untouched, messages = bytes(hostile.memory), hostile.messages
            await bench.word(ctx, 1, TAIL, tail)
            transmit(bench, victim)
            await bench.word(ctx, 0, TAIL, victim.tails[0])
            await bench.settle(ctx, victim, 0)
            await ctx.tick().repeat(100)
            assert await bench.word(ctx, 1, FAULT) == fault
            assert await bench.word(ctx, 1, CONTROL) & 1 == 0
            assert hostile.messages == messages + 1
            assert bytes(hostile.memory) == untouched
            await bench.word(ctx, 1, TAIL, 0)
        found = bench.packets(bench.headers, bench.beats)
        assert [content for *_, content in found] == [content for *_, content in victim.sent]
        # Enabled anew it is as new, and works.
        hostile.memory[:ROOM] = bytes(ROOM)
        await bench.enable(ctx, 1)
        assert [await bench.word(ctx, 1, word) for word in (HEAD, REFUSED, FAULT)] == [0, 0, 0]
        bench.post(hostile, 0, (ROOM, 0, 9, 0))
        await bench.word(ctx, 1, TAIL, 1)
        await bench.settle(ctx, hostile, 0)
        assert hostile.word(TX + 12) == DONE

    bench.run(test)


@pytest.mark.slow
def test_a_tenant_without_credit_waits_alone_and_a_reset_disables_all():
    bench = Bench(5, 0.0)

    async def test(ctx):
        dut, (first, second, _) = bench.dut, bench.tenants
        for tenant in (first, second):
            await bench.enable(ctx, tenant.number)
            bench.post(tenant, 0, (ROOM, 0, 40, 0))
        ctx.set(dut.credit, 0b010)
        for tenant in (first, second):
            await bench.word(ctx, tenant.number, TAIL, 1)
        await bench.settle(ctx, second, 0)
        await ctx.tick().repeat(300)
        assert await bench.word(ctx, 0, HEAD) == 0
        ctx.set(dut.credit, 0b011)
        await bench.settle(ctx, first, 0)
        await until(ctx, lambda: len(bench.beats) == 10)
        ctx.set(dut.abandon, 1)
        await ctx.tick()
        ctx.set(dut.abandon, 0)
        for number in (0, 1):
            assert await bench.word(ctx, number, CONTROL) & 1 == 0
        assert (await access(ctx, dut.registers, 64 * TENANTS))[0] == 1
        assert (await access(ctx, dut.registers, 4 * HEAD, 0))[0] == 1

    bench.run(test)


@pytest.mark.slow
def test_many_descriptors_of_a_ring_are_in_progress_and_given_back_several_at_a_time():
    """Two reads and a write one after another would take 3 latencies a packet; counts wrap on the way."""
    latency, rounds = 100, 6
    bench = Bench(6, 0.0, latency)

    async def test(ctx):
        tenant = bench.tenants[0]
        ctx.set(bench.dut.credit, -1)
        await bench.enable(ctx, 0)
        for _ in range(rounds):
            content = [bytes(tenant.memory[ROOM + 64 * index:ROOM + 64 * (index + 1)]) for index in range(ENTRIES)]
            for index in range(ENTRIES):
                bench.post(tenant, 0, (ROOM + 64 * index, 0, 64, 0))
            begun, messages = bench.dma.now, tenant.messages
            await bench.word(ctx, 0, TAIL, tenant.tails[0])
            await bench.settle(ctx, tenant, 0)
            taken = bench.dma.now - begun
            assert taken < ENTRIES * latency, "not one after another"
            assert tenant.messages - messages <= ENTRIES // 4
            assert [found for *_, found in bench.packets(bench.headers, bench.beats)][-ENTRIES:] == content
        assert await bench.word(ctx, 0, SENT) == ENTRIES * rounds

    bench.run(test)


@pytest.mark.slow
def test_packets_that_arrive_steadily_are_given_back_several_at_a_time_however_slowly_they_come():
    """Eight of these take longer than a descriptor has to be old: what came behind an old one was taken for old too."""
    bench, length = Bench(10, 0.0), 64 * CONFIG.beat_bytes

    async def test(ctx):
        tenant = bench.tenants[0]
        await bench.enable(ctx, 0)
        for _ in range(2):
            contents = [bench.rng.randbytes(length) for _ in range(ENTRIES)]
            for index in range(ENTRIES):
                bench.post(tenant, 1, (ROOM + length * index, 0, length, 0))
            messages = tenant.messages
            await bench.word(ctx, 0, TAIL + 1, tenant.tails[1])
            for content in contents:
                await bench.deliver(ctx, 0, content)
            await bench.settle(ctx, tenant, 1)
            assert bytes(tenant.memory[ROOM:ROOM + length * ENTRIES]) == b"".join(contents)
            assert tenant.messages - messages <= ENTRIES // 4

    assert PATIENCE < 8 * 64
    bench.run(test)


@pytest.mark.slow
@pytest.mark.parametrize("width", [128, 512])
def test_descriptors_that_share_a_beat_are_given_back_each_as_it_ended(width):
    """More than a beat's, not a multiple of it, across the end of the ring, good ones among bad ones."""
    bench = Bench(12, 0.2, 30, DeviceConfig(tenants=TENANTS, data_width=width, pcie_width=width, host_queues=True))

    async def test(ctx):
        tenant = bench.tenants[0]
        await bench.enable(ctx, 0)
        for count in (3, 11, 13):
            first, contents = tenant.tails[1], [bench.rng.randbytes(bench.rng.randrange(1, 200)) for _ in range(count)]
            rooms = [len(content) - (bench.rng.random() < 0.3) for content in contents]
            for index, room in enumerate(rooms):
                bench.post(tenant, 1, (ROOM + 256 * index, 0, room, 0xABCD0000))
            await bench.word(ctx, 0, TAIL + 1, tenant.tails[1])
            for content in contents:
                await bench.deliver(ctx, 0, content)
            await bench.settle(ctx, tenant, 1)
            for index, (content, room) in enumerate(zip(contents, rooms, strict=True)):
                at, fits = place(1, first + index), room >= len(content)
                assert tenant.word(at) == ROOM + 256 * index
                assert (tenant.word(at + 8), tenant.word(at + 12)) == (
                    (len(content), DONE) if fits else (0, DONE | Status.NO_ROOM.value << 16))
                if fits:
                    assert tenant.memory[ROOM + 256 * index:ROOM + 256 * index + len(content)] == content
                tenant.counts[RECEIVED if fits else REFUSED] += 1
            for word, counted in tenant.counts.items():
                assert await bench.word(ctx, 0, word) == counted

    bench.run(test)


@pytest.mark.slow
def test_a_lone_packet_is_given_back_at_once():
    bench = Bench(11, 0.0)

    async def test(ctx):
        tenant = bench.tenants[0]
        await bench.enable(ctx, 0)
        for _ in range(3):
            bench.post(tenant, 1, (ROOM, 0, 64, 0))
            await bench.word(ctx, 0, TAIL + 1, tenant.tails[1])
            await ctx.tick().repeat(60)
            messages = tenant.messages
            await bench.deliver(ctx, 0, bench.rng.randbytes(64))
            begun = bench.dma.now
            await until(ctx, lambda messages=messages: tenant.messages > messages)
            assert bench.dma.now - begun < PATIENCE // 2

    bench.run(test)


@pytest.mark.slow
def test_full_rings_without_credit_hold_up_nobody():
    """Two tenants fill their rings, and what the device keeps of them; a third one sends as if it were alone."""
    bench = Bench(7, 0.1, 50)

    async def test(ctx):
        free, stuck = bench.tenants[2], bench.tenants[:2]
        ctx.set(bench.dut.credit, 0b100)
        for tenant in bench.tenants:
            await bench.enable(ctx, tenant.number)
        for tenant in stuck:
            for _ in range(ENTRIES):
                bench.post(tenant, 0, (ROOM, 0, LONGEST, 0))
            await bench.word(ctx, tenant.number, TAIL, ENTRIES)
        await ctx.tick().repeat(4000)
        for _ in range(2):
            for _ in range(ENTRIES):
                transmit(bench, free)
            await bench.word(ctx, 2, TAIL, free.tails[0])
            await bench.settle(ctx, free, 0)
        for tenant in stuck:
            assert await bench.word(ctx, tenant.number, HEAD) == 0
        await ctx.tick().repeat(200)
        assert {tenant for tenant, *_ in bench.packets(bench.headers, bench.beats)} == {2}
        ctx.set(bench.dut.credit, 0b111)
        for tenant in stuck:
            await bench.settle(ctx, tenant, 0)

    bench.run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [8, pytest.param(9, marks=pytest.mark.long)])
def test_a_reset_with_descriptors_in_flight_leaves_whole_packets_and_queues_that_work_again(seed):
    bench = Bench(seed, 0.2, 40)

    async def test(ctx):
        dut, tenant = bench.dut, bench.tenants[1]
        ctx.set(dut.credit, -1)
        for _ in range(4):
            await bench.enable(ctx, 1)
            tenant.tails = [0, 0]
            for index in range(ENTRIES):
                bench.post(tenant, 0, (ROOM + LONGEST * index, 0, LONGEST, index))
                bench.post(tenant, 1, (ROOM + 0x2000, 0, 64, 0))
            for ring in (0, 1):
                await bench.word(ctx, 1, TAIL + ring, ENTRIES)
            await bench.deliver(ctx, 1, bench.rng.randbytes(60))
            await ctx.tick().repeat(bench.rng.randrange(1, 1500))
            ctx.set(dut.abandon, 1)
            await ctx.tick()
            ctx.set(dut.abandon, 0)
            bench.dma.reset()  # ... together with the queues
            await ctx.tick().repeat(bench.rng.randrange(1, 30))
        await ctx.tick().repeat(200)
        whole = [bytes(tenant.memory[ROOM + LONGEST * index:ROOM + LONGEST * (index + 1)]) for index in range(ENTRIES)]
        assert all(content == whole[header["flow_hash"]]
                   for _, header, content in bench.packets(bench.headers, bench.beats))
        await bench.enable(ctx, 1)
        bench.post(tenant, 0, (ROOM, 0, 9, 0))
        tenant.tails = [1, 0]
        tenant.put(place(0, 0), ROOM, 0, 9, 0)
        await bench.word(ctx, 1, TAIL, 1)
        await bench.settle(ctx, tenant, 0)
        assert tenant.word(place(0, 0) + 12) == DONE

    bench.run(test)
