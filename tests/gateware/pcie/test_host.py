"""The endpoint as a part of the device: two masters of one register bus, DMA of the buffer, interrupts, reset."""

import random

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from gateware.config import DeviceConfig
from gateware.csr.arbiter import CsrArbiter
from gateware.csr.bus import CsrSignature
from gateware.csr.decoder import CsrDecoder
from gateware.csr.regmap import node, word_ranges
from gateware.identity import MAGIC, Identity
from gateware.pcie.buffer import BUFFER_BYTES, TOO_LONG
from gateware.pcie.dma import Outcome
from gateware.pcie.host import HostInterface, blocks
from gateware.pcie.tlp import RequestKind
from tests.gateware.csr.initiator import access
from tests.gateware.pcie.dma_model import span
from tests.gateware.pcie.tlps import (
    ABORT,
    SUCCESS,
    Tlp,
    beats,
    collect,
    completion_layout,
    enables,
    payload_bits,
    request,
    request_layout,
    sink,
    until,
)
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(tenants=2, pcie_width=64)
HOLE = 0x200
BUS, GUEST, SIZE, GENERATION = 0x12_3456_7000, 0x5000, 0x2000, 9
MESSAGE = 0xFEE0_0000


def at(block, register, index=0):
    found = node(block)
    return found.address + index * found.stride + found.register(register).offset


class Shared(wiring.Component):
    """The register bus of a device with nothing on it but its identity and the endpoint. `serial`: the other master."""

    def __init__(self, config):
        self.config, self.host = config, HostInterface(config)
        super().__init__({"serial": In(CsrSignature(16)), "window": In(1), "rule": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.host, m.submodules.identity = host, identity = self.host, Identity(self.config, 0)
        m.submodules.arbiter = arbiter = CsrArbiter(2)
        m.submodules.decoder = decoder = CsrDecoder([
            word_ranges(["id", "interrupt"]), word_ranges(blocks(self.config))])
        wiring.connect(m, wiring.flipped(self.serial), arbiter.initiators[0])
        wiring.connect(m, host.bus, arbiter.initiators[1])
        wiring.connect(m, arbiter.bus, decoder.bus)
        wiring.connect(m, decoder.targets[0], identity.bus)
        wiring.connect(m, decoder.targets[1], host.registers)
        m.d.comb += [host.events.eq(identity.events), identity.window.eq(self.window), identity.rule.eq(self.rule)]
        return m


class HostSide:
    """A root complex with memory at `BUS`, and BAR0 as a program uses it. `messages`: interrupts that came."""

    def __init__(self, dut, rng, idle=0.0, answer=True):
        self.dut, self.link, self.width = dut, dut.host.link, dut.config.pcie_width
        self.rng, self.idle, self.answer = rng, idle, answer
        self.memory = bytearray(rng.randbytes(SIZE))
        self.messages, self.requests, self.completions = [], [], []
        self.to_send, self.sent, self.answers = [], 0, []

    def background(self):
        def pause():
            return self.rng.random() < self.idle
        return [sink(self.link.requests, self.requests, pause), sink(self.link.completer_completions, self.completions,
                                                                     pause),
                self._sender(self.link.completer_requests, self.to_send), self._sender(self.link.completions,
                                                                                      self.answers), self._serve]

    def _sender(self, stream, queue):
        async def run(ctx):
            while True:
                if not queue or self.rng.random() < self.idle:
                    await ctx.tick()
                    continue
                ctx.set(payload_bits(stream), queue[0])
                ctx.set(stream.valid, 1)
                while not (await ctx.tick().sample(stream.ready))[2]:
                    pass
                ctx.set(stream.valid, 0)
                queue.pop(0)
        return run

    async def _serve(self, ctx):
        layout, seen = request_layout(self.width), 0
        while True:
            await ctx.tick()
            last = next((index for index in range(len(self.requests) - 1, seen - 1, -1)
                         if layout.from_bits(self.requests[index])["last"]), None)
            if last is None:
                continue
            for tlp in collect(self.requests[seen:last + 1], layout, self.width):
                self._take(tlp)
            seen = last + 1

    def _take(self, tlp):
        start, size = span(tlp)
        if RequestKind(tlp.kind) == RequestKind.WRITE and start >> 16 == MESSAGE >> 16:
            self.messages.append(int.from_bytes(tlp.payload, "little"))
            return
        offset = start - BUS
        assert 0 <= offset <= SIZE - size, f"{start:#x} is outside of what was granted"
        if RequestKind(tlp.kind) == RequestKind.WRITE:
            self.memory[offset:offset + size] = tlp.payload[start % 4:start % 4 + size]
        elif self.answer:
            low = offset - start % 4
            payload = bytes(self.memory[low:low + 4 * tlp.length])
            answer = Tlp({"status": SUCCESS, "length": tlp.length, "byte_count": size, "lower_address": start % 128,
                          "requester_id": tlp.requester_id, "completer_id": 0, "tag": tlp.tag, "traffic_class": 0,
                          "attributes": 0, "poisoned": 0, "locked": 0}, payload)
            self.answers += beats(answer, completion_layout(self.width), self.width)

    async def write(self, address, *words):
        """Posted: it is on its way when this returns."""
        data = b"".join(word.to_bytes(4, "little") for word in words)
        self.to_send += beats(request(RequestKind.WRITE, address, data=data), request_layout(self.width), self.width)

    async def read(self, ctx, address, count=1):
        """Status and words."""
        word, length, first, last = enables(address, 4 * count)
        self.to_send += beats(request(RequestKind.READ, 4 * word, length=length, first_be=first, last_be=last, tag=7),
                              request_layout(self.width), self.width)
        del self.completions[:]
        layout, tlps = completion_layout(self.width), []

        def answered():
            if not self.completions or not layout.from_bits(self.completions[-1])["last"]:
                return False
            tlps[:] = collect(self.completions, layout, self.width)
            return tlps[-1].status != SUCCESS or tlps[-1].byte_count <= 4 * tlps[-1].length

        await until(ctx, answered)
        data = b"".join(tlp.payload for tlp in tlps)
        return tlps[-1].status, [int.from_bytes(data[start:start + 4], "little") for start in range(0, len(data), 4)]

    async def begin(self, ctx):
        link = self.link
        for name, value in (("bus_master", 1), ("msix_enable", 1), ("max_payload", 0), ("max_read", 0)):
            ctx.set(getattr(link, name), value)
        await self.write(at("region", "base_lo"), GUEST, 0, SIZE, 0, BUS & 0xFFFFFFFF, BUS >> 32, GENERATION << 8 | 3)
        for vector in range(5):
            await self.write(node("msix").address + 16 * vector, MESSAGE, 0, 100 + vector, 0)

    async def transfer(self, ctx, command, address, length, tenant=0):
        """Outcome of a transfer of the buffer."""
        await self.write(at("dma", "address_lo"), address, 0, length, GENERATION << 8 | tenant)
        _, [before] = await self.read(ctx, at("dma", "transfers"))
        await self.write(at("dma", "command"), command)
        for _ in range(2000):
            if (await self.read(ctx, at("dma", "transfers")))[1] != [before]:
                _, [status, count] = await self.read(ctx, at("dma", "status"), 2)
                assert (status & 1, count) == (0, before + 1)
                return status >> 8
        raise AssertionError("the transfer does not end")


READ, WRITE = 1, 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_two_masters_reach_the_registers_in_turn_and_each_sees_its_own(seed):
    """A flood of writes from the link does not hold up the serial bridge beyond one access, nor the other way round."""
    print("seed", seed)
    rng = random.Random(seed)
    dut = Shared(CONFIG)
    host, waits = HostSide(dut, rng), []

    async def serial(ctx):
        model = {}
        for _ in range(80):
            address = at("region", "base_lo", 8 + rng.randrange(8)) + 4 * rng.randrange(6)
            value = rng.getrandbits(32) if rng.random() < 0.5 or address not in model else None
            error, got, cycles = await access(ctx, dut.serial, address, value)
            assert (error, got if value is None else 0) == (0, model.get(address, 0) if value is None else 0)
            if value is not None:
                model[address] = value
            waits.append(cycles)

    async def link(ctx):
        for _ in range(4):
            row, words = rng.randrange(4), [rng.getrandbits(32) for _ in range(24)]
            await host.write(at("region", "base_lo", row), *words)
            assert await host.read(ctx, at("region", "base_lo", row), 24) == (SUCCESS, words)
            assert await host.read(ctx, at("id", "magic")) == (SUCCESS, [MAGIC])

    simulate(dut, serial, link, background=host.background())
    assert max(waits) <= 4 + 5, "its own access of 2 cycles and one of the other side of 3, and 2 more for each"
    assert max(waits) > 4, "the two never met: the test shows nothing"


def test_refused_accesses_of_the_link_are_counted_and_change_nothing():
    rng = random.Random(1)
    dut = Shared(CONFIG)
    host = HostSide(dut, rng, idle=0.3)

    async def test(ctx):
        assert (await host.read(ctx, HOLE))[0] == ABORT
        await host.write(HOLE, 1)
        await host.write(at("id", "magic"), 0, 0)
        await host.write(at("region", "base_lo", 16), 5)  # a tenant that the device does not have
        assert await host.read(ctx, at("id", "magic")) == (SUCCESS, [MAGIC])
        assert await host.read(ctx, at("pcie", "writes_refused"), 2) == (SUCCESS, [4, 1])
        # What the other master is refused is none of the link's counts.
        assert (await access(ctx, dut.serial, HOLE))[0] == 1
        assert (await access(ctx, dut.serial, HOLE, 3))[0] == 1
        assert await host.read(ctx, at("pcie", "writes_refused"), 2) == (SUCCESS, [4, 1])

    simulate(dut, test, background=host.background())


@pytest.mark.slow
@pytest.mark.parametrize(("width", "seed"), [
    (64, 0), pytest.param(128, 1, marks=pytest.mark.long), (512, 2)])
def test_the_buffer_moves_bytes_both_ways_within_what_is_granted(width, seed):
    print("seed", seed)
    rng = random.Random(seed)
    dut = Shared(DeviceConfig(tenants=2, pcie_width=width))
    host = HostSide(dut, rng, idle=0.2)

    async def buffer(ctx, words):
        found = b""
        for start in range(0, words, 64):
            _, got = await host.read(ctx, node("dma_buffer").address + 4 * start, min(64, words - start))
            found += b"".join(word.to_bytes(4, "little") for word in got)
        return found

    async def test(ctx):
        await host.begin(ctx)
        for length in (1, rng.randrange(2, 400), 1000):
            offset = rng.randrange(SIZE - length)
            expected = bytes(host.memory[offset:offset + length])
            assert Outcome(await host.transfer(ctx, READ, GUEST + offset, length)) == Outcome.DONE
            assert (await buffer(ctx, -(-length // 4)))[:length] == expected
            target, before = rng.randrange(SIZE - length), bytes(host.memory)
            assert Outcome(await host.transfer(ctx, WRITE, GUEST + target, length)) == Outcome.DONE
            assert bytes(host.memory) == before[:target] + expected + before[target + length:]
        before, kept = bytes(host.memory), await buffer(ctx, 16)
        for command, address, length, tenant, outcome in (
                (READ, GUEST + SIZE - 8, 9, 0, Outcome.NO_REGION), (WRITE, GUEST - 1, 4, 0, Outcome.NO_REGION),
                (WRITE, GUEST, 4, 1, Outcome.NO_REGION), (WRITE, GUEST, 0, 0, Outcome.EMPTY),
                (READ, GUEST, 0, 0, Outcome.EMPTY)):
            assert Outcome(await host.transfer(ctx, command, address, length, tenant)) == outcome
        assert await host.transfer(ctx, READ, GUEST, BUFFER_BYTES + 1) == TOO_LONG
        assert bytes(host.memory) == before
        # A read that was refused as a whole is one beat of zeros.
        assert (await buffer(ctx, 16))[width // 8:] == kept[width // 8:]
        assert host.messages == [103] * 12

    simulate(dut, test, background=host.background())


def test_enabled_events_become_the_messages_of_their_vectors():
    dut = Shared(CONFIG)
    host = HostSide(dut, random.Random(3))

    async def pulse(ctx, port):
        ctx.set(port, 1)
        await ctx.tick()
        ctx.set(port, 0)
        await ctx.tick().repeat(30)

    async def test(ctx):
        await host.begin(ctx)
        await host.read(ctx, 0)
        await pulse(ctx, dut.window)
        assert host.messages == []  # not enabled
        await host.write(at("interrupt", "enable"), 0b101)
        await host.read(ctx, 0)
        await pulse(ctx, dut.window)
        await pulse(ctx, dut.rule)
        assert host.messages == [100, 102]
        # It comes again although software has not cleared what is pending.
        await pulse(ctx, dut.window)
        assert host.messages == [100, 102, 100]

    simulate(dut, test, background=host.background())


def test_a_function_reset_ends_a_transfer_that_hangs_and_keeps_the_registers():
    dut = Shared(CONFIG)
    host = HostSide(dut, random.Random(4), answer=False)

    async def test(ctx):
        await host.begin(ctx)
        await host.write(at("dma", "address_lo"), GUEST, 0, 64, GENERATION << 8)
        await host.write(at("dma", "command"), READ)
        assert await host.read(ctx, at("dma", "status")) == (SUCCESS, [1])
        assert (await host.read(ctx, node("dma_buffer").address))[0] == ABORT  # busy
        ctx.set(host.link.function_reset, 1)
        await ctx.tick().until(host.link.function_reset_done)
        ctx.set(host.link.function_reset, 0)
        assert await host.read(ctx, at("dma", "status"), 2) == (SUCCESS, [0, 0])
        assert await host.read(ctx, at("dma", "length")) == (SUCCESS, [64])
        assert await host.read(ctx, at("region", "size_lo")) == (SUCCESS, [SIZE])
        host.answer = True
        assert Outcome(await host.transfer(ctx, READ, GUEST, 64)) == Outcome.DONE

    simulate(dut, test, background=host.background())
