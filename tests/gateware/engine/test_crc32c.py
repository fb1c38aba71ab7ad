"""The CRC-32C shard against google-crc32c, over all short lengths, the largest, and every beat width."""

import random

import google_crc32c
import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.engine.crc32c import Crc32cCore, Crc32cShard, crc32c_tables
from gateware.engine.refuser import Refuser
from gateware.engine.shard import ShardId, Status
from tests.gateware.packets import Pace, Packet, run_until, send_beats


def requests_of(lengths, rng):
    return [Packet(rng.randbytes(length), {
        "tenant": rng.randrange(16), "source": rng.randrange(4), "flow_hash": rng.getrandbits(16)})
        for length in lengths]


def run_shard(shard, requests, config, *, idle=0.0, stall=0.0, seed=0):
    """Answers of `shard` as (tenant, tag, result, status, shard), and the cycles in which it took the headers."""
    slot, simulator = shard.slot, Simulator(shard)
    simulator.add_clock(1e-8)
    answers, taken = [], []

    async def headers(ctx):
        for tag, request in enumerate(requests):
            ctx.set(slot.request.header.payload, {"packet": request.header(), "tag": tag & 7})
            ctx.set(slot.request.header.valid, 1)
            await ctx.tick().until(slot.request.header.ready)
            ctx.set(slot.request.header.valid, 0)

    async def beats(ctx):
        await send_beats(ctx, slot.request.data, [request.payload for request in requests], config,
                         Pace(idle, seed))

    async def take(ctx):
        pace, held, took, cycle = Pace(stall, seed + 1), None, False, 0
        while True:
            ready = not pace.pauses()
            ctx.set(slot.answers.ready, ready)
            _, _, valid, answer, header = await ctx.tick().sample(
                slot.answers.valid, slot.answers.payload, slot.request.header.valid & slot.request.header.ready)
            assert not took or valid, "no answer in the cycle after the header was taken"
            took = header
            if header:
                taken.append(cycle)
            if valid:
                now = (answer.tenant, answer.tag, answer.result, answer.status, answer.shard)
                assert held in (None, now), "an answer changed before it was taken"
                held = None if ready else now
                if ready:
                    answers.append(now)
            cycle += 1

    simulator.add_testbench(headers, background=True)
    simulator.add_testbench(beats, background=True)
    simulator.add_testbench(take, background=True)
    run_until(simulator, lambda: len(answers) == len(requests))
    return answers, taken


def check(answers, requests, *, status=Status.OK, kind=ShardId.CRC32C):
    expected = [(request.fields["tenant"], tag & 7,
                 google_crc32c.value(request.payload) if kind is ShardId.CRC32C else 0, status, kind)
                for tag, request in enumerate(requests)]
    assert answers == expected


@pytest.mark.slow
@pytest.mark.parametrize(("data_width", "slot_bytes"), [
    (32, 4), (64, 4), (128, 4), (256, 4), (32, 1), (64, 1), (256, 1), (32, 2), (64, 2), (128, 2)])
@pytest.mark.parametrize(("idle", "stall"), [(0, 0), (0.3, 0), (0, 0.6), (0.3, 0.6)])
def test_checksum_is_that_of_software_at_every_length(data_width, slot_bytes, idle, stall):
    config = DeviceConfig(data_width=data_width, slot_bytes=slot_bytes)
    rng = random.Random(data_width)
    lengths = [*range(1, 41), *rng.choices(range(1, 100), k=10)]
    rng.shuffle(lengths)
    requests = requests_of(lengths, rng)
    answers, _ = run_shard(Crc32cShard(config), requests, config, idle=idle, stall=stall, seed=data_width)
    check(answers, requests)


@pytest.mark.slow
@pytest.mark.parametrize("data_width", [32, 64, 512])
def test_checksum_of_the_largest_packet(data_width):
    config = DeviceConfig(data_width=data_width)
    requests = requests_of([config.max_packet_bytes, config.max_packet_bytes - 1], random.Random(1))
    answers, _ = run_shard(Crc32cShard(config), requests, config)
    check(answers, requests)


@pytest.mark.parametrize("slot_bytes", [1, 2, 4])
def test_slot_takes_its_bytes_a_cycle_without_gaps_between_requests(slot_bytes):
    config = DeviceConfig(slot_bytes=slot_bytes)
    requests = requests_of([64] * 20, random.Random(2))
    answers, taken = run_shard(Crc32cShard(config), requests, config)
    check(answers, requests)
    assert taken[-1] - taken[0] == 19 * 64 // slot_bytes


@pytest.mark.parametrize("word_bytes", [0, 5])
def test_core_refuses_a_word_that_slicing_by_four_cannot_take(word_bytes):
    with pytest.raises(ValueError, match=f"word_bytes must be in 1..4, not {word_bytes}"):
        Crc32cCore(word_bytes)


@pytest.mark.parametrize("data_width", [32, 64, 128])
def test_refuser_answers_with_no_slot(data_width):
    config = DeviceConfig(data_width=data_width)
    requests = requests_of([*range(1, 20), 64], random.Random(3))
    answers, _ = run_shard(Refuser(config), requests, config, idle=0.2, stall=0.4)
    check(answers, requests, status=Status.NO_SLOT, kind=ShardId.NONE)


def test_refuser_takes_a_beat_a_cycle():
    requests = requests_of([64] * 10, random.Random(4))
    _, taken = run_shard(Refuser(DeviceConfig()), requests, DeviceConfig())
    assert taken[-1] - taken[0] == 9 * 8


def test_tables_agree_with_the_published_check_value():
    first = crc32c_tables()[0]
    crc = 0xFFFFFFFF
    for byte in b"123456789":
        crc = crc >> 8 ^ first[(crc ^ byte) & 0xFF]
    assert crc ^ 0xFFFFFFFF == 0xE3069283
