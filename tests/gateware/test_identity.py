"""The device's description of itself, its clock and its interrupt, over the register bus."""

import pytest

from gateware.config import DeviceConfig
from gateware.csr import regmap
from gateware.identity import Identity
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=3, tenants=5, pages=32, slot_bytes=2, rules=5, access_patterns=False, uartbone=True,
                      clock_hz=50_000_000)
BUILD = 0x1122334455667788


def address_of(block, register):
    node = regmap.node(block)
    return (node.address + node.register(register).offset) // 4


async def access(ctx, bus, block, register, write=None):
    ctx.set(bus.address, address_of(block, register))
    ctx.set(bus.valid, 1)
    ctx.set(bus.write, write is not None)
    ctx.set(bus.w_data, write or 0)
    ctx.set(bus.w_mask, 0xF)
    value, error = await ctx.tick().sample(bus.r_data, bus.error).until(bus.ready)
    ctx.set(bus.valid, 0)
    assert not error, f"{block}.{register} answered an error"
    return value


def run(bench):
    dut = Identity(CONFIG, BUILD)

    async def wrapped(ctx):
        ctx.set(dut.boot_nonce, 0xCAFE)
        ctx.set(dut.uid, 0xA << 32 | 0xB)
        await bench(ctx, dut)

    simulate(dut, wrapped)


def test_identification_tells_magic_map_build_and_configuration():
    async def bench(ctx, dut):
        async def read(name):
            return await access(ctx, dut.bus, "id", name)
        assert (await read("magic")).to_bytes(4, "little") == b"MORF"
        assert await read("map_hash") == regmap.map_hash()
        assert (await read("build_id_hi")) << 32 | await read("build_id_lo") == BUILD
        assert (await read("uid_hi"), await read("uid_lo")) == (0xA, 0xB)
        assert await read("boot_nonce") == 0xCAFE
        assert await read("config0") == 3 | 5 << 8 | 2 << 16 | 16 << 24
        assert await read("config1") == 64 | 32 << 16
        assert await read("config2") == 2 | 5 << 8 | 1 << 16 | 1 << 18 | 1 << 19
        assert await read("clock") == 50_000_000
        assert await read("uart") == CONFIG.uart_baud
    run(bench)


def test_cycle_counter_counts_every_clock():
    async def bench(ctx, dut):
        first = await access(ctx, dut.bus, "id", "cycle_lo")
        start = ctx.get(dut.cycle)
        await ctx.tick().repeat(100)
        assert ctx.get(dut.cycle) == start + 100
        assert first < start
    run(bench)


@pytest.mark.parametrize("cause", ["window", "changed", "rule"])
def test_an_enabled_cause_interrupts_until_it_is_cleared(cause):
    mask = {"window": 1, "changed": 2, "rule": 4}[cause]

    async def bench(ctx, dut):
        async def pulse():
            ctx.set(getattr(dut, cause), 1)
            await ctx.tick()
            ctx.set(getattr(dut, cause), 0)

        await pulse()
        assert await access(ctx, dut.bus, "interrupt", "pending") == mask
        assert not ctx.get(dut.interrupt), "a cause that is not enabled interrupted"
        await access(ctx, dut.bus, "interrupt", "enable", mask)
        await ctx.tick()
        assert ctx.get(dut.interrupt)
        assert await access(ctx, dut.bus, "interrupt", "pending") == mask, "a read cleared the cause"
        await access(ctx, dut.bus, "interrupt", "clear", 7 ^ mask)
        await ctx.tick().repeat(2)
        assert ctx.get(dut.interrupt), "clearing the other cause cleared this one"
        await access(ctx, dut.bus, "interrupt", "clear", mask)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.interrupt)
    run(bench)


def test_a_cause_that_comes_while_it_is_cleared_stays_pending():
    async def bench(ctx, dut):
        ctx.set(dut.window, 1)  # a cause in every cycle, the one of the clearing included
        await access(ctx, dut.bus, "interrupt", "clear", 1)
        await ctx.tick().repeat(2)
        ctx.set(dut.window, 0)
        await ctx.tick()
        assert await access(ctx, dut.bus, "interrupt", "pending") == 1
    run(bench)


def test_build_id_must_fit_64_bits():
    with pytest.raises(ValueError, match=r"build_id must be in 0\.\.2\*\*64-1"):
        Identity(CONFIG, 1 << 64)
