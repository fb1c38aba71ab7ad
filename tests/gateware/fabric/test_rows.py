"""Rows: the three-bank copy of the allocation."""

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.fabric.rows import Rows
from gateware.manager.allocation import reset_row

CONFIG = DeviceConfig(ports=2, tenants=3, pages=32)


def simulate(dut, testbench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def read(ctx, dut, tenant, reader=0):
    ctx.set(dut.tenants[reader], tenant)
    return {name: ctx.get(dut.rows[reader][name]) for name in dut.layout.members}


def test_rows_hold_the_reset_table_in_every_bank():
    dut = Rows(CONFIG, ["weight", "rate", "burst", "pages", "ports", "slots", "host_share"])

    async def testbench(ctx):
        for bank in range(3):
            ctx.set(dut.allocation.active_bank, bank)
            for tenant in range(CONFIG.tenants):
                assert read(ctx, dut, tenant) == reset_row(tenant, CONFIG)

    simulate(dut, testbench)


def test_rows_follow_the_active_bank_in_the_same_cycle():
    dut = Rows(CONFIG, ["weight", "pages"], readers=2)
    table = {(bank, tenant): {"weight": 100 * bank + tenant, "pages": 10 + 3 * bank + tenant}
             for bank in range(3) for tenant in range(CONFIG.tenants)}

    async def testbench(ctx):
        ctx.set(dut.allocation.write, 1)
        for (bank, tenant), content in table.items():
            ctx.set(dut.allocation.bank, bank)
            ctx.set(dut.allocation.tenant, tenant)
            ctx.set(dut.allocation.row, {**reset_row(0, CONFIG), **content})
            await ctx.tick()
        ctx.set(dut.allocation.write, 0)
        for bank in (2, 0, 1):
            ctx.set(dut.allocation.active_bank, bank)
            for tenant in range(CONFIG.tenants):
                assert read(ctx, dut, tenant, 0) == table[bank, tenant]
                assert read(ctx, dut, (tenant + 1) % 3, 1) == table[bank, (tenant + 1) % 3]

    simulate(dut, testbench)


def test_rows_write_nothing_without_the_strobe():
    dut = Rows(CONFIG, ["weight"])

    async def testbench(ctx):
        ctx.set(dut.allocation.row, {**reset_row(0, CONFIG), "weight": 77})
        await ctx.tick().repeat(3)
        assert read(ctx, dut, 0) == {"weight": 4096}

    simulate(dut, testbench)


def test_rows_refuse_an_unknown_column():
    with pytest.raises(ValueError, match=r"columns must be of .* not 'colour'"):
        Rows(CONFIG, ["colour"])
    with pytest.raises(ValueError, match="readers must be at least 1, not 0"):
        Rows(CONFIG, ["weight"], readers=0)
