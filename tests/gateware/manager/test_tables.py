"""Random tables at and over their limits: the hardware's verdict is the model's, with reason and row."""

import random

import pytest

from gateware.config import DeviceConfig
from tests.gateware.manager import model
from tests.gateware.manager.harness import Harness
from tests.gateware.manager.model import COLUMNS, WHOLE_TABLE, check_table

SMALL = DeviceConfig(ports=3, tenants=5, slots=3, pages=32)
REASONS = {model.WEIGHTS, model.PAGES, model.GUARANTEE, model.SLOT_TWICE, model.BURST, model.UNKNOWN_BIT, model.RATE,
           model.HOST_SHARE}


def legal_table(rng, config):
    """Legal, and in some columns at the limit of the whole table."""
    weights = [rng.randrange(1, 65536 // config.tenants) for _ in range(config.tenants)]
    pages = [rng.randrange(config.pages // config.tenants) for _ in range(config.tenants)]
    if rng.random() < 0.5:
        weights[rng.randrange(config.tenants)] += 65536 - sum(weights)
    if rng.random() < 0.5:
        pages[rng.randrange(config.tenants)] += config.pages - sum(pages)
    owners = [rng.randrange(config.tenants + 1) for _ in range(config.slots)]
    return [{"weight": min(weights[tenant], 65535), "rate": rng.randrange(1, 65537),
             "burst": rng.randrange(256, 1 << 15), "pages": pages[tenant], "ports": rng.randrange(1 << config.ports),
             "slots": sum(1 << slot for slot, owner in enumerate(owners) if owner == tenant),
             "host_share": rng.randrange(257)} for tenant in range(config.tenants)]


def disturb(rng, table, config):
    """Up to three values that are at, just over, or far over what is allowed; now and then a slot of two owners."""
    if rng.random() < 0.2:
        one, other = rng.sample(table, 2)
        one["slots"] |= other["slots"]
    for _ in range(rng.randrange(4)):
        row = rng.choice(table)
        column = rng.choice(COLUMNS)
        row[column] = rng.choice({
            "weight": [0, row["weight"] + 1, 65535, 1 << rng.randrange(16)],
            "rate": [0, 1 << rng.randrange(17), 65536, 65536 + (1 << rng.randrange(16))],
            "burst": [1 << rng.randrange(8), 255, 256, 1 << rng.randrange(8, 15)],
            "pages": [row["pages"] + 1, config.pages, 1 << rng.randrange(16)],
            "ports": [0, (1 << config.ports) - 1, 1 << rng.randrange(config.ports, 16)],
            "slots": [0, 1, (1 << config.slots) - 1, 1 << rng.randrange(config.slots, 16)],
            "host_share": [0, 256, 256 + (1 << rng.randrange(8)), 1 << rng.randrange(8)]}[column])
        row[column] &= 0x1FFFF if column == "rate" else 0xFFFF


@pytest.mark.parametrize(("config", "seed", "tables"), [
    (SMALL, 1, 120), pytest.param(SMALL, 2, 250, marks=pytest.mark.long),
    pytest.param(DeviceConfig(tenants=2, slots=2), 3, 250, marks=pytest.mark.long), (DeviceConfig(), 4, 60),
])
@pytest.mark.slow
def test_verdict_on_random_tables_is_the_models(config, seed, tables):
    async def test(harness, ctx):
        rng = random.Random(seed)
        seen = set()
        staged = [dict(row) for row in harness.mirror.active]
        guarantees = [(0, 0)] * config.tenants
        await harness.command(ctx, "begin")
        for _ in range(tables):
            # Half of the tables differ from the one before in a few values only: sums are kept, not made anew.
            table = [dict(row) for row in staged] if seen and rng.random() < 0.5 else legal_table(rng, config)
            disturb(rng, table, config)
            if rng.random() < 0.2:
                tenant = rng.randrange(config.tenants)
                row = table[tenant]
                guarantees[tenant] = rng.choice([(0, 0), (row["weight"], row["pages"]), (row["weight"] + 1 & 0xFFFF, 0),
                                                 (0, row["pages"] + 1 & 0xFFFF)])
                await harness.write(ctx, "guarantee.min_weight", guarantees[tenant][0], tenant)
                await harness.write(ctx, "guarantee.min_pages", guarantees[tenant][1], tenant)
            for tenant, row in enumerate(table):
                for column in COLUMNS:
                    if staged[tenant][column] != row[column]:
                        await harness.write(ctx, f"staging.{column}", row[column], tenant)
            staged = table
            expected = check_table(table, guarantees, config)
            seen.add(expected)
            assert await harness.command(ctx, "check") == expected, table
            if expected[0] != model.OK:
                assert await harness.command(ctx, "commit") == expected
            assert not harness.mirror.changes
        print(sorted(seen))
        if tables >= 200:
            assert {result for result, _ in seen} >= REASONS
        assert len({row for _, row in seen} - {WHOLE_TABLE}) >= min(config.tenants, 4)

    Harness(config).run(test)
