"""COBS and the frames around messages, against the codec of `device_link` and with idle and back-pressure."""

import random

import pytest

from device_link.framing import cobs_encode, encode_frame
from gateware.bridge.cobs import CobsDecoder, CobsEncoder
from gateware.bridge.framing import FrameDecoder, FrameEncoder
from tests.gateware.simulation import simulate


def run_stream(dut, transfers, *, seed=0, idle=0.0, stalls=0.0, count=None, limit=20_000):
    """Drive `input` with `transfers`; what left `output` (as integers), until `count` or for a while after."""
    rng = random.Random(seed)
    seen = []

    async def drive(ctx):
        for transfer in transfers:
            while rng.random() < idle:
                await ctx.tick()
            ctx.set(dut.input.payload, transfer)
            ctx.set(dut.input.valid, 1)
            await ctx.tick().until(dut.input.ready)
            ctx.set(dut.input.valid, 0)
        for _ in range(50):
            await ctx.tick()

    async def watch(ctx):
        for _ in range(limit):
            ready = rng.random() >= stalls
            ctx.set(dut.output.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(dut.output.valid, dut.output.payload)
            if valid and ready:
                seen.append(payload)
                if count is not None and len(seen) >= count:
                    return

    if count is None:
        simulate(dut, drive, background=[watch])
    else:
        simulate(dut, drive, watch)
    return seen


def frames_for(seed):
    """Frames of the lengths where groups end, with few, many or only zeros."""
    rng = random.Random(seed)
    lengths = [1, 2, 253, 254, 255, 256, 508, 509, rng.randrange(1, 300)]
    frames = [bytes(rng.randrange(1, 256) for _ in range(length)) for length in rng.sample(lengths, 4)]
    frames += [bytes(rng.choice([0, 1, 255]) for _ in range(rng.randrange(1, 40))) for _ in range(4)]
    frames += [bytes(rng.randrange(1, 30)), b"\0", b"\1\0", bytes([7] * 254) + b"\0", bytes([7] * 254) + b"\0\0"]
    rng.shuffle(frames)
    return frames


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "idle", "stalls"), [(1, 0, 0), (2, 0.4, 0), (3, 0, 0.4), (4, 0.3, 0.3)])
def test_cobs_encoder_matches_the_codec(seed, idle, stalls):
    frames = frames_for(seed)
    transfers = [{"data": byte, "last": position == len(frame) - 1}
                 for frame in frames for position, byte in enumerate(frame)]
    expected = b"".join(cobs_encode(frame) + b"\0" for frame in frames)
    seen = run_stream(CobsEncoder(), transfers, seed=seed, idle=idle, stalls=stalls, count=len(expected))
    assert bytes(seen) == expected


def test_cobs_encoder_keeps_a_slow_line_busy():
    """A line that takes a byte every eight cycles never waits once the first group is known."""
    dut, gaps = CobsEncoder(), []
    data = bytes(random.Random(5).randrange(1, 256) for _ in range(700))

    async def drive(ctx):
        for position, byte in enumerate(data):
            ctx.set(dut.input.payload, {"data": byte, "last": position == len(data) - 1})
            ctx.set(dut.input.valid, 1)
            await ctx.tick().until(dut.input.ready)
        ctx.set(dut.input.valid, 0)

    async def watch(ctx):
        started = False
        for _ in range(len(cobs_encode(data)) - 1):
            ctx.set(dut.output.ready, 0)
            for _ in range(7):
                await ctx.tick()
            ctx.set(dut.output.ready, 1)
            waited = 0
            _, _, valid = await ctx.tick().sample(dut.output.valid)
            while not valid:
                waited += 1
                _, _, valid = await ctx.tick().sample(dut.output.valid)
            if started:
                gaps.append(waited)
            started = True

    simulate(dut, watch, background=[drive])
    assert max(gaps) == 0


def tokens(seen):
    """Frames in what a decoder gave: (bytes, error) each."""
    frames, current = [], bytearray()
    for token in seen:
        if token.end:
            frames.append((bytes(current), token.error))
            current.clear()
        else:
            current.append(token.data)
    return frames


@pytest.mark.parametrize(("seed", "idle", "stalls"), [(1, 0, 0), (2, 0.4, 0.4)])
def test_cobs_decoder_inverts_the_codec(seed, idle, stalls):
    frames = frames_for(seed)
    line = b"\0" + b"".join(cobs_encode(frame) + b"\0" * (1 + seed % 2) for frame in frames)
    seen = run_stream(CobsDecoder(), line, seed=seed, idle=idle, stalls=stalls)
    assert tokens(seen) == [(frame, 0) for frame in frames]


def test_cobs_decoder_tells_a_broken_group_and_goes_on():
    line = b"\x05\x01\x02\0" + cobs_encode(b"abc") + b"\0"
    assert tokens(run_stream(CobsDecoder(), line)) == [(b"\1\2", 1), (b"abc", 0)]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "stalls"), [(1, 0), (2, 0.5)])
def test_frame_encoder_appends_the_checksum(seed, stalls):
    messages = [frame for frame in frames_for(seed) if len(frame) >= 3]
    transfers = [{"data": byte, "last": position == len(message) - 1}
                 for message in messages for position, byte in enumerate(message)]
    expected = b"".join(map(encode_frame, messages))
    seen = run_stream(FrameEncoder(), transfers, seed=seed, stalls=stalls, count=len(expected))
    assert bytes(seen) == expected


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_damaged_frame_is_marked(seed):
    rng = random.Random(seed)
    line, expected = b"", []
    for _ in range(40):
        message = rng.randbytes(rng.randrange(3, 40))
        frame = bytearray(encode_frame(message))
        damaged = rng.random() < 0.5
        if damaged:
            place = rng.randrange(len(frame) - 1)
            value = rng.randrange(1, 256)
            frame[place] = value if value != frame[place] else frame[place] % 255 + 1
        expected.append((message, damaged))
        line += bytes(frame)
    seen = tokens(run_stream(FrameDecoder(64), line, seed=seed))
    assert [error for _, error in seen] == [damaged for _, damaged in expected]
    assert [message for message, error in seen if not error] == [
        message for message, damaged in expected if not damaged]


@pytest.mark.parametrize(("length", "good"), [(1, False), (2, False), (3, True), (20, True), (21, False),
                                              (24, False), (25, False), (200, False)])
def test_message_outside_the_lengths_is_marked(length, good):
    seen = tokens(run_stream(FrameDecoder(20), encode_frame(bytes(range(1, length + 1))) + encode_frame(b"abc")))
    assert [error for _, error in seen] == [not good, 0]
    assert len(seen[0][0]) <= 20
