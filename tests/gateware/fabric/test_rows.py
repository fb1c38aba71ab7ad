"""Rows: the three-bank copy of the allocation."""

import random

import pytest
from amaranth.hdl import Shape
from amaranth.lib.data import Layout

from gateware.config import DeviceConfig
from gateware.fabric.rows import Rows
from gateware.manager.allocation import AllocationRow, reset_row
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=2, tenants=3, pages=32)
COLUMNS = ("weight", "rate", "burst", "pages", "ports", "slots", "host_share", "admits")


def held(row):
    """What the consumer of a row reads of it."""
    return {**row, "pages": min(row["pages"], CONFIG.pages), "ports": row["ports"] & (1 << CONFIG.ports) - 1,
            "slots": row["slots"] & (1 << CONFIG.slots) - 1, "admits": int(row["weight"] > 0)}


def read(ctx, dut, tenant, reader=0):
    ctx.set(dut.tenants[reader], tenant)
    return {name: ctx.get(dut.rows[reader][name]) for name in dut.layout.members}


def test_rows_hold_the_reset_table_in_every_bank():
    dut = Rows(CONFIG, COLUMNS, readers=2)

    async def testbench(ctx):
        for bank in range(3):
            ctx.set(dut.allocation.active_bank, bank)
            for tenant in range(CONFIG.tenants):
                for reader in range(2):
                    assert read(ctx, dut, tenant, reader) == held(reset_row(tenant, CONFIG))

    simulate(dut, testbench)


@pytest.mark.parametrize("seed", range(3))
def test_rows_follow_the_active_bank_in_the_same_cycle(seed):
    rng = random.Random(seed)
    dut = Rows(CONFIG, COLUMNS, readers=2)
    widths = {name: Shape.cast(shape).width for name, shape in Layout.cast(AllocationRow).members.items()}
    table = {}

    async def testbench(ctx):
        for step in range(60):
            bank, tenant = divmod(step, CONFIG.tenants) if step < 9 else (rng.randrange(3), rng.randrange(3))
            row = {name: rng.choice([0, 1, CONFIG.pages, CONFIG.pages + 1, (1 << width) - 1, rng.getrandbits(width)])
                   & (1 << width) - 1 for name, width in widths.items()}
            ctx.set(dut.allocation.write, 1)
            ctx.set(dut.allocation.bank, bank)
            ctx.set(dut.allocation.tenant, tenant)
            ctx.set(dut.allocation.row, row)
            await ctx.tick()
            ctx.set(dut.allocation.write, 0)
            table[bank, tenant] = held(row)
            if step < 8:
                continue
            for bank in (2, 0, 1):
                ctx.set(dut.allocation.active_bank, bank)
                for tenant in range(CONFIG.tenants):
                    assert read(ctx, dut, tenant, 0) == table[bank, tenant]
                    assert read(ctx, dut, (tenant + 1) % 3, 1) == table[bank, (tenant + 1) % 3]

    simulate(dut, testbench)


def test_every_bit_of_a_column_is_held():
    """Alone, and with all pages but one: of a weight, whether it is above 0; of pages, whether there are so many."""
    dut = Rows(CONFIG, COLUMNS, readers=2)
    widths = {name: Shape.cast(shape).width for name, shape in Layout.cast(AllocationRow).members.items()}

    async def testbench(ctx):
        ctx.set(dut.allocation.write, 1)
        for bit in range(max(widths.values())):
            for base in (0, CONFIG.pages - 1):
                row = {name: (base ^ 1 << bit) & (1 << width) - 1 for name, width in widths.items()}
                ctx.set(dut.allocation.row, row)
                await ctx.tick()
                assert read(ctx, dut, 0) == held(row)

    simulate(dut, testbench)


def test_rows_write_nothing_without_the_strobe():
    dut = Rows(CONFIG, COLUMNS, readers=2)

    async def testbench(ctx):
        ctx.set(dut.allocation.row, {**reset_row(0, CONFIG), "weight": 77})
        await ctx.tick().repeat(3)
        assert read(ctx, dut, 0) == held(reset_row(0, CONFIG))

    simulate(dut, testbench)


def test_rows_refuse_an_unknown_column():
    with pytest.raises(ValueError, match=r"columns must be of .* not 'colour'"):
        Rows(CONFIG, ["colour"])
    with pytest.raises(ValueError, match="readers must be at least 1, not 0"):
        Rows(CONFIG, ["weight"], readers=0)
