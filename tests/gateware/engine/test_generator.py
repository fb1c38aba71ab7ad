"""Generator and checker: the loop back to the host port, and every way in which a packet can come back wrong."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.csr import regmap
from gateware.engine.generator import Generator
from gateware.engine.pattern import FLOW_HASH, pattern_bytes
from gateware.stream.packet import Opcode
from tests.gateware.csr.initiator import access
from tests.gateware.packets import Pace, Packet, Sink, beats_of

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

BLOCK = regmap.node("generator")
OFFSET = {register.name: BLOCK.address + register.offset for register in BLOCK.registers}
COUNTERS = ("sent", "received", "corrupted", "missequenced")
TENANT = 5


def settings(*, length=64, flow_class=0, destination=0):
    return TENANT | destination << 8 | flow_class << 12 | length << 16


class Bench:
    """A generator whose software side is a test bench."""

    def __init__(self, config):
        self.dut = Generator(config)
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-8)

    async def write(self, ctx, name, value):
        error, _, _ = await access(ctx, self.dut.bus, OFFSET[name], value)
        assert not error

    async def counters(self, ctx):
        values = {}
        for name in COUNTERS:
            _, values[name], _ = await access(ctx, self.dut.bus, OFFSET[name])
        return values


def generate(config, count, *, length=64, interval=0, stall=0.0):
    """Packets and last-beat cycles of a run, and the counters after it."""
    bench, result = Bench(config), {}
    sink = Sink(bench.simulator, bench.dut.packets, config, Pace(stall, 1))

    async def software(ctx):
        await bench.write(ctx, "packet", settings(length=length))
        await bench.write(ctx, "interval", interval)
        await bench.write(ctx, "count", count)
        await bench.write(ctx, "control", 1)
        while len(sink.packets) < count:
            await ctx.tick()
        for _ in range(30):
            await ctx.tick()
        result.update(await bench.counters(ctx))

    bench.simulator.add_testbench(software)
    bench.simulator.run()
    return sink, result


@pytest.mark.slow
@pytest.mark.parametrize("data_width", [32, 64, 128, 512])
@pytest.mark.parametrize(("length", "stall"), [(64, 0), (256, 0.4), (16, 0.2)])
def test_packets_carry_the_pattern_and_count_up(data_width, length, stall):
    config = DeviceConfig(data_width=data_width)
    sink, counters = generate(config, 6, length=length, stall=stall)
    assert [packet.payload for packet in sink.packets] == [
        pattern_bytes(TENANT, sequence, length) for sequence in range(6)]
    for packet in sink.packets:
        assert packet.fields["tenant"] == TENANT
        assert packet.fields["flow_hash"] == FLOW_HASH
        assert packet.fields["length"] == length
    assert counters == {"sent": 6, "received": 0, "corrupted": 0, "missequenced": 0}


def test_packets_are_requests_with_their_sequence_number():
    for sequence in (0, 1, 0xABCDEF):
        word = int.from_bytes(pattern_bytes(TENANT, sequence, 16)[:8], "little")
        assert (word & (1 << 36) - 1, word >> 36 & 15, word >> 40) == (sequence, Opcode.READ.value, sequence)


def test_pattern_tells_tenants_sequences_and_places_apart():
    words = set()
    for tenant in (0, 1, 63):
        for sequence in (0, 1, 255, 256):
            payload = pattern_bytes(tenant, sequence, 256)
            words |= {payload[place:place + 4] for place in range(8, 256, 4)}
    assert len(words) == 3 * 4 * 62


def test_as_fast_as_accepted_leaves_no_gap():
    sink, _ = generate(DeviceConfig(), 10, length=64)
    assert sink.cycles[-1] - sink.cycles[0] == 9 * 8


def test_interval_is_between_the_starts():
    sink, _ = generate(DeviceConfig(), 6, length=64, interval=33)
    gaps = {after - before for before, after in zip(sink.cycles, sink.cycles[1:], strict=False)}
    assert gaps == {33}


@pytest.mark.parametrize(("asked", "sent"), [(3, 16), (2100, 2048)])
def test_impossible_length_is_cut_to_the_limits(asked, sent):
    sink, _ = generate(DeviceConfig(), 1, length=asked)
    assert len(sink.packets[0].payload) == sent


def returned(payload, **fields):
    return Packet(payload, {"tenant": TENANT, "flow_hash": FLOW_HASH, "flow_class": 0, **fields})


def judge(packets, config, *, idle=0.0):
    """Counters of the checker after `packets` came back; each header passes with some beat of its packet."""
    bench, result, rng = Bench(config), {}, random.Random(2)
    header, data = bench.dut.returned.header, bench.dut.returned.data

    async def software(ctx):
        await bench.write(ctx, "packet", settings())
        for packet in packets:
            beats = beats_of(packet.payload, config)
            with_beat = rng.randrange(len(beats))
            for index, (word, empty, last) in enumerate(beats):
                while rng.random() < idle:
                    await ctx.tick()
                ctx.set(header.payload, packet.header())
                ctx.set(header.valid, index == with_beat)
                ctx.set(data.payload, {"data": word, "empty": empty, "last": last})
                ctx.set(data.valid, 1)
                await ctx.tick()
                ctx.set(header.valid, 0)
                ctx.set(data.valid, 0)
        for _ in range(10):
            await ctx.tick()
        result.update(await bench.counters(ctx))
        await bench.write(ctx, "control", 2)
        assert not any((await bench.counters(ctx)).values()), "clear left something"

    bench.simulator.add_testbench(software)
    bench.simulator.run()
    return [result[name] for name in COUNTERS[1:]]


@pytest.mark.parametrize("data_width", [32, 64, 256])
@pytest.mark.parametrize("idle", [0, 0.5])
def test_what_comes_back_unchanged_is_only_received(data_width, idle):
    packets = [returned(pattern_bytes(TENANT, sequence, 96)) for sequence in range(8)]
    assert judge(packets, DeviceConfig(data_width=data_width), idle=idle) == [8, 0, 0]


@pytest.mark.parametrize("data_width", [32, 64, 256])
def test_every_changed_byte_is_seen(data_width):
    rng = random.Random(3)
    packets, sequence_hurt = [], 0
    for sequence in range(40):
        payload = bytearray(pattern_bytes(TENANT, sequence, 40))
        payload[sequence] ^= 1 << rng.randrange(8)
        # The sequence number itself, in the copy that the checker reads, also breaks the order, twice.
        place = range(0, 3) if data_width == 32 else range(5, 8)
        sequence_hurt += sequence in place
        packets.append(returned(bytes(payload)))
    received, corrupted, missequenced = judge(packets, DeviceConfig(data_width=data_width))
    assert (received, corrupted) == (40, 40)
    assert (missequenced > 0) == (sequence_hurt > 0)


@pytest.mark.parametrize(("order", "missequenced"), [
    ([0, 1, 2, 3], 0), ([0, 2, 3], 1), ([0, 0, 1], 1), ([1, 0, 2], 3), ([5], 1)])
def test_lost_repeated_and_reordered_packets_are_missequenced(order, missequenced):
    packets = [returned(pattern_bytes(TENANT, sequence, 32)) for sequence in order]
    assert judge(packets, DeviceConfig()) == [len(order), 0, missequenced]


def test_shortened_packet_is_corrupted():
    packets = [returned(pattern_bytes(TENANT, 0, 32), length=40), returned(pattern_bytes(TENANT, 1, 24), length=24)]
    assert judge(packets, DeviceConfig()) == [2, 1, 0]


def test_packets_of_others_are_not_looked_at():
    rng = random.Random(4)
    others = [returned(rng.randbytes(50), tenant=TENANT + 1), returned(rng.randbytes(50), flow_hash=1),
              returned(rng.randbytes(16), flow_class=12)]
    packets = [others[0], returned(pattern_bytes(TENANT, 0, 64)), *others, returned(pattern_bytes(TENANT, 1, 64))]
    assert judge(packets, DeviceConfig()) == [2, 0, 0]
