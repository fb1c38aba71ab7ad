"""Descriptors before payloads and off them again, against runs of words."""

import random

import pytest
from amaranth import Module

from gateware.pcie.descriptor import DescriptorInserter, DescriptorRemover
from tests.gateware.pcie.tlps import sink, source, until
from tests.gateware.simulation import simulate


def words_of(rng, count):
    return [rng.getrandbits(32) for _ in range(count)]


def joined(words):
    return sum(word << 32 * index for index, word in enumerate(words))


def rows(words, lanes):
    return [words[start:start + lanes] for start in range(0, len(words), lanes)]


def draw(rng, count, words):
    return [(words_of(rng, words), words_of(rng, rng.choice([0, 1, 2, 3, 4, 5, 15, 16, 17, 33, rng.randrange(64)])),
             rng.getrandbits(8)) for _ in range(count)]


PAUSES = [(0, 0), (0.6, 0), (0, 0.6), (0.4, 0.4)]


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 128, 256, 512])
@pytest.mark.parametrize("words", [3, 4])
@pytest.mark.parametrize(("idle", "busy"), PAUSES)
def test_the_descriptor_comes_before_the_payload(width, words, idle, busy):
    print("seed", width)
    rng, lanes = random.Random(width), width // 32
    dut, found = DescriptorInserter(width, words, 8), []
    layout, given, expected = dut.input.payload.shape(), [], []
    for descriptor, payload, side in draw(rng, 40, words):
        beats = rows(payload, lanes) or [[]]
        given += [layout.const({"descriptor": joined(descriptor), "carried": len(payload), "side": side,
                                "data": joined(beat), "last": index == len(beats) - 1}).as_bits()
                  for index, beat in enumerate(beats)]
        out = rows(descriptor + payload, lanes)
        expected += [(beat, index == 0, index == len(out) - 1, side) for index, beat in enumerate(out)]

    async def test(ctx):
        await source(dut.input, given, lambda: rng.random() < idle)(ctx)
        await until(ctx, lambda: len(found) >= len(expected))

    simulate(dut, test, background=[sink(dut.output, found, lambda: rng.random() < busy)])
    assert len(found) == len(expected)
    for word, (beat, first, last, side) in zip(found, expected, strict=True):
        out = dut.output.payload.shape().from_bits(word)
        assert (out["first"], out["last"], out["side"], out["keep"]) == (first, last, side, (1 << len(beat)) - 1)
        assert out["data"] % (1 << 32 * len(beat)) == joined(beat)


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 128, 256, 512])
@pytest.mark.parametrize("words", [3, 4])
@pytest.mark.parametrize(("idle", "busy"), PAUSES)
def test_the_descriptor_is_taken_off_the_payload(width, words, idle, busy):
    print("seed", width)
    rng, lanes = random.Random(width), width // 32
    dut, found = DescriptorRemover(width, words, 8), []
    layout, given, expected = dut.input.payload.shape(), [], []
    for descriptor, payload, side in draw(rng, 40, words):
        descriptor[0] = len(payload)
        beats = rows(descriptor + payload, lanes)
        given += [layout.const({"data": joined(beat), "keep": (1 << len(beat)) - 1, "first": index == 0,
                                "side": side if index == 0 else 0, "last": index == len(beats) - 1}).as_bits()
                  for index, beat in enumerate(beats)]
        out = rows(payload, lanes) or [[]]
        expected += [(beat, index == 0, index == len(out) - 1, side, joined(descriptor))
                     for index, beat in enumerate(out)]

    top = Module()
    top.submodules.dut = dut
    top.d.comb += dut.carried.eq(dut.output.payload.descriptor[:11])

    async def test(ctx):
        await source(dut.input, given, lambda: rng.random() < idle)(ctx)
        await until(ctx, lambda: len(found) >= len(expected))

    simulate(top, test, background=[sink(dut.output, found, lambda: rng.random() < busy)])
    assert len(found) == len(expected)
    for word, (beat, first, last, side, descriptor) in zip(found, expected, strict=True):
        out = dut.output.payload.shape().from_bits(word)
        assert (out["first"], out["last"], out["side"], out["descriptor"]) == (first, last, side, descriptor)
        assert out["data"] % (1 << 32 * len(beat)) == joined(beat)
