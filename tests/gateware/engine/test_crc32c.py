"""The CRC-32C shard against google-crc32c, over all short lengths, the largest, and every beat width."""

import random

import google_crc32c
import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.engine.crc32c import Crc32cCore, Crc32cShard, crc32c_tables
from gateware.engine.refuser import Refuser
from gateware.engine.slot import ShardId, Status
from gateware.stream.packet import FlowClass
from tests.gateware.packets import Pace, Packet, Sink, run_until, send_beats


def requests_of(lengths, rng):
    return [Packet(rng.randbytes(length), {
        "tenant": rng.randrange(16), "source": rng.randrange(4), "flow_hash": rng.getrandbits(16)})
        for length in lengths]


def response_to(request, *, status=Status.OK, shard=ShardId.CRC32C):
    result = google_crc32c.value(request.payload) if shard is ShardId.CRC32C else 0
    return (request.payload[:8].ljust(8, b"\0") + result.to_bytes(4, "little")
            + bytes([status.value, shard.value, 0, 0]))


def run_shard(shard, requests, config, *, idle=0.0, stall=0.0, seed=0):
    """Responses of `shard`, checked against the requests; returns the cycles of their last beats."""
    slot, simulator = shard.slot, Simulator(shard)
    simulator.add_clock(1e-8)

    async def headers(ctx):
        for tag, request in enumerate(requests):
            ctx.set(slot.request.header.payload, {"packet": request.header(), "tag": tag & 7})
            ctx.set(slot.request.header.valid, 1)
            await ctx.tick().until(slot.request.header.ready)
            ctx.set(slot.request.header.valid, 0)

    async def beats(ctx):
        await send_beats(ctx, slot.request.data, [request.payload for request in requests], config,
                         Pace(idle, seed))

    class Untagged:
        """The response port without its tag, as `Sink` knows packet ports."""

        class header:
            valid, ready, payload = (slot.response.header.valid, slot.response.header.ready,
                                     slot.response.header.payload.packet)

        data = slot.response.data

    tags = []

    async def watch_tags(ctx):
        async for _, _, valid, ready, tag in ctx.tick().sample(
                slot.response.header.valid, slot.response.header.ready, slot.response.header.payload.tag):
            if valid and ready:
                tags.append(tag)

    simulator.add_testbench(headers, background=True)
    simulator.add_testbench(beats, background=True)
    sink = Sink(simulator, Untagged, config, Pace(stall, seed + 1))
    simulator.add_process(watch_tags)
    run_until(simulator, lambda: len(sink.packets) == len(requests))
    assert tags == [tag & 7 for tag in range(len(requests))]
    return sink


def check(sink, requests, **expected):
    for request, response in zip(requests, sink.packets, strict=True):
        assert response.payload == response_to(request, **expected)
        assert response.fields["length"] == 16
        assert response.fields["tenant"] == request.fields["tenant"]
        assert response.fields["destination"] == request.fields["source"]
        assert response.fields["flow_hash"] == request.fields["flow_hash"]
        assert response.fields["flow_class"] == FlowClass.RESPONSE.value


@pytest.mark.parametrize(("data_width", "slot_bytes"), [
    (32, 4), (64, 4), (128, 4), (256, 4), (32, 1), (64, 1), (256, 1), (32, 2), (64, 2), (128, 2)])
@pytest.mark.parametrize(("idle", "stall"), [(0, 0), (0.3, 0), (0, 0.6), (0.3, 0.6)])
def test_checksum_is_that_of_software_at_every_length(data_width, slot_bytes, idle, stall):
    config = DeviceConfig(data_width=data_width, slot_bytes=slot_bytes)
    rng = random.Random(data_width)
    lengths = [*range(1, 41), *rng.choices(range(1, 100), k=10)]
    rng.shuffle(lengths)
    requests = requests_of(lengths, rng)
    check(run_shard(Crc32cShard(config), requests, config, idle=idle, stall=stall, seed=data_width), requests)


@pytest.mark.parametrize("data_width", [32, 64, 512])
def test_checksum_of_the_largest_packet(data_width):
    config = DeviceConfig(data_width=data_width)
    requests = requests_of([config.max_packet_bytes, config.max_packet_bytes - 1], random.Random(1))
    check(run_shard(Crc32cShard(config), requests, config), requests)


@pytest.mark.parametrize("slot_bytes", [1, 2, 4])
def test_slot_takes_its_bytes_a_cycle_without_gaps_between_requests(slot_bytes):
    config = DeviceConfig(slot_bytes=slot_bytes)
    requests = requests_of([64] * 20, random.Random(2))
    sink = run_shard(Crc32cShard(config), requests, config)
    check(sink, requests)
    assert sink.cycles[-1] - sink.cycles[0] == 19 * 64 // slot_bytes


@pytest.mark.parametrize("word_bytes", [0, 5])
def test_core_refuses_a_word_that_slicing_by_four_cannot_take(word_bytes):
    with pytest.raises(ValueError, match=f"word_bytes must be in 1..4, not {word_bytes}"):
        Crc32cCore(word_bytes)


@pytest.mark.parametrize("data_width", [32, 64, 128])
def test_refuser_answers_with_no_slot_and_the_request_word(data_width):
    config = DeviceConfig(data_width=data_width)
    requests = requests_of([*range(1, 20), 64], random.Random(3))
    sink = run_shard(Refuser(config), requests, config, idle=0.2, stall=0.4)
    check(sink, requests, status=Status.NO_SLOT, shard=ShardId.NONE)


def test_tables_agree_with_the_published_check_value():
    first = crc32c_tables()[0]
    crc = 0xFFFFFFFF
    for byte in b"123456789":
        crc = crc >> 8 ^ first[(crc ^ byte) & 0xFF]
    assert crc ^ 0xFFFFFFFF == 0xE3069283
