"""Every rule of a table: refused with its reason and row when broken by one, accepted at the limit."""

from functools import partial

import pytest

from gateware.config import DeviceConfig
from tests.gateware.manager import model
from tests.gateware.manager.harness import Harness
from tests.gateware.manager.model import WHOLE_TABLE, check_table

CONFIGS = [DeviceConfig(), DeviceConfig(ports=3, tenants=5, slots=3, pages=32)]


def legal_table(config):
    """Every tenant has something; nothing is at a limit."""
    return [{"weight": 100 + tenant, "rate": 1000, "burst": 300, "pages": 1, "ports": 1,
             "slots": 1 << tenant if tenant < config.slots else 0, "host_share": 5}
            for tenant in range(config.tenants)]


def case_of(config, name, result, row, changes, guarantees=None):
    """A legal table with `changes`, by tenant and column; see `broken_tables`."""
    table = legal_table(config)
    for tenant, columns in changes.items():
        table[tenant] |= columns
    return name, table, guarantees or {}, result, row


def broken_tables(config):
    """(name, table, guarantees, result, row): one fault, and its neighbour that is none."""
    last, ports, slots = config.tenants - 1, 1 << config.ports, 1 << config.slots
    case = partial(case_of, config)
    spare = 65536 - sum(row["weight"] for row in legal_table(config)[1:])
    others = config.pages - (config.tenants - 1)
    yield case("legal", model.OK, 0, {})
    yield case("weights at capacity", model.OK, 0, {0: {"weight": spare}})
    yield case("weights over capacity", model.WEIGHTS, WHOLE_TABLE, {0: {"weight": spare + 1}})
    yield case("all weights at most", model.WEIGHTS, WHOLE_TABLE,
               {tenant: {"weight": 65535} for tenant in range(config.tenants)})
    yield case("pages at capacity", model.OK, 0, {last: {"pages": others}})
    yield case("pages over capacity", model.PAGES, WHOLE_TABLE, {last: {"pages": others + 1}})
    yield case("all pages at most", model.PAGES, WHOLE_TABLE,
               {tenant: {"pages": 65535} for tenant in range(config.tenants)})
    for tenant in (0, 1, last):
        weight = 100 + tenant
        yield case("guarantee met", model.OK, 0, {}, {tenant: (weight, 1)})
        yield case("weight below guarantee", model.GUARANTEE, tenant, {}, {tenant: (weight + 1, 0)})
        yield case("pages below guarantee", model.GUARANTEE, tenant, {}, {tenant: (0, 2)})
        yield case("no weight, but guaranteed", model.GUARANTEE, tenant, {tenant: {"weight": 0}},
                   {tenant: (1, 0)})
        yield case("least burst", model.OK, 0, {tenant: {"burst": 256}})
        yield case("burst", model.BURST, tenant, {tenant: {"burst": 255}})
        yield case("no burst", model.BURST, tenant, {tenant: {"burst": 0}})
        yield case("all ports", model.OK, 0, {tenant: {"ports": ports - 1}})
        yield case("unknown port", model.UNKNOWN_BIT, tenant, {tenant: {"ports": ports}})
        yield case("last unknown port", model.UNKNOWN_BIT, tenant, {tenant: {"ports": 0x8000}})
        yield case("unknown slot", model.UNKNOWN_BIT, tenant, {tenant: {"slots": slots}})
        yield case("no rate and no weight", model.OK, 0, {tenant: {"weight": 0, "rate": 0}})
        yield case("no rate", model.RATE, tenant, {tenant: {"rate": 0}})
        yield case("full rate", model.OK, 0, {tenant: {"rate": 65536}})
        yield case("rate over full", model.RATE, tenant, {tenant: {"rate": 65537}})
        yield case("all to the host", model.OK, 0, {tenant: {"host_share": 256}})
        yield case("host share", model.HOST_SHARE, tenant, {tenant: {"host_share": 257}})
    yield case("slot owned twice", model.SLOT_TWICE, last, {last: {"slots": 1}})
    yield case("unknown slot owned twice", model.UNKNOWN_BIT, 0, {0: {"slots": 0x8000}, last: {"slots": 0x8000}})
    yield case("sum before row", model.WEIGHTS, WHOLE_TABLE, {0: {"weight": 65535, "burst": 0}})
    yield case("weights before pages", model.WEIGHTS, WHOLE_TABLE,
               {0: {"weight": 65535}, 1: {"pages": 65535}})
    yield case("first row first", model.RATE, 1, {1: {"rate": 65537}, 2: {"burst": 0}})
    yield case("lowest reason of a row", model.GUARANTEE, 2,
               {2: {"burst": 0, "rate": 65537, "host_share": 300, "ports": 0x8000}}, {2: (1000, 0)})


def excesses(config):
    """Tables that break a rule by a power of two, rates of one bit, which break none, and slots of several owners."""
    last, case = config.tenants - 1, partial(case_of, config)
    for slot in range(config.slots):
        for owners in range(2, config.tenants + 1):
            several = range(config.tenants - owners, config.tenants)
            yield case(f"slot {slot} owned by {owners}", model.SLOT_TWICE, several[1],
                       {slot: {"slots": 0}} | {tenant: {"slots": 1 << slot} for tenant in several})
    for column, known in (("ports", config.ports), ("slots", config.slots)):
        for bit in range(known, 16):
            yield case(f"unknown bit {bit} of {column}", model.UNKNOWN_BIT, 1, {1: {column: 1 << bit}})
    weights = sum(row["weight"] for row in legal_table(config)[2:])
    for bit in range(17):
        rest = 65536 + (1 << bit) - weights   # of the first two
        yield case(f"weights over by bit {bit}", model.WEIGHTS, WHOLE_TABLE,
                   {0: {"weight": min(rest, 65535)}, 1: {"weight": rest - min(rest, 65535)}})
    for bit in range(16):
        yield case(f"pages over by bit {bit}", model.PAGES, WHOLE_TABLE,
                   {last: {"pages": config.pages - last + (1 << bit)}})
        short = (1 << bit) - 1
        yield case(f"weight short of {short + 1}", model.GUARANTEE, last, {last: {"weight": short}},
                   {last: (short + 1, 0)})
        yield case(f"pages short of {short + 1}", model.GUARANTEE, 1, {1: {"pages": min(short, config.pages - last)}},
                   {1: (0, short + 1)})
        yield case(f"rate over full by bit {bit}", model.RATE, last, {last: {"rate": 65536 + (1 << bit)}})
        yield case(f"rate of bit {bit} alone", model.OK, 0, {last: {"rate": 1 << bit}})
    for bit in range(8):
        yield case(f"burst of bit {bit} alone", model.BURST, last, {last: {"burst": 1 << bit}})
        yield case(f"host share over by bit {bit}", model.HOST_SHARE, last, {last: {"host_share": 256 + (1 << bit)}})


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=["default", "small"])
def test_each_rule_is_checked_with_reason_and_row(config):
    run_cases(config, broken_tables(config))


@pytest.mark.slow
@pytest.mark.parametrize("config", [pytest.param(CONFIGS[0], marks=pytest.mark.long), CONFIGS[1]],
                         ids=["default", "small"])
def test_every_bit_of_an_excess_and_any_number_of_owners_is_seen(config):
    run_cases(config, excesses(config))


def run_cases(config, cases):
    """`check` and `commit` say the same; a refused commit changes nothing.

    Those without guarantees come first: from the first one on that is written no table is taken for legal unread.
    """
    cases = sorted(cases, key=lambda case: bool(case[2]))

    async def test(harness, ctx):
        staged = [dict(row) for row in harness.mirror.active]
        rules = [(0, 0)] * config.tenants
        await harness.command(ctx, "begin")
        for name, table, guarantees, result, row in cases:
            await self_check(harness, ctx, name, staged, rules, table, guarantees)
            assert await harness.command(ctx, "check") == (result, row), name
            if result != model.OK:
                assert await harness.command(ctx, "commit") == (result, row), name
                assert not harness.mirror.changes
        assert (await harness.command(ctx, "abandon"))[0] == model.OK
        assert await harness.read(ctx, "rm.staged_weight") == await harness.read(ctx, "rm.staged_pages") == 0

    async def self_check(harness, ctx, name, staged, rules, table, guarantees):
        """Bring table and guarantees to the device, only where they differ from what it has."""
        wanted = [guarantees.get(tenant, (0, 0)) for tenant in range(config.tenants)]
        expected = next(case[3:] for case in cases if case[1] is table)
        assert check_table(table, wanted, config) == expected, f"the model disagrees about {name}"
        for tenant, columns in enumerate(table):
            for column, value in columns.items():
                if staged[tenant][column] != value:
                    await harness.write(ctx, f"staging.{column}", value, tenant)
                    staged[tenant][column] = value
            if rules[tenant] != wanted[tenant]:
                await harness.write(ctx, "guarantee.min_weight", wanted[tenant][0], tenant)
                await harness.write(ctx, "guarantee.min_pages", wanted[tenant][1], tenant)
                rules[tenant] = wanted[tenant]
        assert await harness.read(ctx, "rm.staged_weight") == sum(row["weight"] for row in table)
        assert await harness.read(ctx, "rm.staged_pages") == sum(row["pages"] for row in table)

    Harness(config).run(test)


def test_guarantee_written_after_the_check_is_honoured_at_commit():
    config = CONFIGS[1]

    async def test(harness, ctx):
        await harness.command(ctx, "begin")
        await harness.stage(ctx, legal_table(config))
        assert await harness.command(ctx, "check") == (model.OK, 0)
        await harness.write(ctx, "guarantee.min_weight", 5000, 3)
        assert await harness.command(ctx, "commit") == (model.GUARANTEE, 3)
        await harness.write(ctx, "guarantee.min_weight", 103, 3)
        assert await harness.command(ctx, "commit") == (model.OK, 0)
        assert harness.mirror.active == legal_table(config)

    Harness(config).run(test)


def test_row_written_after_the_check_is_checked_at_commit():
    config = CONFIGS[1]

    async def test(harness, ctx):
        await harness.command(ctx, "begin")
        await harness.stage(ctx, legal_table(config))
        assert await harness.command(ctx, "check") == (model.OK, 0)
        await harness.write(ctx, "staging.burst", 255, 4)
        assert await harness.command(ctx, "commit") == (model.BURST, 4)

    Harness(config).run(test)
