"""Cutting and packing of bytes against slices of bytes."""

import random

import pytest

from gateware.pcie.align import Cutter, Packer
from tests.gateware.pcie.tlps import sink, source
from tests.gateware.simulation import simulate

PAUSES = [(0, 0), (0.6, 0), (0, 0.6), (0.4, 0.4)]


def pieces_of(data, size):
    return [data[start:start + size] for start in range(0, len(data), size)]


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 512])
@pytest.mark.parametrize(("idle", "busy"), PAUSES)
def test_pieces_are_the_slices_of_the_command(width, idle, busy):
    print("seed", width)
    rng, size = random.Random(width), width // 8
    dut, words = Cutter(width, 13), []
    commands = [[(rng.choice([1, 2, 3, size - 1, size, size + 1, 4 * size, rng.randrange(1, 300)]), rng.randrange(4))
                 for _ in range(rng.randrange(1, 6))] for _ in range(40)]
    packed, expected = [], []
    for command in commands:
        data = rng.randbytes(sum(length for length, _ in command))
        packed += [int.from_bytes(piece, "little") for piece in pieces_of(data, size)]
        for length, offset in command:
            shifted = pieces_of(bytes(offset) + data[:length], size)
            expected += [(piece, index == 0, index == len(shifted) - 1, offset if index == 0 else 0)
                         for index, piece in enumerate(shifted)]
            data = data[length:]

    async def cut(ctx):
        for command in commands:
            for index, (length, offset) in enumerate(command):
                ctx.set(dut.want, 1)
                ctx.set(dut.size, length)
                ctx.set(dut.offset, offset)
                ctx.set(dut.end, index == len(command) - 1)
                while True:
                    _, _, valid, ready, last = await ctx.tick().sample(dut.payload.valid, dut.payload.ready,
                                                                       dut.payload.payload.last)
                    if valid and ready and last:
                        break
                ctx.set(dut.want, 0)
                while rng.random() < idle:
                    await ctx.tick()

    simulate(dut, cut, background=[sink(dut.payload, words, lambda: rng.random() < busy),
                                   source(dut.packed, packed, lambda: rng.random() < idle)])
    found = [dut.payload.payload.shape().from_bits(word) for word in words]
    assert len(found) == len(expected)
    for beat, (piece, first, last, offset) in zip(found, expected, strict=True):
        assert (beat["first"], beat["last"]) == (first, last)
        assert beat["data"].to_bytes(size, "little")[offset:len(piece)] == piece[offset:]


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 512])
@pytest.mark.parametrize(("idle", "busy"), PAUSES)
def test_packed_beats_are_the_pieces_joined(width, idle, busy):
    print("seed", width)
    rng, size = random.Random(width), width // 8
    dut, words = Packer(width), []
    layout = dut.pieces.payload.shape()
    offered, expected = [], []
    for _ in range(60):
        data = b""
        count = rng.randrange(1, 9)
        for index in range(count):
            beat, offset = rng.randbytes(size), rng.choice([0, rng.randrange(size)])
            length = rng.choice([size - offset, rng.randrange(size - offset + 1)])
            offered.append(layout.const({"data": int.from_bytes(beat, "little"), "offset": offset, "count": length,
                                         "end": index == count - 1}).as_bits())
            data += beat[offset:offset + length]
        beats = pieces_of(data, size) or [b""]
        expected += [(piece.ljust(size, b"\0"), index == len(beats) - 1) for index, piece in enumerate(beats)]
    async def finish(ctx):
        await source(dut.pieces, offered, lambda: rng.random() < idle)(ctx)
        await ctx.tick().repeat(30)
    simulate(dut, finish, background=[sink(dut.packed, words, lambda: rng.random() < busy)])
    found = [dut.packed.payload.shape().from_bits(word) for word in words]
    assert [(beat["data"].to_bytes(size, "little"), bool(beat["last"])) for beat in found] == expected


def test_a_beat_a_cycle_whatever_the_alignment():
    dut, words, cycles = Cutter(64, 13), [], []

    async def watch(ctx):
        ctx.set(dut.packed.valid, 1)
        ctx.set(dut.want, 1)
        ctx.set(dut.size, 8 * 40 + 3)
        ctx.set(dut.offset, 3)
        ctx.set(dut.payload.ready, 1)
        for cycle in range(50):
            _, _, valid = await ctx.tick().sample(dut.payload.valid)
            if valid:
                cycles.append(cycle)

    simulate(dut, watch)
    assert cycles == list(range(50))
    assert not words
