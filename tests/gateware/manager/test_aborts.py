"""A transaction disturbed at every one of its cycles: the table in force is the old one or the new one, bit for bit."""

import random

import pytest

from gateware.config import DeviceConfig
from tests.gateware.manager import model
from tests.gateware.manager.harness import Harness
from tests.gateware.manager.model import AWAITING, COMMANDS, IDLE, STAGING, BusError
from tests.gateware.manager.test_transaction import random_table

pytestmark = pytest.mark.slow

SMALL = DeviceConfig(ports=3, tenants=5, slots=3, pages=32)
OFFSETS = range(SMALL.tenants + 14)


class Scene:
    """A table in force, another one staged, and what must hold whatever comes in between."""

    def __init__(self, harness, ctx, seed):
        self.harness, self.ctx, self.rng, self.tag = harness, ctx, random.Random(seed), 0

    async def set_up(self, confirm_within):
        """Claim, stage a random table, and write all that the commit needs."""
        harness, ctx = self.harness, self.ctx
        self.before = [dict(row) for row in harness.mirror.active]
        self.old = harness.mirror.bank, harness.mirror.sum_pages, await harness.read(ctx, "rm.active_tag")
        self.epoch, self.changes = harness.mirror.epoch, len(harness.mirror.changes)
        self.target = random_table(self.rng, harness.config)
        self.tag = self.rng.getrandbits(32)
        for name, value in (("owner_token", 1), ("token", 1)):
            await harness.write(ctx, f"rm.{name}", value)
        assert await harness.command(ctx, "begin") == (model.OK, 0)
        await harness.stage(ctx, self.target)
        for name, value in (("base_epoch", self.epoch), ("confirm_within", confirm_within), ("staged_tag", self.tag)):
            await harness.write(ctx, f"rm.{name}", value)

    async def is_whole(self):
        """The table in force, over the bus and as consumers have it: the old one or the new one; which."""
        harness, ctx = self.harness, self.ctx
        passed = len(harness.mirror.changes) - self.changes
        is_new = passed % 2 == 1
        assert passed <= 2
        assert harness.mirror.epoch == (self.epoch + passed) % 256
        assert harness.mirror.active == (self.target if is_new else self.before)
        assert await harness.active_table(ctx) == harness.mirror.active
        if is_new:
            assert await harness.read(ctx, "rm.active_tag") == self.tag
        else:
            assert (harness.mirror.bank, harness.mirror.sum_pages, await harness.read(ctx, "rm.active_tag")) == self.old
        return is_new

    async def clean_up(self):
        """Whatever is left of the transaction is undone by its owner; a commit that awaits is rolled back."""
        harness, ctx = self.harness, self.ctx
        state, _, _ = await harness.finish(ctx)
        await harness.write(ctx, "rm.token", await harness.read(ctx, "rm.owner_token"))
        if state == STAGING:
            assert await harness.command(ctx, "abandon") == (model.OK, 0)
        elif state == AWAITING:
            assert await harness.command(ctx, "rollback") == (model.OK, 0)
            assert not await self.is_whole()
        assert (await harness.finish(ctx))[0] == IDLE
        await self.change_nothing()

    async def change_nothing(self):
        """A transaction that stages no row: what it begins with is the table in force, its sums included."""
        harness, ctx = self.harness, self.ctx
        table = [dict(row) for row in harness.mirror.active]
        assert await harness.command(ctx, "begin") == (model.OK, 0)
        for column in ("weight", "pages"):
            assert await harness.read(ctx, f"rm.staged_{column}") == sum(row[column] for row in table)
        await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
        await harness.write(ctx, "rm.confirm_within", 0)
        assert await harness.command(ctx, "commit") == (model.OK, 0)
        assert harness.mirror.active == table


@pytest.mark.parametrize("command", COMMANDS)
def test_any_command_at_any_cycle_of_a_commit_leaves_a_whole_table(command):
    """It waits, or is refused on the bus; a rollback that comes after the commit restores every bit."""
    async def test(harness, ctx):
        scene, ends = Scene(harness, ctx, seed=3), set()
        for delay in OFFSETS:
            await scene.set_up(confirm_within=10_000)
            await harness.write(ctx, "rm.command", COMMANDS["commit"])
            await harness.tick(ctx, delay)
            try:
                await harness.write(ctx, "rm.command", COMMANDS[command])
            except BusError:
                ends.add("refused on the bus")
            await harness.finish(ctx)
            is_new = await scene.is_whole()
            assert is_new == (command != "rollback")
            await scene.clean_up()
        assert not ends   # one command may always wait behind a commit

    Harness(SMALL).run(test)


def test_deposed_manager_leaves_a_whole_table_at_any_cycle():
    """Another manager takes over, with its own token, at every cycle, and drops what it finds."""
    async def test(harness, ctx):
        scene, seen = Scene(harness, ctx, seed=4), set()
        for delay in OFFSETS:
            await scene.set_up(confirm_within=10_000)
            await harness.write(ctx, "rm.command", COMMANDS["commit"])
            await harness.tick(ctx, delay)
            await harness.write(ctx, "rm.owner_token", 9)
            fence = harness.cycle
            await harness.finish(ctx)
            is_new = await scene.is_whole()
            seen.add(is_new)
            assert not is_new or harness.mirror.changes[-1] < fence
            for name in ("commit", "rollback", "confirm", "abandon", "begin"):   # the deposed one goes on
                assert await harness.command(ctx, name) == (model.STALE_TOKEN, 0)
            assert await scene.is_whole() == is_new
            await scene.clean_up()
        assert seen == {False, True}

    Harness(SMALL).run(test)


@pytest.mark.parametrize("command", ["rollback", "confirm", "begin"])
def test_deadline_at_any_cycle_of_another_command_rolls_back_once(command):
    async def test(harness, ctx):
        scene, results = Scene(harness, ctx, seed=5), set()
        for within in range(1, 24):
            await scene.set_up(confirm_within=within)
            rollbacks, expired = [await harness.read(ctx, f"rm.{name}") for name in ("rollbacks", "expired")]
            await harness.write(ctx, "rm.command", COMMANDS["commit"])
            await harness.tick(ctx, SMALL.tenants + 6)
            result, _ = await harness.command(ctx, command)
            results.add(result)
            await harness.tick(ctx, within + 20)
            is_new = await scene.is_whole()
            assert is_new == (command == "confirm" and result == model.OK)
            assert await harness.read(ctx, "rm.rollbacks") == rollbacks + (not is_new)
            by_command = command == "rollback" and result == model.OK
            assert await harness.read(ctx, "rm.expired") == expired + (not is_new and not by_command)
            await scene.clean_up()
        assert results == {model.OK, model.WRONG_STATE}

    Harness(SMALL).run(test)


@pytest.mark.parametrize("state", ["idle", "staging", "awaiting"])
def test_every_stale_epoch_and_token_is_refused(state):
    """All 255 epochs but the one in force, and tokens that differ in one bit."""
    async def test(harness, ctx):
        scene = Scene(harness, ctx, seed=6)
        await scene.set_up(confirm_within=1 << 20)
        if state == "idle":
            await harness.command(ctx, "abandon")
        elif state == "awaiting":
            await harness.command(ctx, "commit")
        changes = len(harness.mirror.changes)
        if state == "staging":
            for epoch in set(range(256)) - {scene.epoch}:
                await harness.write(ctx, "rm.base_epoch", epoch)
                assert await harness.command(ctx, "commit") == (model.STALE_EPOCH, 0)
            await harness.write(ctx, "rm.base_epoch", scene.epoch)
        for bit in range(32):
            await harness.write(ctx, "rm.token", 1 ^ 1 << bit)
            for name in COMMANDS:
                assert await harness.command(ctx, name) == (model.STALE_TOKEN, 0)
        assert len(harness.mirror.changes) == changes
        await harness.write(ctx, "rm.token", 1)
        await scene.clean_up()

    Harness(SMALL).run(test)
