"""PacketMux and StreamFork against the obvious models: order of a source, whole packets, every word once."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.stream.fork import StreamFork
from gateware.stream.mux import PacketMux
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig()


def packets_of(rng, source, count):
    return [{"tag": (source << 10) | n, "beats": [rng.getrandbits(64) for _ in range(rng.randint(1, 5))]}
            for n in range(count)]


async def send_headers(ctx, port, packets, rng):
    for packet in packets:
        await ctx.tick().repeat(rng.randint(1, 4))
        ctx.set(port.header.payload.flow_hash, packet["tag"])
        ctx.set(port.header.valid, 1)
        await ctx.tick().until(port.header.ready)
        ctx.set(port.header.valid, 0)


async def send_beats(ctx, port, packets, rng):
    for packet in packets:
        for index, beat in enumerate(packet["beats"]):
            if rng.random() < 0.3:
                await ctx.tick().repeat(rng.randint(1, 6))
            ctx.set(port.data.payload.data, beat)
            ctx.set(port.data.payload.last, index == len(packet["beats"]) - 1)
            ctx.set(port.data.valid, 1)
            await ctx.tick().until(port.data.ready)
            ctx.set(port.data.valid, 0)


@pytest.mark.parametrize("seed", range(4))
def test_packets_pass_whole_and_in_order_of_each_source(seed):
    rng = random.Random(seed)
    dut = PacketMux(CONFIG, 3)
    sources = [packets_of(rng, source, 20) for source in range(3)]
    headers, bodies, body = [], [], []

    async def watch(ctx):
        while len(bodies) < 60:
            ctx.set(dut.output.header.ready, rng.random() < 0.5)
            ctx.set(dut.output.data.ready, rng.random() < 0.7)
            _, _, hv, hr, tag, dv, dr, beat, last = await ctx.tick().sample(
                dut.output.header.valid, dut.output.header.ready, dut.output.header.payload.flow_hash,
                dut.output.data.valid, dut.output.data.ready, dut.output.data.payload.data,
                dut.output.data.payload.last)
            if hv and hr:
                headers.append(tag)
            if dv and dr:
                body.append(beat)
                if last:
                    assert len(headers) == len(bodies) + 1, "a packet ended before its header went"
                    bodies.append(list(body))
                    body.clear()

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    for port, packets in zip(dut.inputs, sources, strict=True):
        async def headers_of(ctx, port=port, packets=packets):
            await send_headers(ctx, port, packets, rng)

        async def beats_of(ctx, port=port, packets=packets):
            await send_beats(ctx, port, packets, rng)

        simulator.add_testbench(headers_of, background=True)
        simulator.add_testbench(beats_of, background=True)
    simulator.add_testbench(watch)
    simulator.run()

    expected = {packet["tag"]: packet["beats"] for packets in sources for packet in packets}
    assert [expected[tag] for tag in headers] == bodies
    for source in range(3):
        assert [tag & 1023 for tag in headers if tag >> 10 == source] == list(range(20))


def test_a_source_that_always_offers_waits_for_one_packet_of_each_other():
    dut = PacketMux(CONFIG, 3)
    order = []

    async def bench(ctx):
        for index, port in enumerate(dut.inputs):
            ctx.set(port.header.payload.flow_hash, index)
            ctx.set(port.header.valid, 1)
            ctx.set(port.data.payload.last, 1)
            ctx.set(port.data.valid, 1)
        ctx.set(dut.output.header.ready, 1)
        ctx.set(dut.output.data.ready, 1)
        while len(order) < 12:
            _, _, went, source = await ctx.tick().sample(dut.output.header.valid,
                                                         dut.output.header.payload.flow_hash)
            if went:
                order.append(source)

    simulate(dut, bench)
    assert all(sorted(order[start:start + 3]) == [0, 1, 2] for start in range(0, 12, 3))


@pytest.mark.parametrize("seed", range(3))
def test_fork_gives_every_word_to_every_consumer_once(seed):
    rng = random.Random(seed)
    dut = StreamFork(8, 2)
    words = [rng.getrandbits(8) for _ in range(100)]
    seen = [[], []]

    async def source(ctx):
        for word in words:
            await ctx.tick().repeat(rng.randint(1, 2))
            ctx.set(dut.input.payload, word)
            ctx.set(dut.input.valid, 1)
            await ctx.tick().until(dut.input.ready)
            ctx.set(dut.input.valid, 0)

    def sink(index):
        async def run(ctx):
            output = dut.outputs[index]
            while len(seen[index]) < len(words):
                ctx.set(output.ready, rng.random() < (0.3, 0.8)[index])
                _, _, valid, ready, word = await ctx.tick().sample(output.valid, output.ready, output.payload)
                if valid and ready:
                    seen[index].append(word)
            ctx.set(output.ready, 0)
        return run

    simulate(dut, source, sink(0), sink(1))
    assert seen == [words, words]
