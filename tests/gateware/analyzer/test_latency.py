"""Latency histograms with a packet at every port in every cycle: nothing is lost, and a read is exact at once."""

import random
from collections import Counter

import pytest

from gateware.analyzer.latency import BINS, CARRY, LatencyHistogram
from gateware.config import DeviceConfig
from tests.gateware.analyzer.model import latency_bin
from tests.gateware.csr.initiator import access
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=3, tenants=3)


def run(config, cycles, *, reads=()):
    """Drive lists of (tenant, latency) or None by port; read the places `reads(number)` all the while, and in the end
    every place that was counted in. Returns (place, least, found, most) for each read, between the count when it
    began and that when it ended."""
    dut = LatencyHistogram(config)
    counted, found, finished = Counter(), [], []

    async def drive(ctx):
        for events in cycles:
            for port, event in enumerate(events):
                tenant, latency = event or (0, 0)
                ctx.set(dut.leave[port], {"valid": event is not None, "tenant": tenant, "latency": latency})
                if event and tenant < config.tenants:
                    counted[tenant * BINS + latency_bin(latency)] += 1
            await ctx.tick()
        for leave in dut.leave:
            ctx.set(leave.valid, 0)
        await ctx.tick().repeat(8)
        finished.append(True)

    async def read(ctx):
        number = 0
        while not finished:
            place = reads(number) if callable(reads) else 0
            number += 1
            found.append((place, *await one(ctx, place)))
        for place in sorted(counted):
            found.append((place, *await one(ctx, place)))

    async def one(ctx, place):
        least = counted[place] - 3 * config.ports  # counted three cycles later
        ctx.set(dut.bus.valid, 1)
        ctx.set(dut.bus.address, place)
        (value,) = await ctx.tick().sample(dut.bus.r_data).until(dut.bus.ready)
        ctx.set(dut.bus.valid, 0)
        await ctx.tick().repeat(1 + place % 4)   # the next access begins in another cycle of whatever goes round
        return (least if not finished else counted[place]), value, counted[place]

    simulate(dut, drive, read)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "ports"), [(0, 2), (1, 3), (2, 4)])
def test_no_packet_is_lost_at_line_rate(seed, ports):
    """Few bins, so that they carry often; the bus reads all the time and so holds carries back."""
    rng = random.Random(seed)
    config = DeviceConfig(ports=ports, tenants=3)
    hot = [(rng.randrange(3), rng.getrandbits(rng.randrange(1, 32))) for _ in range(4)]
    cycles = [[rng.choice(hot) for _ in range(ports)] for _ in range(2500)]
    places = [tenant * BINS + latency_bin(latency) for tenant, latency in hot]
    found = run(config, cycles, reads=lambda number: places[number % len(places)])
    assert max(value for _, _, value, _ in found) > 8 * CARRY, "nothing was carried"
    for place, least, value, most in found:
        assert least <= value <= most, f"bin {place}"


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "latency"), [(4, 9), (5, (1 << 32) - 1)])
def test_a_constant_latency_at_every_port_is_counted(seed, latency):
    """One bin for 2,000 cycles: each port's count would overflow many times without its turn."""
    found = run(CONFIG, [[(1, latency)] * CONFIG.ports for _ in range(2000)])
    assert found[-1][1:] == (6000, 6000, 6000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6])
def test_counts_that_carry_one_after_the_other_in_one_bin_and_in_several_are_all_in_the_total(seed):
    """Ports carry in cycles that follow each other, to the same place of the total and to others; then all is read."""
    rng = random.Random(seed)
    hot = [(tenant, 8 << 3 * tenant) for tenant in range(CONFIG.tenants)]
    cycles = [[hot[(number // 50) % 3] if number % 600 < 450 else rng.choice(hot) for _ in range(CONFIG.ports)]
              for number in range(1200)]
    found = run(CONFIG, cycles)[-len(hot):]
    assert sum(value for _, _, value, _ in found) == CONFIG.ports * len(cycles)
    assert all(least == value == most for _, least, value, most in found)


@pytest.mark.slow
@pytest.mark.parametrize("port", range(CONFIG.ports))
def test_every_latency_finds_its_bin_at_every_port(port):
    """Each octave from its first to its last latency, and any between; a tenant that does not exist counts nowhere."""
    rng = random.Random(port)
    latencies = [*range(40), *(1 << octave for octave in range(32)), *((1 << octave) - 1 for octave in range(1, 33)),
                 *((8 + part << octave) + rng.getrandbits(octave) for octave in range(29) for part in range(8))]
    cycles = []
    for latency in latencies:
        cycle = [(rng.randrange(3), rng.getrandbits(32)) if rng.random() < 0.1 else None for _ in range(CONFIG.ports)]
        cycle[port] = rng.choice([0, 1, 2, 2, 3, 35, 63]), latency
        cycles.append(cycle)
    for place, least, value, most in run(CONFIG, cycles)[1:]:
        assert least <= value <= most, f"bin {place}"


def test_bins_nobody_counted_in_are_zero_and_writes_and_other_tenants_refused():
    dut, answers = LatencyHistogram(CONFIG), []

    async def software(ctx):
        for tenant in (0, 1, 2, 3, 4, 8, 16, 32, 63):
            for number in (0, 255):
                for written in (None, 7):
                    answers.append((tenant, written,
                                    *await access(ctx, dut.bus, 4 * (tenant * BINS + number), written)))

    simulate(dut, software)
    for tenant, written, error, value, cycles in answers:
        assert error == (written is not None or tenant >= CONFIG.tenants)
        assert error or value == 0
        assert cycles == 4


def test_bins_are_narrow_enough_for_percentiles_within_7_percent():
    """The middle of a bin (geometric) against its ends."""
    for latency in [*range(8, 5000), *(1 << octave for octave in range(13, 32))]:
        number = latency_bin(latency)
        octave, part = divmod(number, 8)
        low, width = (8 + part) << (octave - 1), 1 << (octave - 1)
        assert low <= latency < low + width
        middle = (low * (low + width)) ** 0.5
        assert max(middle / low, (low + width) / middle) < 1.07
