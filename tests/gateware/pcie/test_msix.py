"""The MSI-X table against a model, with vectors raised, masked and unmasked at random."""

import random

import pytest

from gateware.pcie.msix import MsixTable
from gateware.pcie.tlp import RequestKind
from tests.gateware.csr.initiator import access
from tests.gateware.pcie.tlps import collect, request_layout, sink
from tests.gateware.simulation import simulate

VECTORS = 5


async def write_vector(ctx, dut, vector, address, data, mask=0):
    for word, value in enumerate((address & 0xFFFFFFFF, address >> 32, data, mask)):
        assert (await access(ctx, dut.bus, 4 * (4 * vector + word), value))[0] == 0


async def pulse(ctx, dut, vectors):
    ctx.set(dut.raised, sum(1 << vector for vector in vectors))
    await ctx.tick()
    ctx.set(dut.raised, 0)


def sent(words, width=64):
    found = collect(words, request_layout(width), width)
    for tlp in found:
        assert (tlp.kind, tlp.length, tlp.first_be, tlp.last_be) == (RequestKind.WRITE.value, 1, 0xF, 0)
    return [(4 * tlp.address, int.from_bytes(tlp.payload, "little")) for tlp in found]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("busy", [0, 0.6])
def test_each_vector_is_sent_once_for_what_was_raised_and_not_while_masked(seed, busy):
    print("seed", seed)
    rng, dut, words = random.Random(seed), MsixTable(64, VECTORS), []

    async def test(ctx):
        ctx.set(dut.enable, 1)
        table = [((rng.getrandbits(62) << 2), rng.getrandbits(32)) for _ in range(VECTORS)]
        masked, pending, function_mask = [0] * VECTORS, [0] * VECTORS, 0
        for vector, (address, data) in enumerate(table):
            await write_vector(ctx, dut, vector, address, data)
        for _ in range(60):
            del words[:]
            expected = []
            vector = rng.randrange(VECTORS)
            action = rng.choice(["raise", "raise", "mask", "unmask", "function"])
            if action == "raise":
                for each in {vector, rng.randrange(VECTORS)}:
                    pending[each] = 1
                await pulse(ctx, dut, [each for each in range(VECTORS) if pending[each]])
            elif action == "function":
                function_mask ^= 1
                ctx.set(dut.function_mask, function_mask)
            else:
                masked[vector] = int(action == "mask")
                await access(ctx, dut.bus, 4 * (4 * vector + 3), masked[vector])
            if not function_mask:
                expected = [table[each] for each in range(VECTORS) if pending[each] and not masked[each]]
                pending = [bit & mask for bit, mask in zip(pending, masked, strict=True)]
            await ctx.tick().repeat(120)
            assert sent(words) == expected
            assert (await access(ctx, dut.bus, 4 * dut.pba))[:2] == (0, sum(bit << each for each, bit
                                                                            in enumerate(pending)))

    simulate(dut, test, background=[sink(dut.requests, words, lambda: rng.random() < busy)])


def test_vectors_are_masked_after_reset_and_nothing_is_kept_while_msix_is_off():
    dut, words = MsixTable(128, VECTORS), []

    async def test(ctx):
        assert (await access(ctx, dut.bus, 4 * 3))[1] == 1
        await pulse(ctx, dut, [0, 1])
        ctx.set(dut.enable, 1)
        await write_vector(ctx, dut, 0, 0xFEE0_0000, 7)
        await ctx.tick().repeat(20)
        assert words == []
        await pulse(ctx, dut, [0])
        await ctx.tick().repeat(20)

    simulate(dut, test, background=[sink(dut.requests, words)])
    assert sent(words, 128) == [(0xFEE0_0000, 7)]


def test_the_table_reads_back_and_refuses_what_is_not_there():
    dut = MsixTable(64, VECTORS)

    async def test(ctx):
        await write_vector(ctx, dut, 4, 0x1_2345_6780, 0x11223344, 0xFFFFFFFE)
        await access(ctx, dut.bus, 4 * 18, 0xAABBCCDD, 0b0001)
        found = [(await access(ctx, dut.bus, 4 * (16 + word)))[:2] for word in range(4)]
        assert found == [(0, 0x2345_6780), (0, 1), (0, 0x112233DD), (0, 0)]
        assert (await access(ctx, dut.bus, 4 * 4 * VECTORS))[0] == 1
        assert (await access(ctx, dut.bus, 4 * dut.pba, 1))[0] == 1      # software only reads pending bits
        assert (await access(ctx, dut.bus, 4 * (dut.pba + 1)))[0] == 1

    simulate(dut, test)


@pytest.mark.parametrize("vectors", [0, 129])
def test_wrong_numbers_of_vectors_are_refused(vectors):
    with pytest.raises(ValueError, match=r"vectors must be in 1\.\.128"):
        MsixTable(64, vectors)
