"""Each flag at its threshold: one step below and one above, everything else calm; then amounts of every size."""

import random
from fractions import Fraction

import pytest
from amaranth.lib import data

from gateware.analyzer.flags import FlagBits, Flags
from gateware.config import DeviceConfig
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(slots=2)
CYCLES = 16_000
FULL_RATE = 1 << 16
#: Nothing happens, and nothing is a limit.
CALM = {"cycles": CYCLES, "rate": FULL_RATE, "eligible": 0b11,
        "sampled": {"count": 1000, "depth": 0, "held": 0}, "busy_cycles": [0, 0]}


def evaluated(windows):
    """Names of the flags that are set for each of the windows, given as inputs by name."""
    dut, found = Flags(CONFIG), []
    names = list(data.Layout.cast(FlagBits).members)

    async def bench(ctx):
        for inputs in windows:
            for name, value in inputs.items():
                if name == "busy_cycles":
                    for port, cycles in zip(dut.busy_cycles, value, strict=True):
                        ctx.set(port, cycles)
                else:
                    ctx.set(getattr(dut, name), value)
            await ctx.tick().repeat(4)
            flags = ctx.get(dut.flags)
            found.append({name for name in names if getattr(flags, name)})

    simulate(dut, bench)
    return found


def flags(**changes):
    """Names of the flags that are set in a window that is calm but for `changes`."""
    return evaluated([{**CALM, **changes}])[0]


def sampled(*, depth=0, held=0):
    return {"count": 1000, "depth": depth, "held": held}


STALLED = {"backpressure_cycles": CYCLES // 2}
BUSY = {"busy_cycles": [CYCLES, CYCLES], "engine_cycles": CYCLES}


@pytest.mark.parametrize(("inputs", "names"), [
    ({}, set()),
    ({"backpressure_cycles": 2000}, set()),
    ({"backpressure_cycles": 2001}, {"backpressured", "pages_bound"}),
    # Without credit in more than an eighth of the samples, and something to send: a packet on its way on average.
    ({"sampled": sampled(held=125), "latency_sum": 16_000}, set()),
    ({"sampled": sampled(held=126), "latency_sum": 16_000}, {"backpressured", "pages_bound"}),
    ({"sampled": sampled(held=126), "latency_sum": 15_999}, set()),
    ({"sampled": sampled(held=126, depth=1000)}, {"backpressured", "pages_bound"}),
    ({"sampled": sampled(held=1000, depth=999)}, set()),
    # Of packets_in + drops more than an eighth; nothing admitted is no wait.
    ({"packets_in": 700, "drops": 100}, set()),
    ({"packets_in": 700, "drops": 101}, {"pages_bound"}),
    ({"packets_in": 0, "drops": 900}, set()),
    ({"requests": 100, "sequential": 50, "strided": 50}, set()),
    ({"requests": 100, "sequential": 51, "strided": 49}, {"is_sequential"}),
    ({"requests": 100, "sequential": 49, "strided": 51}, {"is_strided"}),
    ({"packets_out": 160, "slo_misses": 10}, set()),
    ({"packets_out": 160, "slo_misses": 11}, {"missing_slo"}),
    ({"cpu": 204, "memory": 204}, set()),
    ({"cpu": 205}, {"host_bound"}),
    ({"memory": 205}, {"host_bound"}),
])
def test_simple_flags(inputs, names):
    assert flags(**inputs) == names


@pytest.mark.parametrize(("inputs", "names"), [
    ({"busy_cycles": [14_000, 14_000], "engine_cycles": 9000}, set()),
    ({"busy_cycles": [14_001, 14_000], "engine_cycles": 9000}, {"engine_bound"}),
    ({"busy_cycles": [16_000, 12_001], "engine_cycles": 2001}, {"engine_bound"}),
    ({"busy_cycles": [16_000, 16_000], "engine_cycles": 2000}, set()),
    # Only the slots that the tenant may use count; without any, engines limit nobody.
    ({"busy_cycles": [16_000, 0], "engine_cycles": 1001, "eligible": 0b01}, {"engine_bound"}),
    ({"busy_cycles": [16_000, 0], "engine_cycles": 1001, "eligible": 0b10}, set()),
    ({"busy_cycles": [16_000, 16_000], "engine_cycles": 9000, "eligible": 0}, set()),
    # A tenant that waits behind busy engines waits for them.
    ({**BUSY, **STALLED}, {"engine_bound", "backpressured"}),
])
def test_engine_bound(inputs, names):
    assert flags(**inputs) == names


@pytest.mark.parametrize(("inputs", "names"), [
    # A rate of 1/4: 4,000 beats in the window, 3,500 of them are 7/8.
    ({"rate": FULL_RATE // 4, "beats_out": 3500}, set()),
    ({"rate": FULL_RATE // 4, "beats_out": 3501}, {"bandwidth_bound"}),
    ({"rate": FULL_RATE, "beats_out": 16_000}, set()),
    # Half of the parts by a full port, and backlogged: two packets on their way on average, or waiting.
    ({"contended": 8, "sampled": sampled(depth=2000)}, {"bandwidth_bound"}),
    ({"contended": 7, "sampled": sampled(depth=2000)}, set()),
    ({"contended": 8, "sampled": sampled(depth=1999)}, set()),
    ({"contended": 8, "latency_sum": 32_000}, {"bandwidth_bound"}),
    ({"contended": 8, "latency_sum": 31_999}, set()),
    ({"contended": 16, **STALLED}, {"bandwidth_bound", "backpressured"}),
    ({"contended": 7, **STALLED}, {"pages_bound", "backpressured"}),
    ({"contended": 8, "packets_in": 700, "drops": 101}, {"bandwidth_bound"}),
])
def test_bandwidth_bound(inputs, names):
    assert flags(**inputs) == names


def drawn(rng):
    """Inputs of a window of any size, each amount of any size or within one of where its flag changes."""
    def size(bits=32):
        return rng.getrandbits(rng.randint(1, bits))

    def amount(threshold, bits=32):
        near = threshold + rng.randint(-1, 1) if rng.random() < 0.7 else size(bits)
        return min(max(near, 0), (1 << bits) - 1)

    cycles, count, eligible = max(size(), 1), max(size(), 1), rng.getrandbits(CONFIG.slots)
    rate = rng.choice([FULL_RATE, rng.randint(0, FULL_RATE), 1 << rng.randrange(17)])
    available = cycles * eligible.bit_count()
    packets_in, packets_out, requests, first = size(), size(), size(), rng.randint(0, cycles)
    return {
        "cycles": cycles, "rate": rate, "eligible": eligible,
        "sampled": {"count": count, "held": amount(count // 8), "depth": amount(count * rng.randint(1, 2), 36)},
        "backpressure_cycles": amount(cycles // 8),
        "latency_sum": amount(cycles * rng.randint(1, 2), 40),
        "packets_in": packets_in, "drops": amount(packets_in // 7),
        "requests": requests, "sequential": amount(requests // 2), "strided": amount(requests // 2),
        "packets_out": packets_out, "slo_misses": amount(packets_out // 16),
        "busy_cycles": [first, amount(available * 7 // 8 - first * (eligible & 1))],
        "engine_cycles": amount(available // 16),
        "beats_out": amount(7 * rate * cycles // (8 * FULL_RATE)),
        "contended": rng.randint(0, 16), "cpu": amount(204, 8), "memory": amount(204, 8)}


def exact(window):
    """The flags by their definition, in fractions."""
    cycles, samples, rate = window["cycles"], window["sampled"], window["rate"]
    on_their_way = max(Fraction(samples["depth"], samples["count"]), Fraction(window["latency_sum"], cycles))
    stalled = Fraction(window["backpressure_cycles"], cycles) > Fraction(1, 8) or (
        Fraction(samples["held"], samples["count"]) > Fraction(1, 8) and on_their_way >= 1)
    offered = window["packets_in"] + window["drops"]
    waits = stalled or (window["packets_in"] > 0 and Fraction(window["drops"], offered) > Fraction(1, 8))
    mine = [busy for slot, busy in enumerate(window["busy_cycles"]) if window["eligible"] >> slot & 1]
    available = len(mine) * cycles
    engine = sum(mine) > Fraction(7, 8) * available and window["engine_cycles"] > Fraction(1, 16) * available
    shaped = rate < FULL_RATE and window["beats_out"] > Fraction(7, 8) * Fraction(rate, FULL_RATE) * cycles
    bandwidth = shaped or ((waits or on_their_way >= 2) and window["contended"] >= 8)
    half = Fraction(window["requests"], 2)
    return {name for name, is_set in {
        "backpressured": stalled, "is_sequential": window["sequential"] > half, "is_strided": window["strided"] > half,
        "missing_slo": window["slo_misses"] > Fraction(window["packets_out"], 16), "engine_bound": engine,
        "bandwidth_bound": bandwidth, "pages_bound": waits and not engine and not bandwidth,
        "host_bound": max(window["cpu"], window["memory"]) > Fraction(4, 5) * 255}.items() if is_set}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_comparisons_are_exact_for_amounts_of_every_size(seed):
    rng = random.Random(seed)
    windows = [drawn(rng) for _ in range(1000)]
    for inputs, names in zip(windows, evaluated(windows), strict=True):
        assert names == exact(inputs), f"seed {seed}: {inputs}"
    assert set.intersection(*map(exact, windows)) == set(), "the stimulus misses a case"
    assert len(set.union(*map(exact, windows))) == 8, "the stimulus misses a case"
