"""The ingress classifier against the model, with frames built by dpkt and those of the capture where it is."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.csr import regmap
from gateware.vni.classifier import Classifier
from tests.gateware.csr.initiator import access
from tests.gateware.packets import Pace, Sink, run_until, send_beats
from tests.gateware.vni.frames import build, capture_path, captured, classify, flow_hash, ipv4

BLOCK = regmap.node("classifier")


def random_entries(rng, count, macs, vlans):
    entries = []
    for _ in range(count):
        kind = rng.choice([0, 1, 1, 2, 2, 3])
        key = {0: 0, 1: rng.choice(vlans), 2: int.from_bytes(rng.choice(macs), "big"), 3: 0}[kind]
        entries.append({"enable": rng.random() < 0.8, "kind": kind, "port": rng.choice([1, 2]), "key": key,
                        "tenant": rng.randrange(16), "destination": rng.choice([0, 1, 2, 3, 15]),
                        "flow_class": rng.choice([0, 1, 2, 3, 8])})
    # Catch-all entries belong at the end, or nothing else is tried.
    return sorted(entries, key=lambda entry: entry["kind"] in (0, 3))


async def write_entries(ctx, dut, entries):
    for index, entry in enumerate(entries):
        base = BLOCK.address + index * BLOCK.stride
        await access(ctx, dut.bus, base + 4, entry["key"] & 0xFFFFFFFF)
        await access(ctx, dut.bus, base + 8, entry["key"] >> 32)
        await access(ctx, dut.bus, base, entry["enable"] | entry["kind"] << 1 | entry["port"] << 4
                     | entry["tenant"] << 8 | entry["destination"] << 16 | entry["flow_class"] << 20)


def forward(config, frames, entries=(), *, good, idle=0.0, stall=0.0, seed=0):
    """Send `frames[i]` into net port i; the sinks, when the `good` ones of each came out."""
    dut = Classifier(config)
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    sinks = []

    async def software(ctx):
        await write_entries(ctx, dut, entries)

    for index, port in enumerate(dut.packets):
        sinks.append(Sink(simulator, port, config, Pace(stall, seed + index)))

        async def send(ctx, index=index):
            for _ in range(10 * len(entries) + 1):
                await ctx.tick()
            await send_beats(ctx, dut.frames[index], frames[index], config, Pace(idle, seed + 10 + index))

        simulator.add_testbench(send, background=True)
    simulator.add_testbench(software, background=True)
    counts = []

    async def watch(ctx):
        while [len(sink.packets) for sink in sinks] != good:
            await ctx.tick()
        for _ in range(40):  # whatever should not come out would by now
            await ctx.tick()
        counts.extend(ctx.get(count) for count in dut.discarded)

    simulator.add_testbench(watch, background=True)
    run_until(simulator, lambda: counts, limit=20_000)
    return sinks, counts


def check(sink, frames, port, entries):
    assert [packet.payload for packet in sink.packets] == frames
    for packet, frame in zip(sink.packets, frames, strict=True):
        wanted = {**classify(frame, port, entries), "flow_hash": flow_hash(frame), "length": len(frame)}
        assert {name: packet.fields[name] for name in wanted} == wanted


@pytest.mark.slow
@pytest.mark.parametrize(("data_width", "idle", "stall", "seed"), [
    (64, 0, 0, 0), (64, 0.3, 0, 1), (64, 0, 0.5, 2), (64, 0.3, 0.3, 3), (32, 0.1, 0.1, 4), (128, 0, 0.1, 5),
    (512, 0, 0, 6)])
def test_frames_get_the_first_matching_entry_and_pass_unchanged(data_width, idle, stall, seed):
    config = DeviceConfig(data_width=data_width, classifier_entries=12)
    rng = random.Random(seed)
    macs, vlans = [rng.randbytes(6) for _ in range(4)], [1, 2, 0, 4095]
    entries = random_entries(rng, 12, macs, vlans)
    frames = [[build(rng, macs, vlans) for _ in range(16)] for _ in config.net_ports]
    sinks, counts = forward(config, frames, entries, good=[16, 16], idle=idle, stall=stall, seed=seed)
    for sink, sent, port in zip(sinks, frames, config.net_ports, strict=True):
        check(sink, sent, port, entries)
    assert counts == [0, 0]


def test_after_reset_everything_goes_to_the_host_as_tenant_0():
    config = DeviceConfig(classifier_entries=2)
    rng = random.Random(7)
    frames = [[build(rng) for _ in range(5)] for _ in config.net_ports]
    sinks, _ = forward(config, frames, good=[5, 5])
    for sink, sent, port in zip(sinks, frames, config.net_ports, strict=True):
        check(sink, sent, port, [])
        assert all(packet.fields["tenant"] == packet.fields["destination"] == 0 for packet in sink.packets)


@pytest.mark.slow
def test_bad_frames_vanish_whole_and_are_counted():
    config = DeviceConfig(classifier_entries=2)
    rng = random.Random(8)
    most = config.max_packet_bytes
    lengths = [13, 14, 1, most, most + 1, 64, most + 900, 3 * most, 60, 8, 15, most - 1, 5, 4000, 20]
    frames = [rng.randbytes(length) for length in lengths]
    good = [frame for frame in frames if 14 <= len(frame) <= most]
    sinks, counts = forward(config, [frames, frames[::-1]], good=[len(good)] * 2, stall=0.1)
    check(sinks[0], good, 1, [])
    check(sinks[1], good[::-1], 2, [])
    assert counts == [len(frames) - len(good)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("beats", [16, 256])
def test_line_rate_on_every_port_at_once(beats):
    config = DeviceConfig(classifier_entries=2)
    rng = random.Random(9)
    count = 24 if beats == 16 else 5
    frames = [[rng.randbytes(8 * beats) for _ in range(count)] for _ in config.net_ports]
    sinks, _ = forward(config, frames, good=[count] * 2)
    for sink in sinks:
        gaps = [after - before for before, after in zip(sink.cycles, sink.cycles[1:], strict=False)]
        assert gaps == [beats] * (count - 1)


def test_latency_is_a_few_cycles():
    config = DeviceConfig(classifier_entries=1)
    sinks, _ = forward(config, [[bytes(64)], []], good=[1, 0])
    sent = 1 + 8  # cycle after which the last beat is in
    assert sinks[0].cycles[0] - 8 - sent <= 6


@pytest.mark.slow
@pytest.mark.skipif(capture_path() is None, reason="needs the recorded capture (MORPHNIC_DATA)")
def test_frames_of_the_capture_pass_and_hash_like_the_model():
    config = DeviceConfig(classifier_entries=4)
    frames = captured(60)
    good = [frame for frame in frames if 14 <= len(frame) <= config.max_packet_bytes]
    macs = sorted({frame[:6] for frame in good})[:2]
    entries = [{"enable": 1, "kind": 2, "port": 1, "key": int.from_bytes(mac, "big"), "tenant": 3 + index,
                "destination": 15, "flow_class": 1} for index, mac in enumerate(macs)]
    sinks, _ = forward(config, [frames, []], entries, good=[len(good), 0])
    check(sinks[0], good, 1, entries)
    assert {packet.fields["tenant"] for packet in sinks[0].packets} >= {3}


def test_hash_ignores_what_changes_within_a_flow_and_tells_directions_apart():
    flow = [ipv4("10.0.0.1", "10.0.0.2", 1000, 80, ttl=ttl) for ttl in (64, 63, 1)]
    assert len({flow_hash(frame) for frame in flow}) == 1
    back = ipv4("10.0.0.2", "10.0.0.1", 80, 1000)
    other = ipv4("10.0.0.1", "10.0.0.2", 1001, 80)
    assert len({flow_hash(frame) for frame in (flow[0], back, other)}) == 3


def test_hash_spreads_flows():
    rng = random.Random(10)
    frames = [ipv4("10.0.0.1", f"10.0.{rng.randrange(4)}.{rng.randrange(256)}", rng.randrange(32768, 61000), 443)
              for _ in range(2000)]
    buckets = [0] * 16
    for frame in frames:
        buckets[flow_hash(frame) & 15] += 1
    assert min(buckets) > 60, buckets
