"""cocotb: the resource manager's transaction over its register bus, from outside."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

from device_link.registers import register_map

BEGIN, CHECK, COMMIT, CONFIRM, ROLL_BACK = 1, 2, 3, 4, 5
OK, WRONG_STATE, STALE_EPOCH, STALE_TOKEN, BUSY, WEIGHTS = 0, 1, 2, 3, 4, 5
TOKEN = 0x1234


class Bench:
    """The register bus by the names of the register map."""

    def __init__(self, dut):
        self.dut, self.map, self.cycle = dut, register_map(), 0

    async def start(self):
        dut = self.dut
        cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
        dut.rst.value = 1
        for handle in dut:
            name = handle._name
            if name.startswith(("bus__", "ingress__", "egress__", "figures__")) and not name.endswith(
                    ("ready", "error", "r_data")):
                handle.value = 0
        dut.cycle.value = 0
        for _ in range(3):
            await FallingEdge(dut.clk)
        dut.rst.value = 0
        await self.write("rm.owner_token", TOKEN)
        await self.write("rm.token", TOKEN)

    async def access(self, address, write, data):
        dut = self.dut
        dut.bus__valid.value, dut.bus__address.value, dut.bus__write.value = 1, address // 4, int(write)
        dut.bus__w_data.value, dut.bus__w_mask.value = data, 15
        for _ in range(16):
            await ReadOnly()
            if int(dut.bus__ready.value):
                word, error = dut.bus__r_data.value.to_unsigned(), int(dut.bus__error.value)
                await self.tick()
                dut.bus__valid.value = 0
                await self.tick()
                assert not error, hex(address)
                return word
            await self.tick()
        raise AssertionError(f"no answer at {address:#x} within 16 cycles")

    async def tick(self):
        await FallingEdge(self.dut.clk)
        self.cycle += 1
        self.dut.cycle.value = self.cycle

    async def write(self, name, value):
        await self.access(self.map.register(name).address, True, value)

    async def read(self, name):
        return await self.access(self.map.register(name).address, False, 0)

    async def command(self, op):
        """Carry out a command; its result."""
        await self.write("rm.command", op)
        for _ in range(200):
            status = await self.read("rm.status")
            if not status >> 3 & 1:
                return status >> 8 & 15
        raise AssertionError("the command does not end")

    async def table(self, weights):
        for tenant, weight in enumerate(weights):
            await self.write(f"staging[{tenant}].weight", weight)


@cocotb.test()
async def a_staged_table_takes_effect_as_a_whole_and_rolls_back(dut):
    bench = Bench(dut)
    await bench.start()
    rng = random.Random(cocotb.RANDOM_SEED)
    before = [await bench.read(f"active[{tenant}].weight") for tenant in range(4)]
    weights = [rng.randrange(1, 4096) for _ in range(4)]
    epoch = await bench.read("rm.active") & 255
    assert await bench.command(BEGIN) == OK
    await bench.table(weights)
    assert [await bench.read(f"active[{tenant}].weight") for tenant in range(4)] == before
    assert await bench.command(CHECK) == OK
    await bench.write("rm.base_epoch", epoch)
    await bench.write("rm.confirm_within", 100_000)
    assert await bench.command(COMMIT) == OK
    assert [await bench.read(f"active[{tenant}].weight") for tenant in range(4)] == weights
    assert dut.allocation__epoch.value.to_unsigned() == (epoch + 1) % 256
    assert await bench.command(ROLL_BACK) == OK
    assert [await bench.read(f"active[{tenant}].weight") for tenant in range(4)] == before
    assert dut.allocation__epoch.value.to_unsigned() == (epoch + 2) % 256


@cocotb.test()
async def stale_tokens_epochs_and_tables_over_capacity_are_refused(dut):
    bench = Bench(dut)
    await bench.start()
    await bench.write("rm.token", TOKEN + 1)
    assert await bench.command(BEGIN) == STALE_TOKEN
    await bench.write("rm.token", TOKEN)
    assert await bench.command(BEGIN) == OK
    await bench.table([65535, 65535])
    assert await bench.command(CHECK) == WEIGHTS
    await bench.table([1, 1])
    await bench.write("rm.base_epoch", (await bench.read("rm.active") & 255) ^ 3)
    assert await bench.command(COMMIT) == STALE_EPOCH
    assert dut.allocation__epoch.value.to_unsigned() == 0


@cocotb.test()
async def an_unconfirmed_commit_expires_in_device_time(dut):
    bench = Bench(dut)
    await bench.start()
    before = await bench.read("active[1].weight")
    assert await bench.command(BEGIN) == OK
    await bench.write("staging[1].weight", 77)
    await bench.write("rm.base_epoch", 0)
    await bench.write("rm.confirm_within", 500)
    assert await bench.command(COMMIT) == OK
    assert await bench.read("active[1].weight") == 77
    for _ in range(600):
        await bench.tick()
    assert await bench.read("active[1].weight") == before
    assert await bench.read("rm.expired") == 1
