"""Straddled streams against a golden model: TLPs as lists of DWs, laid into halves of beats as PG213 says."""

import random

import pytest
from amaranth import Module

from gateware.pcie.straddle import HALF, LANES, StraddlingInserter, StraddlingRemover, straddled_layout
from tests.gateware.pcie.tlps import sink, source, until
from tests.gateware.simulation import simulate

SIDE = 8


def draw(rng, count, words):
    """(descriptor, payload) of `count` TLPs, lists of DWs; many of them end about a half or a whole beat."""
    edges = [size for whole in (1, 2, 4) for half in (0, HALF) for size in range(
        LANES * whole + half - words - 1, LANES * whole + half - words + 2)]
    sizes = [0, 1, HALF - words, HALF - words + 1, LANES - words, LANES - words + 1, 64, *edges]
    return [([rng.getrandbits(32) for _ in range(words)],
             [rng.getrandbits(32) for _ in range(rng.choice(sizes))]) for _ in range(count)]


def number(words):
    return sum(word << 32 * index for index, word in enumerate(words))


def straddle(rng, tlps, side=0):
    """Beats of the straddled stream, in which a TLP begins in an upper half that is free when `rng` says so."""
    layout, beats, free = straddled_layout(side), [], False
    for descriptor, payload in tlps:
        words = descriptor + payload
        lane = HALF if free and rng.random() < 0.8 else 0
        if not lane:
            beats.append(blank())
        mark(beats[-1], "sop", lane // HALF)
        while True:
            here, words = words[:LANES - lane], words[LANES - lane:]
            beats[-1]["words"][lane:lane + len(here)] = here
            if not words:
                break
            beats.append(blank())
            lane = 0
        mark(beats[-1], "eop", lane + len(here) - 1)
        free = lane + len(here) <= HALF
    return [layout.const({"data": number(beat["words"]), "marks": {
        "sop": (1 << len(beat["sop"])) - 1, "upper": sum(half << place for place, half in enumerate(beat["sop"])),
        "eop": (1 << len(beat["eop"])) - 1, "eop_at": beat["eop"] + [0] * (2 - len(beat["eop"]))},
        "side": 0}).as_bits() for beat in beats]


def blank():
    return {"words": [0] * LANES, "sop": [], "eop": []}


def mark(beat, kind, place):
    beat[kind].append(place)


def gather(words, length, side):
    """(descriptor, payload, side) of the TLPs in straddled beats, and in how many beats two of them lie."""
    layout, found, current, shared = straddled_layout(side), [], None, 0
    for word in words:
        beat = layout.from_bits(word)
        marks, lanes = beat["marks"], [beat["data"] >> 32 * lane & 0xFFFFFFFF for lane in range(LANES)]
        begins = [HALF * (marks["upper"] >> place & 1) for place in range(2) if marks["sop"] >> place & 1]
        ends = [marks["eop_at"][place] for place in range(2) if marks["eop"] >> place & 1]
        shared += bool(begins and begins[-1])
        for lane in range(LANES):
            if lane in begins:
                assert current is None, "a TLP begins within another"
                current = ([], beat["side"])
            if current is not None:
                current[0].append(lanes[lane])
            if lane in ends:
                found.append((current[0][:length], current[0][length:], current[1]))
                current = None
    assert current is None, "a TLP has no end"
    return found, shared


def inserter_beats(dut, tlps, rng):
    layout, beats, sides = dut.input.payload.shape(), [], []
    for descriptor, payload in tlps:
        side = rng.getrandbits(SIDE)
        sides.append(side)
        pieces = [payload[at:at + LANES] for at in range(0, len(payload), LANES)] or [[]]
        beats += [layout.const({"descriptor": number(descriptor), "carried": len(payload), "side": side,
                                "data": number(piece), "last": index == len(pieces) - 1}).as_bits()
                  for index, piece in enumerate(pieces)]
    return beats, sides


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "idle", "busy"), [(0, 0.0, 0.0), (1, 0.4, 0.0), (2, 0.0, 0.4), (3, 0.3, 0.3)])
@pytest.mark.parametrize("length", [3, 4])
def test_every_tlp_is_inserted_once_whole_and_in_order(seed, idle, busy, length):
    print("seed", seed)
    rng = random.Random(seed)
    tlps = draw(rng, 60, length)
    dut, found = StraddlingInserter(length, SIDE), []
    beats, sides = inserter_beats(dut, tlps, rng)

    async def test(ctx):
        await until(ctx, lambda: sum(bool(straddled_layout(SIDE).from_bits(word)["marks"]["eop"] & 1)
                                     + (straddled_layout(SIDE).from_bits(word)["marks"]["eop"] >> 1)
                                     for word in found) == len(tlps), 5000)

    simulate(dut, test, background=[source(dut.input, beats, lambda: rng.random() < idle),
                                    sink(dut.output, found, lambda: rng.random() < busy)])
    assert gather(found, length, SIDE)[0] == [(*tlp, side) for tlp, side in zip(tlps, sides, strict=True)]


def test_two_tlps_of_256_bytes_take_nine_beats():
    rng, found, cycles = random.Random(0), [], []
    tlps = [([1, 2, 3, 4], [rng.getrandbits(32) for _ in range(64)]) for _ in range(20)]
    dut = StraddlingInserter(4, SIDE)
    beats, _ = inserter_beats(dut, tlps, rng)

    async def count(ctx):
        while True:
            cycles.append((await ctx.tick().sample(dut.output.valid))[2])

    async def test(ctx):
        await until(ctx, lambda: len(found) == 90, 200)

    simulate(dut, test, background=[source(dut.input, beats), sink(dut.output, found), count])
    found_tlps, shared = gather(found, 4, SIDE)
    assert [(descriptor, payload) for descriptor, payload, _ in found_tlps] == tlps
    assert shared == 10
    assert sum(cycles) <= 91, "a beat a cycle"


@pytest.mark.parametrize(("seed", "idle", "busy"), [(0, 0.0, 0.0), (1, 0.4, 0.0), (2, 0.0, 0.4), (3, 0.3, 0.3)])
def test_every_tlp_is_removed_once_whole_and_in_order(seed, idle, busy):
    print("seed", seed)
    rng, length = random.Random(seed), 3
    tlps = draw(rng, 60, length)
    for descriptor, payload in tlps:
        descriptor[1] = len(payload)
    dut, found = StraddlingRemover(length), []
    m = Module()
    m.submodules.dut = dut
    m.d.comb += dut.announced.eq(dut.beginning[32:43])
    layout = dut.output.payload.shape()
    wanted = sum(max(1, -(-len(payload) // LANES)) for _, payload in tlps)

    async def test(ctx):
        await until(ctx, lambda: len(found) == wanted, 5000)
        await ctx.tick().repeat(20)

    simulate(m, test, background=[source(dut.input, straddle(rng, tlps), lambda: rng.random() < idle),
                                  sink(dut.output, found, lambda: rng.random() < busy)])
    expected = []
    for descriptor, payload in tlps:
        pieces = [payload[at:at + LANES] for at in range(0, len(payload), LANES)] or [[]]
        expected += [(number(descriptor), number(piece), len(piece), index == 0, index == len(pieces) - 1)
                     for index, piece in enumerate(pieces)]
    got = [layout.from_bits(word) for word in found]
    assert [(beat["descriptor"], beat["data"] & ((1 << 32 * size) - 1), size, bool(beat["first"]), bool(beat["last"]))
            for beat, (_, _, size, _, _) in zip(got, expected, strict=True)] == expected


def test_wrong_length_is_refused():
    for component in (lambda: StraddlingInserter(HALF, SIDE), lambda: StraddlingRemover(0)):
        with pytest.raises(ValueError, match=r"words must be in 1\.\.7, not"):
            component()


