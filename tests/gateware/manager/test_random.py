"""The resource manager against the golden model, over random sequences of everything that software can do.

Registers are compared after every step, cycle counts of the deadline included; the active table is compared as
a consumer of the allocation bus sees it (the harness checks in every cycle that it changes only as a whole).
"""

import random

import pytest

from gateware.config import DeviceConfig
from rtl.registers import registermap
from tests.gateware.manager.harness import Harness
from tests.gateware.manager.model import (
    AWAITING,
    BURST,
    COLUMNS,
    COMMANDS,
    GUARANTEE,
    HOST_SHARE,
    IDLE,
    PAGES,
    RATE,
    SLOT_TWICE,
    STAGING,
    UNKNOWN_BIT,
    WEIGHTS,
    BusError,
    ResourceManagerModel,
)

pytestmark = pytest.mark.slow  # together more than `make test-fast` has time for

#: Results that name a fault of the table.
BAD_TABLE = {WEIGHTS, PAGES, GUARANTEE, SLOT_TWICE, BURST, UNKNOWN_BIT, RATE, HOST_SHARE}
address = ResourceManagerModel.address
SMALL = DeviceConfig(ports=3, tenants=5, slots=3, pages=32)


def random_column(rng, name, config):
    """A value that is mostly legal, sometimes just beyond, sometimes anything."""
    legal = {
        "weight": lambda: rng.choice([0, 1, rng.randrange(65536 // config.tenants)]),
        "rate": lambda: rng.choice([65536, rng.randrange(65537)]),
        "burst": lambda: rng.choice([256, 512, rng.randrange(256, 1 << 15)]),
        "pages": lambda: rng.choice([0, 0, rng.randrange(config.pages // config.tenants + 1)]),
        "ports": lambda: rng.randrange(1 << config.ports),
        "slots": lambda: rng.choice([0, 0, 1 << rng.randrange(config.slots)]),
        "host_share": lambda: rng.randrange(257),
    }
    beyond = {"weight": 65535, "rate": 65537, "burst": 255, "pages": config.pages, "ports": 1 << config.ports,
              "slots": 1 << config.slots, "host_share": 257}
    kind = rng.random()
    if kind < 0.97:
        return legal[name]()
    return beyond[name] if kind < 0.99 else rng.getrandbits(32)


class Session:
    """One sequence: the same accesses to the device and to the model."""

    def __init__(self, harness, ctx, rng):
        self.harness, self.ctx, self.rng = harness, ctx, rng
        self.model = ResourceManagerModel(harness.config, harness.cycle)
        self.seen = set()   # (command, result) pairs that occurred

    def catch_up(self, cycle=None):
        self.model.tick((self.harness.cycle if cycle is None else cycle) - self.model.cycle)

    async def write(self, where, value, mask=0xF):
        """A write to both; whether both refused it."""
        await_error, model_error = False, False
        try:
            await self.harness.access(self.ctx, where, value, mask)
        except BusError:
            await_error = True
        self.catch_up()
        try:
            self.model.write(where, value, mask)
        except BusError:
            model_error = True
        assert await_error == model_error, f"{where:#x} at cycle {self.harness.cycle}"

    async def command(self, op):
        changes = len(self.harness.mirror.changes)
        await self.harness.write(self.ctx, "rm.command", op)
        effect = self.harness.cycle + 1
        await self.harness.finish(self.ctx)
        if op == COMMANDS["commit"] and len(self.harness.mirror.changes) > changes:
            effect = self.harness.mirror.changes[changes]
        self.catch_up(effect)
        self.model.write(address("rm.command"), op)
        self.seen.add((op, self.model.result))
        if self.model.result in BAD_TABLE and self.rng.random() < 0.8:
            await self.repair(self.model.row)

    async def repair(self, row):
        """Make legal what the device named, so that sequences come beyond their first fault."""
        for tenant in range(self.harness.config.tenants) if row == 255 else [row]:
            weight, pages = self.model.guarantees[tenant]
            legal = {"weight": weight, "pages": pages, "slots": 0, "burst": 256, "ports": 1, "rate": 65536,
                     "host_share": 256}
            for column, value in legal.items():
                await self.write(address(f"staging.{column}", tenant), value)

    async def compare(self):
        registers = registermap.node("rm").registers
        for register in [*registers[:2], *self.rng.sample(registers, 5)]:
            self.catch_up(self.harness.cycle + 1)   # a register is read in the second cycle of its access
            expected = self.model.read(address(f"rm.{register.name}"))
            found = await self.harness.read(self.ctx, f"rm.{register.name}")
            assert found == expected, f"rm.{register.name} at cycle {self.model.cycle}"
        self.catch_up()
        mirror = self.harness.mirror
        assert mirror.active == self.model.active_table
        assert mirror.epoch == self.model.epoch
        assert mirror.sum_pages == sum(row["pages"] for row in self.model.active_table)

    async def compare_rows(self):
        """A few rows over the bus, also such as do not exist."""
        for _ in range(4):
            block = self.rng.choice(["active", "staging", "guarantee"])
            node = registermap.node(block)
            index = self.rng.randrange(self.harness.config.tenants + 1)
            where = node.address + index * node.stride + 4 * self.rng.randrange(node.stride // 4)
            self.catch_up(self.harness.cycle + 1)   # a row is asked for in the second cycle of its access
            try:
                expected = self.model.read(where)
            except BusError:
                expected = None
            try:
                found = await self.harness.access(self.ctx, where)
            except BusError:
                found = None
            assert found == expected, hex(where)

    async def step(self):
        rng, config = self.rng, self.harness.config
        state = self.model.state
        action = rng.random()
        if action < 0.40:
            likely = {IDLE: ["begin"] * 8, STAGING: ["check"] * 2 + ["commit"] * 8 + ["abandon"],
                      AWAITING: ["confirm"] * 6 + ["rollback"] * 3}[state]
            name = rng.choice(likely * 2 + list(COMMANDS))
            if name == "commit" and rng.random() < 0.8:
                await self.write(address("rm.base_epoch"), self.model.epoch)
            await self.command(COMMANDS[name] if rng.random() < 0.97 else rng.choice([0, 7, 15]))
        elif action < 0.65:
            for _ in range(rng.randrange(1, 6)):
                column = rng.choice(COLUMNS)
                where = address(f"staging.{column}", rng.randrange(config.tenants))
                mask = rng.choice([15, 15, 15, rng.randrange(16)])
                await self.write(where, random_column(rng, column, config), mask)
        elif action < 0.70:
            await self.write(address("guarantee." + rng.choice(["min_weight", "min_pages"]),
                                     rng.randrange(config.tenants)),
                             rng.choice([0, 0, 0, 1, 2]), rng.choice([15, 1]))
        elif action < 0.80:
            await self.write(address("rm.base_epoch"),
                             self.model.epoch if rng.random() < 0.9 else rng.getrandbits(8))
            token = rng.randrange(2) if rng.random() < 0.15 else self.model.held["owner_token"]
            await self.write(address("rm.token"), token)
        elif action < 0.85:
            name, value = rng.choice([
                ("owner_token", rng.randrange(2)), ("staged_tag", rng.getrandbits(32)),
                ("stall_timeout", rng.getrandbits(32)),
                ("confirm_within", rng.choice([0, 1, 7, rng.randrange(500), 2000, rng.getrandbits(32)])),
            ])
            await self.write(address(f"rm.{name}"), value)
        elif action < 0.88:
            await self.write(4 * rng.randrange(0x1000 // 4, 0x4000 // 4), rng.getrandbits(32))
        elif action < 0.96:
            await self.traffic()
        else:
            await self.harness.tick(self.ctx, rng.randrange(120))

    async def traffic(self):
        """Packets enter, and some of those that are there leave; then the counts are let settle."""
        rng, model, ports = self.rng, self.model, self.harness.config.ports
        self.catch_up()
        admit = rng.randrange(ports + 1) if rng.random() < 0.5 else 0
        live = [epoch for epoch, count in model.in_flight.items() for _ in range(count)]
        rng.shuffle(live)
        leave = live[:rng.choice([0, ports, ports])]
        cut = rng.random() < 0.2
        epoch = model.epoch
        await self.harness.traffic(self.ctx, admit=[epoch] * admit, leave=leave, cut=cut)
        model.in_flight[epoch] = model.in_flight.get(epoch, 0) + admit
        for old in leave:
            model.leave(old, cut=cut)
        await self.harness.tick(self.ctx, 4)


@pytest.mark.parametrize(("config", "seed", "steps"), [
    *((SMALL, seed, 160) for seed in range(3)),
    *(pytest.param(SMALL, seed, 160, marks=pytest.mark.long) for seed in range(3, 6)),
    (DeviceConfig(), 100, 160),
])
@pytest.mark.slow
def test_random_sequences_match_the_model(config, seed, steps):
    async def test(harness, ctx):
        session = Session(harness, ctx, random.Random(seed))
        for _ in range(steps):
            await session.step()
            await session.compare()
            await session.compare_rows()
        print(session.model.counters, sorted(session.seen))
        assert session.model.counters["commits"] > 3

    # Far from the reset, so that every bit of a time matters.
    Harness(config, random.Random(seed).getrandbits(63)).run(test)
