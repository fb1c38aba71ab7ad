"""Decoder and arbiter: every access reaches the right target once, whole, and in turn."""

import random

import pytest
from amaranth import Module
from amaranth.lib import wiring

from gateware.csr import regmap
from gateware.csr.arbiter import CsrArbiter
from gateware.csr.decoder import CsrDecoder
from tests.gateware.csr.initiator import access
from tests.gateware.simulation import simulate

RANGES = [regmap.word_ranges(["rm", "guarantee"]), range(0x4000, 0x4010), range(0x4010, 0x4018)]


#: Words inside the ranges, at their edges, and outside.
WORDS = [*range(0x3FD, 0x404), *range(0x600, 0x604), *range(0x4000, 0x4004), *range(0x400C, 0x401B), 0xFFFF]


class Memory:
    """Target that stores words and stalls at random; checks that an access does not change under it."""

    def __init__(self, port, rng):
        self.port, self.rng = port, rng
        self.words = {}
        self.accesses = 0

    async def serve(self, ctx):
        port = self.port
        request = (port.address, port.write, port.w_data, port.w_mask)
        while True:
            while not ctx.get(port.valid):
                await ctx.tick()
            seen = [ctx.get(signal) for signal in request]
            for _ in range(self.rng.choice([0, 0, 1, 2, 9])):
                await ctx.tick()
                assert ctx.get(port.valid), "an access was taken back"
                assert seen == [ctx.get(signal) for signal in request], "an access changed"
            address, write, data, mask = seen
            old = self.words.get(address, 0)
            bits = sum(0xFF << 8 * byte for byte in range(4) if mask >> byte & 1)
            if write:
                self.words[address] = old & ~bits | data & bits
            self.accesses += 1
            ctx.set(port.ready, 1)
            ctx.set(port.r_data, old)
            ctx.set(port.error, address % 16 == 15)
            await ctx.tick()
            ctx.set(port.ready, 0)


class Bus(wiring.Component):
    """Arbiter and decoder as a device has them."""

    def __init__(self, initiators):
        self.arbiter, self.decoder = CsrArbiter(initiators), CsrDecoder(RANGES)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.arbiter, m.submodules.decoder = self.arbiter, self.decoder
        wiring.connect(m, self.arbiter.bus, self.decoder.bus)
        return m


@pytest.mark.slow
@pytest.mark.parametrize("initiators", [1, 2, 3])
@pytest.mark.parametrize("seed", range(2))
def test_accesses_of_several_initiators_under_stalls(initiators, seed):
    """Each initiator owns the addresses that are its number modulo `initiators` and models them alone."""
    dut = Bus(initiators)
    memories = [Memory(target, random.Random(seed * 10 + number))
                for number, target in enumerate(dut.decoder.targets)]
    sent = [0] * len(RANGES)

    def initiator(number):
        async def test(ctx):
            rng = random.Random(f"{seed} {number}")
            words = {}
            for _ in range(120):
                address = 4 * rng.choice([word for word in WORDS if word % initiators == number])
                value = rng.getrandbits(32) if rng.random() < 0.5 else None
                mask = rng.randrange(16)
                target = [any(address // 4 in part for part in ([parts] if isinstance(parts, range) else parts))
                          for parts in RANGES]
                error, data, _ = await access(ctx, dut.arbiter.initiators[number], address, value, mask,
                                              limit=16 * initiators)
                if not any(target):
                    assert error
                    continue
                sent[target.index(True)] += 1
                assert error == (address // 4 % 16 == 15)
                if value is None:
                    assert data == words.get(address, 0)
                else:
                    bits = sum(0xFF << 8 * byte for byte in range(4) if mask >> byte & 1)
                    words[address] = words.get(address, 0) & ~bits | value & bits
                await ctx.tick().repeat(rng.choice([1, 1, 5]))
        return test

    simulate(dut, *(initiator(number) for number in range(initiators)),
             background=[memory.serve for memory in memories])
    assert [memory.accesses for memory in memories] == sent
    assert all(sent)


def test_arbiter_serves_saturating_initiators_in_turn():
    dut = CsrArbiter(4)
    order = []

    def initiator(number):
        async def test(ctx):
            bus = dut.initiators[number]
            ctx.set(bus.address, number)
            ctx.set(bus.valid, number != 2)   # one stays silent and costs no turn
            await ctx.tick().repeat(120)
        return test

    async def target(ctx):
        while True:
            while not ctx.get(dut.bus.valid):
                await ctx.tick()
            ctx.set(dut.bus.ready, 1)
            order.append(ctx.get(dut.bus.address))
            await ctx.tick()
            ctx.set(dut.bus.ready, 0)

    simulate(dut, *(initiator(number) for number in range(4)), background=[target])
    assert len(order) > 30
    start = order.index(0)
    assert order[start:] == [(0, 1, 3)[turn % 3] for turn in range(len(order) - start)]


def test_arbiter_answers_the_owner_only_and_a_cycle_after_the_target():
    dut = CsrArbiter(2)

    async def test(ctx):
        ctx.set(dut.initiators[1].valid, 1)
        assert not ctx.get(dut.bus.valid)
        await ctx.tick()
        assert ctx.get(dut.bus.valid)
        ctx.set(dut.initiators[0].valid, 1)
        for _ in range(8):
            await ctx.tick()
            assert not ctx.get(dut.initiators[0].ready)
        ctx.set(dut.bus.ready, 1)
        ctx.set(dut.bus.r_data, 0x1234_5678)
        assert not ctx.get(dut.initiators[1].ready)   # no way through within a cycle
        await ctx.tick()
        ctx.set(dut.bus.ready, 0)
        ctx.set(dut.bus.r_data, 0)
        assert ctx.get(dut.initiators[1].ready)
        assert ctx.get(dut.initiators[1].r_data) == 0x1234_5678
        assert not ctx.get(dut.initiators[0].ready)
        assert not ctx.get(dut.bus.valid)

    simulate(dut, test)


@pytest.mark.parametrize(("ranges", "message"), [
    ([], "ranges must be at least one target"),
    ([range(0, 8), range(7, 9)], "ranges must be disjoint, not range"),
    ([range(4, 4)], "range must be of word addresses"),
    ([range(0, 8, 2)], "range must be of word addresses"),
    ([range(0xFFFF, 0x10001)], "range must be of word addresses"),
])
def test_decoder_refuses_ranges(ranges, message):
    with pytest.raises(ValueError, match=message):
        CsrDecoder(ranges)


def test_arbiter_refuses_no_initiators():
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        CsrArbiter(0)
