"""Each flag at its threshold: one step below and one above, everything else calm."""

import pytest
from amaranth.lib import data
from amaranth.sim import Simulator

from gateware.analyzer.flags import FlagBits, Flags
from gateware.config import DeviceConfig

CONFIG = DeviceConfig(slots=2)
CYCLES = 16_000
FULL_RATE = 1 << 16
#: Nothing happens, and nothing is a limit.
CALM = {"cycles": CYCLES, "rate": FULL_RATE, "eligible": 0b11,
        "sampled": {"count": 1000, "depth": 0, "held": 0}, "busy_cycles": [0, 0]}


def flags(**changes):
    """Names of the flags that are set."""
    dut, found = Flags(CONFIG), []
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

    async def bench(ctx):
        for name, value in {**CALM, **changes}.items():
            if name == "busy_cycles":
                for port, cycles in zip(dut.busy_cycles, value, strict=True):
                    ctx.set(port, cycles)
            else:
                ctx.set(getattr(dut, name), value)
        await ctx.tick().repeat(4)
        found.append(ctx.get(dut.flags))

    simulator.add_testbench(bench)
    simulator.run()
    return {name for name in data.Layout.cast(FlagBits).members if getattr(found[0], name)}


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
