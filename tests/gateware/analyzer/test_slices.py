"""A counter slice against a table of sums: events back to back, with the largest amounts, while the other bank is
read and emptied."""

import random

import pytest

from gateware.analyzer.aggregation import Rule
from gateware.analyzer.slices import CounterSlice, Figure
from gateware.config import DeviceConfig
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(tenants=3)
EVENTS = 64
FIGURES = {"packets": Figure(), "bytes": Figure(most=4095), "sum": Figure(most=(1 << 32) - 1),
           "longest": Figure(Rule.MAXIMUM, (1 << 32) - 1)}
NOBODY = dict.fromkeys(FIGURES, 0)


def count(slices):
    """Drive slices, each a list of (tenant, amounts) or None a cycle, in alternating banks. Each is read while the
    next one is counted, then emptied. Rows found and expected, by slice and tenant."""
    dut, found, wanted = CounterSlice(CONFIG, FIGURES, EVENTS), [], []

    async def bench(ctx):
        previous = {}
        for number, events in enumerate(slices):
            rows = {}
            for cycle, event in enumerate(events):
                tenant, amounts = event or (0, NOBODY)
                ctx.set(dut.bank, number % 2)
                ctx.set(dut.valid, event is not None)
                ctx.set(dut.tenant, tenant)
                for name, amount in amounts.items():
                    ctx.set(getattr(dut, f"amount_{name}"), amount)
                if event and tenant < CONFIG.tenants:
                    row = rows.setdefault(tenant, dict(NOBODY))
                    for name, figure in FIGURES.items():
                        row[name] = max(row[name], amounts[name]) if figure.rule is Rule.MAXIMUM \
                            else row[name] + amounts[name]
                # The last event is in the memory two cycles after it was given: then a tenant a cycle, then all go.
                asked = cycle - 2
                ctx.set(dut.read, asked in range(CONFIG.tenants))
                ctx.set(dut.read_tenant, asked if asked in range(CONFIG.tenants) else 0)
                ctx.set(dut.read_bank, 1 - number % 2)
                ctx.set(dut.clear, asked == CONFIG.tenants)
                ctx.set(dut.clear_bank, 1 - number % 2)
                await ctx.tick()
                if asked in range(CONFIG.tenants):
                    found.append((number, asked, {name: ctx.get(getattr(dut, f"total_{name}")) for name in FIGURES}))
                    wanted.append((number, asked, previous.get(asked, NOBODY)))
            previous = rows

    simulate(dut, bench)
    return found, wanted


def amounts(rng):
    return {name: rng.choice([figure.most, rng.getrandbits(rng.randint(1, figure.most.bit_length()))])
            for name, figure in FIGURES.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "load"), [(1, 0.5), (2, 1.0)])
def test_rows_of_each_slice_equal_its_events(seed, load):
    """One tenant again and again, and all; tenants that do not exist; slices without an event of some."""
    rng = random.Random(seed)
    slices = []
    for _ in range(24):
        tenants = rng.choice([[0, 1, 2], [rng.randrange(3)], [0, 1, 2, 3, 63], [3, 4, 35]])
        slices.append([(rng.choice(tenants), amounts(rng)) if rng.random() < load else None
                       for _ in range(rng.choice([7, 20, EVENTS]))])
    found, wanted = count([*slices, [None] * 8])
    assert found == wanted


@pytest.mark.parametrize("tenant", range(CONFIG.tenants))
def test_as_many_events_as_promised_of_the_largest_amounts_fit(tenant):
    most = {name: figure.most for name, figure in FIGURES.items()}
    found, wanted = count([[(tenant, most)] * EVENTS] * 2 + [[None] * 8])
    assert found == wanted
    assert found[-CONFIG.tenants + tenant][2]["sum"] == EVENTS * ((1 << 32) - 1)


def test_event_in_the_cycle_in_which_the_other_bank_is_emptied_is_kept():
    one = [(1, {"packets": 1, "bytes": 9, "sum": 5, "longest": 5})]
    found, wanted = count([one * 6, [None] * 5 + one, [None] * 4 + one * 4, [None] * 8])
    assert found == wanted
