"""The whole fabric against per-queue FIFO models."""

import random
from collections import Counter, deque
from dataclasses import replace

import pytest

from gateware.config import CREDIT_BEATS, DeviceConfig
from gateware.fabric.fabric import Fabric
from gateware.manager.allocation import FULL_RATE
from tests.gateware.fabric.bench import (
    PROCESS,
    Bench,
    Packet,
    delivered_as,
    drive_beats,
    drive_headers,
    open_rows,
    row,
    without_stamps,
)

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

SMALL = DeviceConfig(ports=2, data_width=32, tenants=4, pages=32)
NETWORK = DeviceConfig(ports=3, data_width=32, tenants=4, pages=32)


def queues(packets):
    """Packets by (tenant, input, output), in order."""
    result = {}
    for packet, output in packets:
        result.setdefault((packet.tenant, packet.source, output), []).append(packet)
    return result


def random_packets(rng, config, count, sizes, tenants=None, destinations=None):
    return [Packet(tenant=rng.choice(tenants or range(config.tenants)),
                   destination=rng.choice(destinations or range(config.ports)),
                   payload=rng.randbytes(rng.choice(sizes)), flow_class=rng.choice([0, 1, 2, 3]),
                   flow_hash=index) for index in range(count)]


def check_all_delivered(bench, sent):
    """Everything arrived once, unchanged, in order, at its output; nothing else did; the events agree."""
    expected = queues((delivered_as(packet, port), packet.destination)
                      for port, packets in enumerate(sent) for packet in packets)
    got = queues((without_stamps(packet), output)
                 for output, packets in enumerate(bench.received) for packet in packets)
    assert got == expected
    count = sum(map(len, sent))
    assert len(bench.of_kind("admit")) == len(bench.of_kind("leave")) == count
    assert not bench.of_kind("drop", "cut")
    for event in bench.of_kind("leave"):
        assert event.extra["latency"] >= 1


@pytest.mark.parametrize(("idle", "busy", "seed"), [(0, 0, 1), (0.4, 0, 2), (0, 0.4, 3), (0.3, 0.3, 4)])
def test_random_traffic_arrives_once_in_order_and_unchanged(idle, busy, seed):
    rng = random.Random(f"{seed} {idle} {busy}")
    bench = Bench(Fabric(SMALL), SMALL)
    sent = [random_packets(rng, SMALL, 60, [1, 3, 4, 5, 17, 60, 64, 65, 130]) for _ in range(SMALL.ports)]
    for port in range(SMALL.ports):
        bench.source(port, sent[port], lambda: rng.random() < idle)
        bench.sink(port, lambda: rng.random() < busy)
    bench.run(open_rows(SMALL))
    check_all_delivered(bench, sent)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_every_bit_of_a_header_and_packets_of_every_length_arrive(seed):
    """Under tables that change; the device has run for long, and its clock passes 2**32."""
    rng = random.Random(seed)
    bench = Bench(Fabric(SMALL), SMALL)
    bench.cycle = (1 << 32) - 1000
    sizes = [1, 64, 512, 1021, 1024, *(rng.randrange(1, 1025) for _ in range(20))]
    sent = [[replace(packet, flow_hash=rng.getrandbits(16), timestamp=rng.getrandbits(32),
                     flow_class=rng.choice([0, 1, 2, 3, 12]))
             for packet in random_packets(rng, SMALL, 20, sizes)] for _ in range(SMALL.ports)]
    for port in range(SMALL.ports):
        bench.source(port, sent[port], lambda: rng.random() < 0.1)
        bench.sink(port, lambda: rng.random() < 0.1)

    async def script(ctx):
        for _ in range(15):
            await ctx.tick().repeat(100)
            await bench.commit(ctx, open_rows(SMALL, weight=1 << rng.randrange(16), pages=rng.choice([0, 2, 4])))

    bench.epoch = 240
    bench.run(open_rows(SMALL), script)
    check_all_delivered(bench, sent)
    assert bench.cycle > 1 << 32
    stamps = [sorted((header["tenant"], header["source"], header["flow_hash"], header["epoch"], header["timestamp"])
                     for header in headers)
              for headers in ([event.header for event in bench.of_kind("admit")],
                              [event.header for event in bench.of_kind("leave")],
                              [vars(packet) for packets in bench.received for packet in packets])]
    assert stamps[0] == stamps[1] == stamps[2]
    for event in bench.of_kind("leave"):
        assert event.extra["latency"] == (event.cycle - 1 - event.header["timestamp"]) % (1 << 32)
    posted = Counter(packet.timestamp for packet in sent[SMALL.host_port])
    assert posted == Counter(event.header["timestamp"] for event in bench.of_kind("admit")
                             if event.port == SMALL.host_port)


@pytest.mark.parametrize("quotas", [
    (0, 2, 4, 8), *(pytest.param(quotas, marks=pytest.mark.long)
                    for quotas in ((2, 2, 2, 2), (0, 0, 0, 0), (8, 8, 8, 8)))], ids=str)
def test_what_is_posted_on_credit_is_admitted_without_waiting(quotas):
    """The host posts a packet of any length that has credit only for a tenant that has; the outputs are slow."""
    rng = random.Random(str(quotas))
    bench = Bench(Fabric(SMALL), SMALL)
    packets = [random_packets(rng, SMALL, 40, [1, 64, 100, 4 * CREDIT_BEATS], tenants=[tenant]) for tenant in range(4)]
    posted, order, without = deque(), [], set()
    bench.pending = sum(map(len, packets))
    stream = bench.dut.inputs[SMALL.host_port]
    for port in range(SMALL.ports):
        bench.sink(port, lambda: rng.random() < (0.97 if bench.cycle < 3000 else 0.5))

    async def headers(ctx):
        while any(packets):
            _, _, credit = await ctx.tick().sample(bench.dut.credit)
            if not bench.open:
                continue
            without.update(tenant for tenant in range(4) if not credit >> tenant & 1)
            choices = [tenant for tenant in range(4) if packets[tenant] and credit >> tenant & 1]
            if choices:
                order.append(packets[rng.choice(choices)].pop())
                posted.append(order[-1])
                await drive_headers(ctx, stream.header, order[-1:])
                await ctx.tick()   # credit knows of it after two cycles

    async def beats(ctx):
        while True:
            if posted:
                await drive_beats(ctx, stream.data, [posted.popleft()], 4, lambda: False, bench._sent)
            else:
                await ctx.tick()

    bench.simulator.add_testbench(headers, background=True)
    bench.simulator.add_testbench(beats, background=True)
    rows = [row(SMALL, weight=256, pages=pages, ports=3) for pages in quotas]
    bench.run(rows)
    check_all_delivered(bench, [order, []])
    assert not bench.of_kind("stalled")
    assert without == set(range(4)), "nobody ever had to wait for credit"


@pytest.mark.slow
def test_random_traffic_on_the_default_device():
    rng = random.Random(7)
    config = DeviceConfig()
    bench = Bench(Fabric(config), config)
    sent = [random_packets(rng, config, 20, [1, 8, 64, 100, 300]) for _ in range(config.ports)]
    for port in range(config.ports):
        bench.source(port, sent[port], lambda: rng.random() < 0.2)
        bench.sink(port, lambda: rng.random() < 0.2)
    bench.run(open_rows(config, pages=3))
    check_all_delivered(bench, sent)


@pytest.mark.parametrize(("tenants", "bytes_each", "least"), [
    ((0, 1), 64, 0.99), ((0, 1), 16, 0.99), *((pair, 4, 0.8) for pair in ((0, 1), (1, 0), (2, 3), (3, 2)))])
@pytest.mark.parametrize("crossed", [0, 1])
def test_saturated_outputs_keep_the_promised_rate(tenants, bytes_each, least, crossed):
    """A tenant to an output: the whole line, or of one-beat packets, of which several are granted ahead, most of it."""
    bench = Bench(Fabric(SMALL), SMALL)
    for port, tenant in enumerate(tenants):
        bench.source(port, [Packet(tenant, port ^ crossed, bytes(bytes_each)) for _ in range(400)])
        bench.sink(port)

    async def script(ctx):
        await ctx.tick().repeat(100)
        bench.beats_out = [0, 0]
        await ctx.tick().repeat(400)

    bench.run(open_rows(SMALL), script, cycles=0)
    assert min(bench.beats_out) >= least * 400


@pytest.mark.parametrize("beats", [1, 4])
def test_unloaded_packet_is_offered_eight_cycles_after_its_last_beat(beats):
    bench = Bench(Fabric(SMALL), SMALL)
    seen = {}

    async def watch(ctx):
        ticks = ctx.tick().sample(bench.dut.inputs[0].data.valid, bench.dut.inputs[0].data.ready,
                                  bench.dut.inputs[0].data.payload.last, bench.dut.outputs[1].data.valid)
        cycle = 0
        async for _, _, valid, ready, last, offered in ticks:
            if valid and ready and last:
                seen["in"] = cycle
            if offered and "out" not in seen:
                seen["out"] = cycle
            cycle += 1

    bench.simulator.add_testbench(watch, background=True)
    bench.source(0, [Packet(1, 1, bytes(4 * beats))])
    bench.sink(1)
    bench.run(open_rows(SMALL))
    assert seen["out"] - seen["in"] <= 8


@pytest.mark.long
def test_shares_follow_weights_under_overload():
    """A network port offers four times what the sink takes and drops the rest: every queue stays full."""
    weights, sizes = [1000, 2000, 4000, 1000], [64, 4, 32, 64]
    bench = Bench(Fabric(NETWORK), NETWORK)
    rows = open_rows(NETWORK, pages=8)
    for content, weight in zip(rows, weights, strict=True):
        content["weight"] = weight
    # Tenant 1 must offer sixteen one-beat packets for each large one of the others.
    bench.source(1, [Packet(tenant, 2, bytes(sizes[tenant])) for _ in range(300)
                     for tenant in (0, 1, 1, 1, 1, 2, 1, 1, 1, 1, 2, 3, 1, 1, 1, 1, 2, 1, 1, 1, 1)])
    bench.sink(2, lambda: bench.cycle % 8 != 0)
    bench.run(rows, cycles=8000)
    beats = Counter()
    for packet in bench.received[2][30:]:
        beats[packet.tenant] += -(-len(packet.payload) // 4)
    total = sum(beats.values())
    for tenant, weight in enumerate(weights):
        assert beats[tenant] / total == pytest.approx(weight / sum(weights), abs=0.05)


@pytest.mark.parametrize("seed", range(2))
def test_commits_in_mid_traffic_lose_nothing_and_stamp_the_epoch_of_admission(seed):
    rng = random.Random(seed)
    bench = Bench(Fabric(SMALL), SMALL)
    sent = [random_packets(rng, SMALL, 75, [4, 20, 64, 100]) for _ in range(2)]
    changes = [(0, 0)]   # (cycle from which it is seen, epoch)

    async def script(ctx):
        changes.append((bench.cycle, bench.epoch))
        for _ in range(12):
            await ctx.tick().repeat(rng.randrange(20, 70))
            pages = rng.choice([0, 2, 4, 8])
            rows = open_rows(SMALL, weight=rng.choice([1, 100, 4096]), pages=pages)
            await bench.commit(ctx, rows)
            changes.append((bench.cycle, bench.epoch))

    for port in range(2):
        bench.source(port, sent[port], lambda: rng.random() < 0.2)
        bench.sink(port, lambda: rng.random() < 0.2)
    bench.run(open_rows(SMALL), script)
    check_all_delivered(bench, sent)
    assert bench.epoch == 13
    for event in bench.of_kind("admit"):
        active = [epoch for cycle, epoch in changes if cycle <= event.cycle][-1]
        assert event.header["epoch"] == active
        assert event.header["timestamp"] == (0 if event.header["source"] == SMALL.host_port else event.cycle)
    admitted = Counter((e.header["source"], e.header["flow_hash"], e.header["epoch"], e.header["timestamp"])
                       for e in bench.of_kind("admit"))
    delivered = Counter((p.source, p.flow_hash, p.epoch, p.timestamp)
                        for packets in bench.received for p in packets)
    assert admitted == delivered
    assert len({e.header["epoch"] for e in bench.of_kind("admit")}) > 5


@pytest.mark.parametrize("stranger", [4, 5, 63])
def test_a_packet_of_no_tenant_changes_nobody_s_packet(stranger):
    """Right behind a packet of the tenant that its number would be if it were cut to the width of a table."""
    bench = Bench(Fabric(SMALL), SMALL)
    mine = [Packet(stranger % SMALL.tenants, 1, bytes([index] * 4), flow_hash=index) for index in range(20)]
    strange = Packet(stranger, 1, b"\xFF" * 8)
    bench.source(0, [packet for one in mine for packet in (one, strange)])
    bench.sink(1)
    bench.run(open_rows(SMALL, pages=8))
    assert [packet.payload for packet in bench.received[1]] == [packet.payload for packet in mine]
    assert len(bench.of_kind("drop")) == 20


def test_a_stalled_sink_does_not_hold_up_other_outputs():
    bench = Bench(Fabric(NETWORK), NETWORK)
    blocked = [Packet(1, 2, bytes(64)) for _ in range(3)]
    flowing = [Packet(0, 1, bytes(64), flow_hash=index) for index in range(20)]
    bench.source(0, [*blocked, *flowing])
    bench.source(1, [Packet(0, 0, bytes(64)) for _ in range(20)])
    bench.sink(0)
    bench.sink(1)
    bench.run(open_rows(NETWORK, pages=4), drain=lambda: bench.in_flight() == 3)
    assert len(bench.received[1]) == 20
    assert len(bench.received[0]) == 20
    assert bench.received[2] == []


def test_a_network_port_drops_without_pages_and_a_host_port_waits():
    """Sink 2 is stuck; both inputs send more than the pages of their crosspoint hold."""
    bench = Bench(Fabric(NETWORK), NETWORK)
    for port in (0, 1):
        bench.source(port, [Packet(1, 2, bytes(64), flow_hash=index) for index in range(12)])
    stuck = True
    bench.sink(2, lambda: stuck)
    rows = open_rows(NETWORK, pages=8)

    async def script(ctx):
        nonlocal stuck
        await ctx.tick().repeat(600)
        assert bench.pending > 0                       # the host port holds on to its packets
        assert any(e.port == 0 and e.extra["tenant"] == 1 for e in bench.of_kind("stalled"))
        stuck = False

    bench.run(rows, script)
    dropped = bench.of_kind("drop")
    assert {event.port for event in dropped} == {1}
    assert not any(event.port == 1 for event in bench.of_kind("stalled"))
    assert [p.flow_hash for p in bench.received[2] if p.source == 0] == list(range(12))
    # The output holds three of the twelve outside the crosspoint at most; the quota is eight pages.
    assert 8 <= sum(p.source == 1 for p in bench.received[2]) <= 10
    assert len(dropped) + sum(p.source == 1 for p in bench.received[2]) == 12


@pytest.mark.parametrize("share", [0, 100, 256])
def test_processing_is_steered_in_the_exact_ratio(share):
    config = DeviceConfig(ports=2, data_width=32, tenants=2, pages=32)
    bench = Bench(Fabric(config), config)
    bench.source(0, [Packet(1, PROCESS, bytes(4), flow_hash=index) for index in range(128)])
    bench.sink(0)
    bench.sink(1)
    bench.run(open_rows(config, host_share=share))
    assert len(bench.received[config.host_port]) == share // 2
    assert len(bench.received[config.engine_port]) == 128 - share // 2
    assert {event.header["destination"] for event in bench.of_kind("admit")} <= {0, 1}


@pytest.mark.parametrize(("output", "shaped"), [
    (0, 0), (0, 1), (1, 2), (1, 3),   # both lengths of packets at both outputs
    *(pytest.param(*case, marks=pytest.mark.long) for case in ((0, 2), (0, 3), (1, 0), (1, 1)))])
def test_a_shaped_tenant_does_not_slow_another(output, shaped):
    other, beats_each = (shaped + 1) % 4, 16 + (output + shaped) % 2
    bench = Bench(Fabric(SMALL), SMALL)
    rows = open_rows(SMALL, pages=8)
    rows[shaped] = row(SMALL, weight=256, pages=8, ports=3, rate=FULL_RATE // 64, burst=256)
    bench.source(0, [Packet(other, output, bytes(4 * beats_each)) for _ in range(200)])
    bench.source(1, [Packet(shaped, output, bytes(4 * beats_each)) for _ in range(200)])
    bench.sink(output)
    bench.run(rows, cycles=1200)
    count = Counter(packet.tenant for packet in bench.received[output])
    # The last one starts when the bucket holds the largest packet, which leaves one beat of the burst, and the rate.
    assert 2 <= count[shaped] <= 1 + (1 + 1200 / 64) / beats_each
    assert (count[other] + count[shaped]) * beats_each >= 0.9 * 1150


@pytest.mark.parametrize(("tenant", "beats"), [
    (1, 37), *(pytest.param(*case, marks=pytest.mark.long) for case in ((0, 16), (2, 100), (3, 256)))])
def test_a_shaped_tenant_gets_its_rate_alone(tenant, beats):
    """At both outputs, one packet at a time: the bucket never holds two of the largest."""
    bench = Bench(Fabric(SMALL), SMALL)
    rows = open_rows(SMALL, pages=0)
    rows[tenant] = row(SMALL, weight=256, pages=32, ports=3, rate=FULL_RATE // 2, burst=288)
    cycles = 1200 + 8 * beats
    for port in range(2):
        bench.source(port, [Packet(tenant, port, bytes(4 * beats)) for _ in range(40)])
        bench.sink(port)
    bench.run(rows, cycles=cycles)
    for port in range(2):
        # The bucket begins with one largest packet, or is full; the last packet is read for as long as it is.
        least, most = 1 + (cycles - beats - 40) / 2 / beats, 1 + (33 + cycles / 2) / beats
        assert int(least) <= len(bench.received[port]) <= most


@pytest.mark.parametrize("crossed", [0, 1])
def test_a_tenant_of_one_page_gets_it_back_after_each_packet(crossed):
    """Also of the output's last packet, behind which nothing comes for as long as it is not back."""
    bench = Bench(Fabric(SMALL), SMALL)
    for port in range(2):
        bench.source(port, [Packet(tenant, port ^ crossed, bytes(64)) for tenant in range(3) for _ in range(3)])
        bench.sink(port)
    rows = [{**content, "pages": pages} for content, pages in zip(open_rows(SMALL), (1, 1, 1, 29), strict=True)]
    bench.run(rows)
    assert [len(received) for received in bench.received] == [9, 9]


def test_a_page_that_is_being_read_is_nobody_else_s():
    """The sink stalls when the first beat of a queue's last packet is read; then all pages are filled, and one more is
    wanted."""
    rng = random.Random(1)
    bench = Bench(Fabric(SMALL), SMALL)
    first = [Packet(1, 0, rng.randbytes(8), flow_hash=index) for index in range(3)]
    filling = [Packet(tenant, 0, rng.randbytes(64)) for tenant, pages in ((0, 10), (2, 10), (3, 11))
               for _ in range(pages)]
    again = [Packet(1, 0, rng.randbytes(60), flow_hash=index) for index in range(3, 5)]
    stuck = True
    bench.source(0, [*first, *filling, *again])
    bench.sink(0, lambda: stuck and bench.beats_out[0] >= 2, lambda: False)
    rows = [{**content, "pages": pages} for content, pages in zip(open_rows(SMALL), (10, 1, 10, 11), strict=True)]

    async def script(ctx):
        nonlocal stuck
        while len(bench.of_kind("admit")) < len(first) + len(filling):
            await ctx.tick()
        await ctx.tick().repeat(40)
        stuck = False
        await ctx.tick().repeat(40)

    bench.run(rows, script, cycles=0)
    got = [without_stamps(packet) for packet in bench.received[0] if packet.tenant == 1]
    assert got[:3] == [delivered_as(packet, 0) for packet in first]
