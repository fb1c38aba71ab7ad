"""The collector: totals over slices of unequal length, and those that are made of whole parts, against plain sums."""

import random

import pytest

from gateware.analyzer.aggregation import Rule
from gateware.analyzer.analyzer import RULES
from gateware.analyzer.collector import MOST_PACKETS, Collector, walk_cycles
from gateware.config import DeviceConfig
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=2, tenants=3)
SETTLE = 2
OF_PARTS = ("burst", "squares", "beats_out", "contended")
WIDTHS = {name: rule.width for name, rule in RULES.items()}
PARTS = 3  # enough here; the collector counts none
MODULUS = 1 << 32
JOINS = {Rule.SUM: lambda values: sum(values) % MODULUS, Rule.SATURATE: lambda values: min(sum(values), (1 << 40) - 1),
         Rule.MAXIMUM: max}


NEAR = 0x5C_9A3F_6172  # many amounts differ from it in one bit only, so that which is larger hangs on that


def drawn(rng, width, bits=40):
    """An amount of any size, of at most `bits`."""
    width = min(width, bits)
    near = (NEAR ^ 1 << rng.randrange(width)) % (1 << width)
    return rng.choice([0, rng.getrandbits(rng.randint(1, width)), rng.getrandbits(width), (1 << width) - 1,
                       near, near, near, near])


def random_slice(rng, packets, bits=40):
    """What one slice has of every tenant: figures of at most `bits`, beats by port, whether it sent by each input."""
    return [{**{name: drawn(rng, width, bits) for name, width in WIDTHS.items()},
             "packets_in": rng.choice([0, 1, rng.randint(0, packets), packets]),
             "beats": [rng.choice([0, drawn(rng, 32), rng.getrandbits(8)]) for _ in range(CONFIG.ports)],
             "sent": rng.getrandbits(CONFIG.ports) & rng.getrandbits(CONFIG.ports)} for _ in range(CONFIG.tenants)]


def expected_row(window, full, tenant):
    """Totals of one tenant: `window` is a list of parts, each a list of slices; `full` of each part."""
    mine = [[each[tenant] for each in part] for part in window]
    every = [each for part in mine for each in part]
    beats = [[sum(each["beats"][port] for each in part) % MODULUS for port in range(CONFIG.ports)] for part in mine]
    packets = [min(sum(each["packets_in"] for each in part), MOST_PACKETS) for part in mine]
    used = [[any(each["sent"] >> port & 1 for each in part) for port in range(CONFIG.ports)]
            + [bool(sum_) for sum_ in left] for part, left in zip(mine, beats, strict=True)]
    return {
        **{name: JOINS[rule](each[name] for each in every) for name, rule in RULES.items()},
        "burst": max(sum(each["bytes_in"] for each in part) % MODULUS for part in mine),
        "squares": JOINS[Rule.SATURATE](count * count for count in packets),
        "beats_out": JOINS[Rule.SUM](max(left) for left in beats),
        "contended": sum(any(mask >> port & 1 and use for port, use in enumerate(uses))
                         for mask, uses in zip(full, used, strict=True)),
    }


async def walk(ctx, dut, bank, figures, ends, noise):
    """One slice: its end, and the walk over the tenants, which reads each once and then empties the bank that it read.
    Whether the window was complete at its end."""
    read, cleared, completed = [], 0, []
    ctx.set(dut.bank, bank)
    for name in ("slice_end", *ends):
        ctx.set(getattr(dut, name), 1)
    for cycle in range(walk_cycles(CONFIG, SETTLE) + 1):
        reads, tenant = ctx.get(dut.read), ctx.get(dut.read_tenant)
        if reads:
            assert cycle > SETTLE, "the last events are not there yet"
            read.append(tenant)
        if ctx.get(dut.clear):
            assert read == list(range(CONFIG.tenants)), "all are read before the bank is emptied"
            cleared += 1
        assert ctx.get(dut.read_bank) == bank or not (reads or ctx.get(dut.clear))
        completed.append(ctx.get(dut.complete))
        await ctx.tick()
        if cycle == 0:
            ctx.set(dut.bank, 1 - bank)
            for name in ("slice_end", "part_end", "window_end"):
                ctx.set(getattr(dut, name), 0)
        # Outside the walk the inputs are noise, as those of the slices may be.
        row = figures[tenant] if reads else noise[cycle % CONFIG.tenants]
        for name in WIDTHS:
            ctx.set(getattr(dut, f"slice_{name}"), row[name])
        for port, beats in zip(dut.beats, row["beats"], strict=True):
            ctx.set(port, beats)
        ctx.set(dut.sent, row["sent"])
    assert cleared == 1
    assert sum(completed) == ("window_end" in ends)


async def read_rows(ctx, dut):
    rows = []
    for tenant in range(CONFIG.tenants):
        ctx.set(dut.row_tenant, tenant)
        await ctx.tick()
        rows.append({name: ctx.get(getattr(dut, f"row_{name}")) for name in (*WIDTHS, *OF_PARTS)})
    return rows


def totals(windows, full, seed):
    """Rows of each window, read right after it and once more while the next one is counted (all but the last)."""
    dut, found, again = Collector(CONFIG, RULES, SETTLE), [], []

    async def bench(ctx):
        bank, noise = 0, random_slice(random.Random(seed), 1 << 31)
        for window, masks in zip(windows, full, strict=True):
            for number, (part, mask) in enumerate(zip(window, masks, strict=True)):
                for index, figures in enumerate(part):
                    ends = []
                    if index == len(part) - 1:
                        ctx.set(dut.full, mask)
                        ends = ["part_end"] + ["window_end"] * (number == len(window) - 1)
                    await walk(ctx, dut, bank, figures, ends, noise)
                    bank = 1 - bank
                    if number == index == 1 and found:
                        again.append(await read_rows(ctx, dut))
            found.append(await read_rows(ctx, dut))

    simulate(dut, bench)
    return found, again


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "packets"), [(1, 100), (2, 100_000), (3, (1 << 32) - 1)])
def test_totals_of_windows_equal_sums_over_their_slices_and_parts(seed, packets):
    rng = random.Random(seed)
    # Totals of the largest amounts saturate: those of smaller ones are what has been added.
    windows = [[[random_slice(rng, packets, bits) for _ in range(rng.choice([1, 2, 5]) if number != 1 else 2)]
                for number in range(PARTS)] for bits in (40, 40, 40, 36, 34)]
    full = [[rng.getrandbits(2 * CONFIG.ports) & rng.getrandbits(2 * CONFIG.ports) for _ in range(PARTS)]
            for _ in windows]
    found, again = totals(windows, full, seed)
    wanted = [[expected_row(window, masks, tenant) for tenant in range(CONFIG.tenants)]
              for window, masks in zip(windows, full, strict=True)]
    assert found == wanted
    assert again == wanted[:-1]


@pytest.mark.slow
def test_squares_of_many_full_parts_stay_at_their_largest_value():
    """64 parts with the most packets are just below 2**40, another is above."""
    rng = random.Random(4)
    window = [[random_slice(rng, 0)] for _ in range(66)]
    for number, (figures,) in enumerate(window):
        for tenant, parts in ((0, 64), (1, 65), (2, 66)):
            figures[tenant]["packets_in"] = MOST_PACKETS + 1 if number < parts else 0
    found, _ = totals([window], [[0] * len(window)], 4)
    assert [row["squares"] for row in found[0]] == [64 * MOST_PACKETS ** 2, (1 << 40) - 1, (1 << 40) - 1]
