"""One output seen through a small fabric: the cut-off of a stalled sink, and turns among inputs."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from gateware.config import DeviceConfig
from gateware.fabric.fabric import Fabric
from tests.gateware.fabric.bench import Bench, Packet, delivered_as, open_rows, without_stamps

CONFIG = DeviceConfig(ports=2, data_width=32, tenants=4, pages=32)


def numbered(rng, count, size, tenant=1):
    return [Packet(tenant, 1, rng.randbytes(size), flow_hash=index) for index in range(count)]


def is_cut_version(got, packet):
    """`got` is a beginning of `packet`, closed by one zero beat; its header still announces all of it."""
    body, end = got.payload[:-4], got.payload[-4:]
    return (end == bytes(4) and packet.payload.startswith(body) and len(got.payload) < len(packet.payload) + 4
            and got.length == len(packet.payload) and got.flow_hash == packet.flow_hash)


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 8, 64])
@pytest.mark.parametrize("seed", range(2))
def test_a_stalled_sink_is_cut_off_and_served_again_when_it_returns(size, seed):
    rng = random.Random(f"{size} {seed}")
    packets, later = numbered(rng, 25, size), numbered(rng, 5, size, tenant=0)
    bench = Bench(Fabric(CONFIG), CONFIG, stall_timeout=50)
    stuck = returned = False
    bench.source(0, packets, lambda: rng.random() < 0.2)
    bench.source(1, later, after=lambda: returned)
    bench.sink(1, lambda: stuck or rng.random() < 0.2)
    stalled_at = 0

    async def script(ctx):
        nonlocal stuck, returned, stalled_at
        while len(bench.received[1]) < 5:
            await ctx.tick()
        stuck, stalled_at = True, bench.cycle
        # The fabric empties itself although nobody takes anything.
        while bench.pending > len(later) or bench.in_flight():
            await ctx.tick()
            assert bench.cycle < 3000
        stuck = False
        await ctx.tick().repeat(20)
        returned = True

    bench.run(open_rows(CONFIG), script, drain=lambda: sum(
        packet.tenant == 0 for packet in bench.received[1]) == len(later) and bench.in_flight() == 0)
    cut, left = bench.of_kind("cut"), bench.of_kind("leave")
    assert min(event.cycle for event in cut) >= stalled_at + 50
    assert len(cut) + len(left) == len(packets) + len(later)

    # What was delivered: all that left, in order, and at most one packet that was cut after it had begun.
    sent = {event.header["flow_hash"] for event in left if event.header["tenant"] == 1}
    got = [without_stamps(packet) for packet in bench.received[1]]
    whole = [packet for packet in got if packet.tenant == 1 and packet.flow_hash in sent]
    assert whole == [delivered_as(packet, 0) for packet in packets if packet.flow_hash in sent]
    assert [packet for packet in got if packet.tenant == 0] == [delivered_as(packet, 1) for packet in later]
    partial = [packet for packet in got if packet.tenant == 1 and packet.flow_hash not in sent]
    assert len(partial) == (1 if size == 64 else len(partial)) <= 1
    for packet in partial:
        assert is_cut_version(packet, packets[packet.flow_hash])


@pytest.mark.slow
@pytest.mark.parametrize(("pause", "output"), [
    (30, 0), (33, 1), (40, 0), (55, 1),
    *(pytest.param(*case, marks=pytest.mark.long) for case in ((30, 1), (33, 0), (40, 1), (55, 0)))])
def test_a_sink_that_returns_within_a_packet_gets_the_end_of_what_was_cut_and_whole_ones_after(output, pause):
    """It takes beats for a while, and pauses for longer than the time-out: the rest of a cut packet still comes."""
    bench = Bench(Fabric(CONFIG), CONFIG, stall_timeout=25)
    packets = [replace(packet, destination=output) for packet in numbered(random.Random(pause), 30, 160)]
    bench.source(0, packets)
    bench.sink(output, lambda: bench.cycle % (pause + 60) < pause, busy_headers=lambda: False)
    bench.run(open_rows(CONFIG, pages=8), drain=lambda: bench.in_flight() == 0)
    left = {event.header["flow_hash"] for event in bench.of_kind("leave")}
    cut = {event.header["flow_hash"] for event in bench.of_kind("cut")}
    assert left
    assert cut
    assert sorted([*left, *cut]) == list(range(len(packets)))
    got = [without_stamps(packet) for packet in bench.received[output]]
    assert [packet.flow_hash for packet in got] == sorted(packet.flow_hash for packet in got)
    assert {packet.flow_hash for packet in got} >= left - {max(left)}, "the last may still be in the port"
    for packet in got:
        whole = delivered_as(packets[packet.flow_hash], 0)
        assert packet == whole if packet.flow_hash in left else is_cut_version(packet, packets[packet.flow_hash])


@pytest.mark.slow
def test_headers_that_are_not_taken_are_a_stall_too():
    bench = Bench(Fabric(CONFIG), CONFIG, stall_timeout=40)
    bench.source(0, numbered(random.Random(1), 8, 16))
    bench.sink(1, busy_headers=lambda: True)
    bench.run(open_rows(CONFIG), drain=lambda: bench.in_flight() == 0)
    assert len(bench.of_kind("leave")) == 1      # in the port's buffer, with its header
    assert len(bench.of_kind("cut")) == 7


@pytest.mark.slow
@pytest.mark.parametrize(("timeout", "pause"), [(0, 90), (50, 45)])
@pytest.mark.parametrize("output", [0, 1])
def test_a_slow_sink_is_not_cut_off(timeout, pause, output):
    bench = Bench(Fabric(CONFIG), CONFIG, stall_timeout=timeout)
    packets = [replace(packet, destination=output) for packet in numbered(random.Random(2), 3, 12)]
    bench.source(0, packets)
    bench.sink(output, lambda: bench.cycle % pause != 0)
    bench.run(open_rows(CONFIG))
    assert not bench.of_kind("cut")
    assert [without_stamps(packet) for packet in bench.received[output]] == [delivered_as(p, 0) for p in packets]


@pytest.mark.slow
def test_inputs_of_one_tenant_take_turns():
    bench = Bench(Fabric(CONFIG), CONFIG)
    for port in range(2):
        bench.source(port, numbered(random.Random(port), 30, 16))
    bench.sink(1, lambda: bench.cycle % 2 == 0)
    bench.run(open_rows(CONFIG, pages=16))
    sources = [packet.source for packet in bench.received[1]][4:-4]
    assert all(now != then for now, then in pairwise(sources))


@pytest.mark.slow
def test_latency_is_counted_from_the_timestamp_to_the_last_beat():
    bench = Bench(Fabric(CONFIG), CONFIG)
    posted = [replace(packet, timestamp=number) for number, packet in enumerate(numbered(random.Random(3), 10, 20))]
    bench.source(0, posted)
    bench.sink(1, lambda: bench.cycle % 3 != 0)
    bench.run(open_rows(CONFIG))
    stamps = {packet.flow_hash: packet.timestamp for packet in posted}
    assert len(set(stamps.values())) == len(bench.of_kind("leave")) == 10
    for event in bench.of_kind("leave"):
        # `leave` is reported one cycle after the last beat went.
        assert event.extra["latency"] == event.cycle - 1 - stamps[event.header["flow_hash"]]
        assert event.header["length"] == 20


@pytest.mark.slow
@pytest.mark.parametrize(("size", "wanted"), [
    (4, 1), (4, 2), (4, 5), (48, 2), *(pytest.param(48, wanted, marks=pytest.mark.long) for wanted in (1, 5))])
def test_no_more_packets_are_on_the_way_to_the_engines_than_they_want(wanted, size):
    """From the grant to the second cycle after the header: what is sent when nothing is wanted any more."""
    rng = random.Random(wanted)
    bench = Bench(Fabric(CONFIG), CONFIG)
    packets = numbered(rng, 60, size)
    taken = {"before": 0, "late": 0}
    bench.source(0, packets, lambda: rng.random() < 0.1)
    bench.sink(1, lambda: rng.random() < 0.2)
    bursts = 6

    async def script(ctx):
        for _ in range(bursts):
            ctx.set(bench.dut.engine.wanted, wanted)
            await ctx.tick().repeat(rng.randrange(30, 60))
            ctx.set(bench.dut.engine.wanted, 0)
            before = len(bench.received[1])
            await ctx.tick().repeat(300)
            late = len(bench.received[1]) - before
            assert late <= wanted + 1, "more than the wanted, and the one that was being taken"
            taken["late"] = max(taken["late"], late)
            taken["before"] += before > 0
        ctx.set(bench.dut.engine.wanted, wanted)

    bench.run(open_rows(CONFIG), script)
    assert len(bench.received[1]) == len(packets)
    assert taken["late"]
    assert taken["before"]


@pytest.mark.slow
def test_engines_hear_who_has_packets_and_only_who_is_eligible_is_sent():
    bench = Bench(Fabric(CONFIG), CONFIG)
    bench.source(0, numbered(random.Random(1), 6, 16, tenant=0) + numbered(random.Random(2), 6, 16))
    bench.sink(1)

    async def script(ctx):
        engine = bench.dut.engine
        ctx.set(engine.eligible, 0b10)
        await ctx.tick().repeat(200)
        assert ctx.get(engine.waiting) == 0b01
        assert {packet.tenant for packet in bench.received[1]} == {1}
        assert len(bench.received[1]) == 6
        ctx.set(engine.eligible, 0b11)

    bench.run(open_rows(CONFIG), script)
    assert len(bench.received[1]) == 12
