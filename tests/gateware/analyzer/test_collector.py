"""The collector: totals over slices of unequal length, and those that are made of whole parts, against plain sums."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.analyzer.analyzer import RULES
from gateware.analyzer.collector import MOST_PACKETS, Collector, walk_cycles
from gateware.config import DeviceConfig

CONFIG = DeviceConfig(ports=2, tenants=3)
SETTLE = 2
NAMES = ("packets_in", "bytes_in", "latency_max", "latency_sum", "burst", "squares", "beats_out", "contended")
PARTS = 3  # enough here; the collector counts none


def random_slice(rng, packets):
    """What one slice has of every tenant: figures, beats by port, whether it sent by each input."""
    return [{"packets_in": rng.choice([0, 1, packets]), "bytes_in": rng.getrandbits(20),
             "latency_max": rng.getrandbits(9), "latency_sum": rng.getrandbits(39),
             "beats": [rng.choice([0, rng.getrandbits(10)]) for _ in range(2)],
             "sent": rng.getrandbits(2) & rng.getrandbits(2)} for _ in range(CONFIG.tenants)]


def expected_row(window, full, tenant):
    """Totals of one tenant: `window` is a list of parts, each a list of slices; `full` of each part."""
    mine = [[each[tenant] for each in part] for part in window]
    every = [each for part in mine for each in part]
    beats = [[sum(each["beats"][port] for each in part) for port in range(2)] for part in mine]
    packets = [min(sum(each["packets_in"] for each in part), MOST_PACKETS) for part in mine]
    used = [[any(each["sent"] >> port & 1 for each in part) for port in range(2)] + [bool(sum_) for sum_ in left]
            for part, left in zip(mine, beats, strict=True)]
    return {
        "packets_in": sum(each["packets_in"] for each in every), "bytes_in": sum(each["bytes_in"] for each in every),
        "latency_max": max(each["latency_max"] for each in every),
        "latency_sum": min(sum(each["latency_sum"] for each in every), (1 << 40) - 1),
        "burst": max(sum(each["bytes_in"] for each in part) for part in mine),
        "squares": min(sum(count * count for count in packets), (1 << 40) - 1),
        "beats_out": sum(max(left) for left in beats),
        "contended": sum(any(mask >> port & 1 and use for port, use in enumerate(uses))
                         for mask, uses in zip(full, used, strict=True)),
    }


@pytest.mark.parametrize(("seed", "packets"), [(1, 100), (2, 100_000)])
def test_totals_of_windows_equal_sums_over_their_slices_and_parts(seed, packets):
    rng = random.Random(seed)
    windows = [[[random_slice(rng, packets) for _ in range(rng.choice([1, 2, 5]))] for _ in range(PARTS)]
               for _ in range(3)]
    full = [[rng.getrandbits(4) for _ in range(PARTS)] for _ in windows]
    dut = Collector(CONFIG, RULES, SETTLE)
    found = []

    async def walk(ctx, figures, ends):
        """One slice: its end, and the walk over the tenants."""
        for name in ("slice_end", *ends):
            ctx.set(getattr(dut, name), 1)
        for cycle in range(walk_cycles(CONFIG, SETTLE) + 1):
            read, tenant = ctx.get(dut.read), ctx.get(dut.read_tenant)
            await ctx.tick()
            if cycle == 0:
                for name in ("slice_end", "part_end", "window_end"):
                    ctx.set(getattr(dut, name), 0)
            # Outside the walk the inputs are noise, as those of the slices may be.
            row = figures[tenant] if read else random_slice(rng, packets)[0]
            for name in ("packets_in", "bytes_in", "latency_max", "latency_sum"):
                ctx.set(getattr(dut, f"slice_{name}"), row[name])
            for port, beats in zip(dut.beats, row["beats"], strict=True):
                ctx.set(port, beats)
            ctx.set(dut.sent, row["sent"])

    async def read_rows(ctx):
        for tenant in range(CONFIG.tenants):
            ctx.set(dut.row_tenant, tenant)
            await ctx.tick()
            found.append({name: ctx.get(getattr(dut, f"row_{name}")) for name in NAMES})

    async def bench(ctx):
        for window, masks in zip(windows, full, strict=True):
            for number, (part, mask) in enumerate(zip(window, masks, strict=True)):
                for index, figures in enumerate(part):
                    ends = [] if index < len(part) - 1 else ["part_end"]
                    if ends:
                        ctx.set(dut.full, mask)
                        ends += ["window_end"] if number == PARTS - 1 else []
                    await walk(ctx, figures, ends)
                    if index == number == 0:
                        await read_rows(ctx)  # of the window before: its totals stay while this one is counted
        await read_rows(ctx)

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert found[CONFIG.tenants:] == [
        expected_row(window, masks, tenant) for window, masks in zip(windows, full, strict=True)
        for tenant in range(CONFIG.tenants)]
