"""cocotb: the resource manager's transaction over its register bus, from outside."""

import random

import cocotb
from cocotb.triggers import FallingEdge

from device_link.registers import register_map
from tests.hdl.bench import Bench, parameters
from tests.hdl.cover import CoverGroup
from tests.hdl.stimulus import Bus, reset

BEGIN, CHECK, COMMIT, CONFIRM, ROLL_BACK, ABANDON = 1, 2, 3, 4, 5, 6
OK, WRONG_STATE, STALE_EPOCH, STALE_TOKEN, BUSY, WEIGHTS = 0, 1, 2, 3, 4, 5
TOKEN = 0x1234
AWAITING = 3  # confirmation, in rm.status.state


def build(tenants):
    from gateware.config import DeviceConfig
    from gateware.manager.manager import ResourceManager

    return ResourceManager(DeviceConfig(tenants=tenants))


BENCH = Bench(__name__, build, model={"tenants": (4, 2, 16)}, traffic={"rounds": (8, 30)})

COVER = CoverGroup("manager: transactions", {"checked first": {"yes": [True], "no": [False]},
                                             "end": {"confirmed": ["confirmed"], "rolled back": ["rolled back"],
                                                     "expired": ["expired"], "refused": ["refused"]}},
                   crosses=[("checked first", "end")])


class Manager:
    """The register bus by the names of the register map, and the device's time."""

    def __init__(self, dut):
        self.dut, self.map = dut, register_map()

    async def start(self):
        await reset(self.dut, "bus__valid", "bus__write", "bus__address", "bus__w_data", "bus__w_mask", "ingress__",
                    "egress__", "figures__", "cycle")
        self.bus = Bus(self.dut)
        cocotb.start_soon(self._count())
        await self.write("rm.owner_token", TOKEN)
        await self.write("rm.token", TOKEN)

    async def _count(self):
        cycle = 0
        while True:
            await FallingEdge(self.dut.clk)
            cycle += 1
            self.dut.cycle.value = cycle

    async def write(self, name, value):
        await self.bus.write(self.map.register(name).address, value)

    async def read(self, name):
        return await self.bus.read(self.map.register(name).address)

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
    bench = Manager(dut)
    await bench.start()
    rng = random.Random(cocotb.RANDOM_SEED)
    count = parameters()["tenants"]
    before = [await bench.read(f"active[{tenant}].weight") for tenant in range(count)]
    weights = [rng.randrange(1, 4096) for _ in range(count)]
    epoch = await bench.read("rm.active") & 255
    assert await bench.command(BEGIN) == OK
    await bench.table(weights)
    assert [await bench.read(f"active[{tenant}].weight") for tenant in range(count)] == before
    assert await bench.command(CHECK) == OK
    await bench.write("rm.base_epoch", epoch)
    await bench.write("rm.confirm_within", 100_000)
    assert await bench.command(COMMIT) == OK
    assert [await bench.read(f"active[{tenant}].weight") for tenant in range(count)] == weights
    assert dut.allocation__epoch.value.to_unsigned() == (epoch + 1) % 256
    assert await bench.command(ROLL_BACK) == OK
    assert [await bench.read(f"active[{tenant}].weight") for tenant in range(count)] == before
    assert dut.allocation__epoch.value.to_unsigned() == (epoch + 2) % 256


@cocotb.test()
async def stale_tokens_epochs_and_tables_over_capacity_are_refused(dut):
    bench = Manager(dut)
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
    bench = Manager(dut)
    await bench.start()
    before = await bench.read("active[1].weight")
    assert await bench.command(BEGIN) == OK
    await bench.write("staging[1].weight", 77)
    await bench.write("rm.base_epoch", 0)
    await bench.write("rm.confirm_within", 500)
    assert await bench.command(COMMIT) == OK
    assert await bench.read("active[1].weight") == 77
    for _ in range(600):
        await FallingEdge(dut.clk)
    assert await bench.read("active[1].weight") == before
    assert await bench.read("rm.expired") == 1


async def transaction(bench, rng, before, epoch):
    """One random transaction; the table and the epoch that must be in force after it, and what became of it."""
    count = parameters()["tenants"]
    over = rng.random() < 0.2
    weights = [65535] * count if over else [rng.randrange(1, 65536 // count) for _ in range(count)]
    checked, end = rng.random() < 0.5, rng.choice(["confirmed", "rolled back", "expired"])
    assert await bench.command(BEGIN) == OK
    await bench.table(weights)
    if checked:
        assert await bench.command(CHECK) == (WEIGHTS if over else OK)
    await bench.write("rm.base_epoch", epoch)
    await bench.write("rm.confirm_within", 50 if end == "expired" else 100_000)
    assert await bench.command(COMMIT) == (WEIGHTS if over else OK)
    if over:
        assert await bench.command(ABANDON) == OK
        return before, epoch, checked, "refused"
    if end == "confirmed":
        assert await bench.command(CONFIRM) == OK
        return weights, epoch + 1, checked, end
    if end == "rolled back":
        assert await bench.command(ROLL_BACK) == OK
    for _ in range(200):
        if await bench.read("rm.status") & 7 != AWAITING:
            break
    return before, epoch + 2, checked, end


@cocotb.test()
async def the_table_in_force_follows_a_model_over_random_transactions(dut):
    bench, rng, given = Manager(dut), random.Random(cocotb.RANDOM_SEED), parameters()
    await bench.start()
    table = [await bench.read(f"active[{tenant}].weight") for tenant in range(given["tenants"])]
    epoch = dut.allocation__epoch.value.to_unsigned()
    for _ in range(given["rounds"]):
        table, epoch, checked, end = await transaction(bench, rng, table, epoch % 256)
        COVER.sample(**{"checked first": checked, "end": end})
        assert [await bench.read(f"active[{tenant}].weight") for tenant in range(given["tenants"])] == table, end
        assert dut.allocation__epoch.value.to_unsigned() == epoch % 256, end
