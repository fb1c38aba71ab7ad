"""The transaction in time: one burst, one cycle, deadlines, rollback and fencing at every cycle."""

import itertools
import random

import pytest
from amaranth.lib.data import Layout

from gateware.config import DeviceConfig
from gateware.manager.allocation import AllocationRow
from tests.gateware.manager import model
from tests.gateware.manager.harness import Harness, address
from tests.gateware.manager.model import AWAITING, COLUMNS, COMMANDS, IDLE, BusError
from tests.gateware.manager.test_tables import legal_table

SMALL = DeviceConfig(ports=3, tenants=5, slots=3, pages=32)


WIDTHS = {name: Layout.cast(AllocationRow)[name].width for name in COLUMNS}


def random_table(rng, config):
    """Legal, and different in every column."""
    return [{"weight": rng.randrange(1, 65536 // config.tenants), "rate": rng.randrange(1, 65537),
             "burst": rng.randrange(256, 1 << 15), "pages": rng.randrange(config.pages // config.tenants + 1),
             "ports": rng.randrange(1 << config.ports), "slots": 1 << tenant if tenant < config.slots else 0,
             "host_share": rng.randrange(257)} for tenant in range(config.tenants)]


async def commit(harness, ctx, table, *, confirm_within=0, tag=0):
    """A whole transaction up to the commit, accepted."""
    assert (await harness.command(ctx, "begin"))[0] == model.OK
    await harness.stage(ctx, table)
    await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
    await harness.write(ctx, "rm.confirm_within", confirm_within)
    await harness.write(ctx, "rm.staged_tag", tag)
    start, changes = harness.cycle, len(harness.mirror.changes)
    await harness.write(ctx, "rm.command", COMMANDS["commit"])
    while len(harness.mirror.changes) == changes:
        await harness.tick(ctx)
        assert harness.cycle < start + harness.config.tenants + 48, "the commit did not come into force"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_rows_written_during_the_copy_are_newer_than_it(seed):
    """Begin and rows back to back, in any order and at any row, then the commit: one burst, nothing polled."""
    rng = random.Random(seed)
    config = DeviceConfig(tenants=16) if seed else SMALL

    async def test(harness, ctx):
        await commit(harness, ctx, random_table(rng, config))
        for _ in range(6):
            expected = [dict(row) for row in harness.mirror.active]
            legal = random_table(rng, config)
            await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
            await harness.tick(ctx, rng.randrange(3))
            await harness.write(ctx, "rm.command", COMMANDS["begin"])
            for _ in range(rng.randrange(14)):
                tenant, column = rng.randrange(config.tenants), rng.choice(["weight", "rate", "host_share"])
                assert await harness.read(ctx, f"staging.{column}", tenant) == expected[tenant][column]
                expected[tenant][column] = legal[tenant][column]
                await harness.write(ctx, f"staging.{column}", legal[tenant][column], tenant)
                assert await harness.read(ctx, f"staging.{column}", tenant) == expected[tenant][column]
            await harness.write(ctx, "rm.command", COMMANDS["commit"])
            assert await harness.finish(ctx) == (IDLE, model.OK, 0)
            assert harness.mirror.active == expected
            assert await harness.active_table(ctx) == expected

    Harness(config).run(test)


@pytest.mark.slow
def test_staged_row_is_never_that_of_a_table_rolled_back_while_it_was_fetched():
    """Begin and a row, back to back, at every cycle around the deadline: refused, or the row of the table restored."""
    window = 20

    async def test(harness, ctx):
        rng, answered = random.Random(5), 0
        await harness.write(ctx, "rm.base_epoch", 0)
        for delay in range(window + 6):
            before = harness.mirror.active[1]["weight"]
            await commit(harness, ctx, random_table(rng, SMALL), confirm_within=window)
            assert harness.mirror.active[1]["weight"] != before
            await harness.tick(ctx, delay)
            await harness.write(ctx, "rm.command", COMMANDS["begin"])
            try:
                assert await harness.read(ctx, "staging.weight", 1) == before, f"{delay} cycles after the commit"
                answered += 1
            except BusError:
                assert not answered, "refused, although a table is staged"
            await harness.finish(ctx)
            await harness.tick(ctx, window)
            await harness.command(ctx, "abandon")
        assert 0 < answered < window

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("config", [*(DeviceConfig(tenants=tenants) for tenants in (2, 16, 64)), SMALL])
def test_commit_takes_effect_within_tenants_plus_48_cycles(config):
    """From the first cycle of the bus access: 8 with the check, 5 when it was done before, and tenants + 11 once
    after a guarantee was written."""
    tenants = config.tenants

    async def test(harness, ctx):
        for checked, exactly in ((False, 8), (True, 5), (False, 8), (None, tenants + 11), (False, 8)):
            if checked is None:
                await harness.write(ctx, "guarantee.min_weight", 1, 0)
            await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
            await harness.command(ctx, "begin")
            if checked:
                assert await harness.command(ctx, "check") == (model.OK, 0)
            start = harness.cycle
            assert await harness.command(ctx, "commit") == (model.OK, 0)
            took = harness.mirror.changes[-1] - start
            assert took <= tenants + 48
            assert took == exactly

    Harness(config).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_legal_table_is_in_force_in_eight_cycles_whatever_it_holds(seed):
    """None of its rows is taken for a bad one while it is staged, which would make the check a scan."""
    async def test(harness, ctx):
        rng = random.Random(seed)
        for _ in range(25):
            table = legal_table(rng, SMALL)
            for row in rng.sample(table, 2):
                column, limit = rng.choice([("rate", 65536), ("burst", 256), ("host_share", 256)])
                row[column] = limit
            await harness.command(ctx, "begin")
            await harness.stage(ctx, table)
            await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
            start = harness.cycle
            assert await harness.command(ctx, "commit") == (model.OK, 0)
            assert harness.mirror.active == table
            assert harness.mirror.changes[-1] - start == 8

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_accesses_take_the_cycles_of_their_block():
    """Also one right behind another: 3 for registers, 5 for rules, 4 for a guarantee, 6 for a row."""
    cycles = {"rm.token": 3, "rules.acknowledge": 3, "rule.threshold": 5, "rule.watch": 5, "prepared.weight": 5,
              "guarantee.min_pages": 4, "staging.weight": 6}

    async def test(harness, ctx):
        rng = random.Random(1)
        await harness.command(ctx, "begin")
        for name in rng.choices(list(cycles), k=120):
            start = harness.cycle
            await (harness.read(ctx, name) if rng.random() < 0.5 else harness.write(ctx, name, 0))
            assert harness.cycle - start == cycles[name], name
            if rng.random() < 0.3:
                await harness.tick(ctx, rng.randrange(4))

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_confirm_is_in_time_up_to_the_deadline_and_not_after():
    """Confirm at every cycle around the deadline: either confirmed, or expired and the confirm refused."""
    window = 20

    async def test(harness, ctx):
        rng = random.Random(7)
        expired = 0
        for delay in range(window + 4):
            before = [dict(row) for row in harness.mirror.active]
            await commit(harness, ctx, random_table(rng, SMALL), confirm_within=window)
            effect, table = harness.mirror.changes[-1], [dict(row) for row in harness.mirror.active]
            await harness.tick(ctx, delay)
            # The access begins in cycle `effect + delay`; the command is carried out three cycles later.
            in_time = delay + 3 < window
            await harness.write(ctx, "rm.command", COMMANDS["confirm"])
            assert await harness.finish(ctx) == (IDLE, model.OK if in_time else model.WRONG_STATE, 0)
            await harness.tick(ctx, 2 * window)
            assert harness.mirror.active == (table if in_time else before)
            expired += not in_time
            assert harness.mirror.changes[-1] == (effect if in_time else effect + window + 1)
            assert await harness.read(ctx, "rm.expired") == expired
            assert await harness.read(ctx, "rm.changed_at") == harness.mirror.changes[-1]
        assert 0 < expired < window + 4

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_rollback_restores_everything_from_every_cycle():
    """Rows (over the bus and as consumers hold them), sum of pages, bank and tag, at each cycle after a commit."""
    async def test(harness, ctx):
        rng = random.Random(3)
        await commit(harness, ctx, random_table(rng, SMALL), tag=1)
        tag = 1
        for delay in range(12):
            before = [dict(row) for row in harness.mirror.active]
            bank, pages, epoch = harness.mirror.bank, harness.mirror.sum_pages, harness.mirror.epoch
            await commit(harness, ctx, random_table(rng, SMALL), confirm_within=1000, tag=0x80000000 | delay)
            assert await harness.read(ctx, "rm.active_tag") == 0x80000000 | delay
            await harness.tick(ctx, delay)
            assert await harness.command(ctx, "rollback") == (model.OK, 0)
            assert harness.mirror.active == before
            assert (harness.mirror.bank, harness.mirror.sum_pages) == (bank, pages)
            assert harness.mirror.epoch == (epoch + 2) % 256
            assert await harness.active_table(ctx) == before
            assert await harness.read(ctx, "rm.active_tag") == tag
            if delay % 3 == 0:   # the table to be restored differs from time to time
                tag = 100 + delay
                await commit(harness, ctx, random_table(rng, SMALL), tag=tag)

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_epoch_rises_past_255_and_never_falls():
    async def test(harness, ctx):
        epochs = []
        for _ in range(131):
            await harness.write(ctx, "rm.command", COMMANDS["begin"])
            await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
            await harness.write(ctx, "rm.confirm_within", 30)
            await harness.write(ctx, "rm.command", COMMANDS["commit"])
            assert await harness.finish(ctx) == (AWAITING, model.OK, 0)
            epochs.append(harness.mirror.epoch)
            await harness.write(ctx, "rm.command", COMMANDS["rollback"])
            await harness.finish(ctx)
            epochs.append(harness.mirror.epoch)
        assert epochs == [number % 256 for number in range(1, 263)]

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize(("register", "refusal"), [
    ("owner_token", model.STALE_TOKEN),
    ("token", model.STALE_TOKEN),
    ("base_epoch", model.STALE_EPOCH),
])
def test_new_owner_or_epoch_fences_a_commit_that_is_under_way(register, refusal):
    """It is written at every cycle around a commit: once the write is answered, nothing changes any more. A guarantee
    that was written makes the commit a long one."""
    async def test(harness, ctx):
        fenced = {False: 0, True: 0}
        for delay, scans in itertools.product(range(SMALL.tenants + 14), (False, True)):
            await harness.write(ctx, "rm.owner_token", 1)
            await harness.write(ctx, "rm.token", 1)
            await harness.command(ctx, "begin")
            await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
            if scans:
                await harness.write(ctx, "guarantee.min_weight", 0, 0)
            await harness.write(ctx, "rm.command", COMMANDS["commit"])
            changes = len(harness.mirror.changes)
            await harness.tick(ctx, delay)
            await harness.write(ctx, f"rm.{register}", harness.mirror.epoch + 2)
            fence = harness.cycle - 1    # the cycle of the answer
            state, result, row = await harness.finish(ctx)
            await harness.tick(ctx, 40)
            if len(harness.mirror.changes) > changes:
                assert harness.mirror.changes[-1] <= fence
                assert (state, result) == (IDLE, model.OK)
            else:
                fenced[scans] += 1
                assert (state, result, row) == (model.STAGING, refusal, 0)
                await harness.write(ctx, "rm.token", await harness.read(ctx, "rm.owner_token"))
                assert (await harness.command(ctx, "abandon"))[0] == model.OK
        assert 1 < fenced[False] < fenced[True] < SMALL.tenants + 14
        assert fenced[True] > SMALL.tenants

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("commands", [["commit"], ["check", "commit"]])
def test_guarantee_written_during_a_commit_holds_or_comes_after_it(commands):
    """Also when the commit waits behind a check and is carried out when that has just ended."""
    async def test(harness, ctx):
        refused = 0
        for delay in range(2 * SMALL.tenants + 12):
            await harness.write(ctx, "guarantee.min_weight", 0, 1)
            await harness.command(ctx, "begin")
            await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
            for name in commands:
                await harness.write(ctx, "rm.command", COMMANDS[name])
            changes = len(harness.mirror.changes)
            await harness.tick(ctx, delay)
            await harness.write(ctx, "guarantee.min_weight", 1, 1)
            written = harness.cycle - 1   # the cycle of the answer
            _, result, row = await harness.finish(ctx)
            if len(harness.mirror.changes) > changes:
                assert result == model.OK
                assert harness.mirror.changes[-1] <= written
            else:
                refused += 1
                assert (result, row) == (model.GUARANTEE, 1)
                await harness.command(ctx, "abandon")
        assert 4 < refused < 2 * SMALL.tenants + 12

    Harness(SMALL).run(test)


def test_commit_waits_until_old_packets_have_left():
    async def test(harness, ctx):
        async def try_commit(confirm_within=0):
            await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
            await harness.write(ctx, "rm.confirm_within", confirm_within)
            return await harness.command(ctx, "commit")

        await harness.traffic(ctx, admit=[0, 0, 0])
        await harness.command(ctx, "begin")
        assert await try_commit(100000) == (model.OK, 0)          # packets of the epoch in force do not matter
        assert await harness.read(ctx, "rm.draining") == 3
        await harness.traffic(ctx, admit=[1, 1])
        assert await harness.command(ctx, "rollback") == (model.OK, 0)
        assert await harness.read(ctx, "rm.draining") == 5         # those of the table rolled back, too
        await harness.traffic(ctx, admit=[2])
        await harness.command(ctx, "begin")
        for leave in ([0, 1], [0, 0], [1]):
            assert await try_commit() == (model.BUSY_DRAINING, 0)
            assert len(harness.mirror.changes) == 2
            await harness.traffic(ctx, leave=leave, cut=leave == [1])
        assert await try_commit() == (model.OK, 0)
        assert await harness.read(ctx, "rm.draining") == 1
        assert await harness.read(ctx, "rm.cut_off") == 1

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_draining_counts_the_packets_of_every_older_epoch(seed):
    """All ports in every cycle, three epochs at once, up to twice what the pages hold; each epoch is an old one."""
    async def test(harness, ctx):
        rng, live, cut_off = random.Random(seed), {}, 0

        async def admit(most):
            epoch = harness.mirror.epoch
            while live.setdefault(epoch, 0) < most:
                count = rng.randrange(1, SMALL.ports + 1)
                await harness.traffic(ctx, admit=[epoch] * count)
                live[epoch] += count

        async def compare():
            await harness.tick(ctx, 3)
            old = sum(count for epoch, count in live.items() if epoch != harness.mirror.epoch)
            assert await harness.read(ctx, "rm.draining") == old
            assert await harness.read(ctx, "rm.cut_off") == cut_off

        for turn in range(4):
            await admit(570 if turn % 2 else rng.randrange(1, 40))
            await commit(harness, ctx, random_table(rng, SMALL), confirm_within=1 << 20)
            await admit(rng.randrange(1, 200))
            await compare()
            assert await harness.command(ctx, "rollback") == (model.OK, 0)
            await admit(rng.randrange(1, 40))
            await compare()
            inside = [epoch for epoch, count in live.items() for _ in range(count)]
            rng.shuffle(inside)
            while inside:
                leave, cut = [inside.pop() for _ in range(min(rng.randrange(4), len(inside)))], rng.random() < 0.3
                await harness.traffic(ctx, leave=leave, cut=cut)
                cut_off += len(leave) * cut
                for epoch in leave:
                    live[epoch] -= 1
                if rng.random() < 0.05:
                    await compare()
            await compare()
            await commit(harness, ctx, random_table(rng, SMALL))   # the next turn begins with an odd epoch

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_last_packet_may_leave_in_any_cycle_of_a_commit():
    """Refused while it is counted, accepted after: never accepted before it left."""
    async def test(harness, ctx):
        accepted = 0
        for delay in range(SMALL.tenants + 14):
            await harness.traffic(ctx, admit=[harness.mirror.epoch])
            old = harness.mirror.epoch
            for attempt in range(2):
                await harness.command(ctx, "begin")
                await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
                if attempt == 0:
                    assert (await harness.command(ctx, "commit"))[0] == model.OK
            await harness.write(ctx, "rm.command", COMMANDS["commit"])
            changes = len(harness.mirror.changes)
            await harness.tick(ctx, delay)
            left = harness.cycle
            await harness.traffic(ctx, leave=[old])
            _, result, _ = await harness.finish(ctx)
            if result == model.OK:
                accepted += 1
                assert harness.mirror.changes[-1] > left
            else:
                assert result == model.BUSY_DRAINING
                assert len(harness.mirror.changes) == changes
                assert (await harness.command(ctx, "commit"))[0] == model.OK
        assert 0 < accepted < SMALL.tenants + 14

    Harness(SMALL).run(test)


def test_one_command_waits_and_the_next_is_refused_on_the_bus():
    async def test(harness, ctx):
        await harness.command(ctx, "begin")
        await harness.command(ctx, "abandon")   # the next begin waits until the staging bank is as it was
        await harness.write(ctx, "rm.command", COMMANDS["begin"])
        await harness.write(ctx, "rm.command", COMMANDS["check"])
        with pytest.raises(BusError):
            await harness.write(ctx, "rm.command", COMMANDS["abandon"])
        assert await harness.read(ctx, "rm.command") == COMMANDS["check"]
        assert await harness.finish(ctx) == (model.STAGING, model.OK, 0)
        await harness.write(ctx, "rm.command", COMMANDS["check"])
        await harness.write(ctx, "rm.command", COMMANDS["abandon"])
        assert await harness.finish(ctx) == (IDLE, model.OK, 0)
        assert await harness.read(ctx, "rm.refused") == 0

    Harness(DeviceConfig()).run(test)


def test_third_command_of_a_row_is_refused_while_the_first_checks_and_the_second_waits():
    async def test(harness, ctx):
        await harness.command(ctx, "begin")
        await harness.write(ctx, "guarantee.min_weight", 0, 1)   # the check has to look at every row
        for name in ("check", "check"):
            await harness.write(ctx, "rm.command", COMMANDS[name])
        for _ in range(2):
            with pytest.raises(BusError):
                await harness.write(ctx, "rm.command", COMMANDS["abandon"])
        assert await harness.read(ctx, "rm.command") == COMMANDS["check"]
        assert await harness.finish(ctx) == (model.STAGING, model.OK, 0)
        await harness.write(ctx, "rm.command", COMMANDS["abandon"])
        assert await harness.finish(ctx) == (IDLE, model.OK, 0)
        assert await harness.read(ctx, "rm.refused") == 0

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("waits", [False, True])
def test_staged_rows_do_not_change_under_a_commit(waits):
    """A row written in any cycle after the commit was taken is refused, also while it waits for the copy."""
    async def test(harness, ctx):
        for delay in range(SMALL.tenants + 6):
            before = harness.mirror.active[2]["weight"]
            await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
            await harness.write(ctx, "rm.command", COMMANDS["begin"])
            if not waits:
                await harness.finish(ctx)
            await harness.write(ctx, "rm.command", COMMANDS["commit"])
            await harness.tick(ctx, delay)
            with pytest.raises(BusError):
                await harness.write(ctx, "staging.weight", before + 1, 2)
            assert (await harness.finish(ctx))[:2] == (IDLE, model.OK)
            assert harness.mirror.active[2]["weight"] == before

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_staged_rows_are_closed_unless_staged_by_the_token_holder():
    async def test(harness, ctx):
        async def closed():
            for column in COLUMNS:
                with pytest.raises(BusError):
                    await harness.read(ctx, f"staging.{column}", 1)
                with pytest.raises(BusError):
                    await harness.write(ctx, f"staging.{column}", 1, 1)

        await closed()
        await harness.command(ctx, "begin")
        assert await harness.read(ctx, "staging.burst", 1) == 512
        await harness.write(ctx, "rm.token", 5)
        await closed()
        await harness.write(ctx, "rm.token", 0)
        with pytest.raises(BusError):
            await harness.write(ctx, "staging.reserved", 1, 1)
        assert await harness.read(ctx, "staging.reserved", 1) == 0
        await harness.write(ctx, "rm.confirm_within", 1000)
        assert await harness.command(ctx, "commit") == (model.OK, 0)
        await closed()
        assert await harness.command(ctx, "rollback") == (model.OK, 0)
        assert await harness.active_table(ctx) == model.reset_table(SMALL)

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("config", [DeviceConfig(), SMALL], ids=["default", "small"])
def test_device_after_reset_belongs_to_tenant_zero(config):
    async def test(harness, ctx):
        assert harness.mirror.active == model.reset_table(config)
        assert await harness.active_table(ctx) == model.reset_table(config)
        for tenant in range(config.tenants):
            assert await harness.read(ctx, "guarantee.min_weight", tenant) == 0
        with pytest.raises(BusError):
            await harness.write(ctx, "active.weight", 1, 0)
        with pytest.raises(BusError):
            await harness.read(ctx, "active.weight", config.tenants)
        await harness.write(ctx, "rm.stall_timeout", 1234)
        assert ctx.get(harness.dut.stall_timeout) == 1234
        assert await harness.read(ctx, "rm.weight_capacity") == 65536

    Harness(config).run(test)


@pytest.mark.slow
def test_rows_and_guarantees_take_the_enabled_bytes_only():
    fields = {f"staging.{name}": (1 << WIDTHS[name]) - 1 for name in COLUMNS}
    fields |= {"guarantee.min_weight": 0xFFFF, "guarantee.min_pages": 0xFFFF}

    async def test(harness, ctx):
        rng = random.Random(5)
        await harness.command(ctx, "begin")
        for name, width in fields.items():
            where = address(name, 3)
            value = await harness.access(ctx, where)
            neighbour = await harness.access(ctx, where ^ 4)
            for mask in range(16):
                word = rng.getrandbits(32)
                bits = sum(0xFF << 8 * byte for byte in range(4) if mask >> byte & 1) & width
                value = value & ~bits | word & bits
                await harness.access(ctx, where, word, mask)
                assert await harness.access(ctx, where) == value, f"{name}, mask {mask:04b}"
                assert await harness.access(ctx, where ^ 4) == neighbour

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_staged_rows_and_guarantees_read_back_bit_for_bit(seed):
    """Also bits that a check would refuse, in any order, each read again when all are written."""
    async def test(harness, ctx):
        rng = random.Random(seed)
        widths = {f"staging.{name}": WIDTHS[name] for name in COLUMNS}
        widths |= {"guarantee.min_weight": 16, "guarantee.min_pages": 16}
        words = {(name, tenant): rng.getrandbits(width) for name, width in widths.items()
                 for tenant in range(SMALL.tenants)}
        await harness.command(ctx, "begin")
        for name, tenant in rng.sample(list(words), len(words)):
            await harness.write(ctx, name, words[name, tenant], tenant)
        for name, tenant in rng.sample(list(words), len(words)):
            assert await harness.read(ctx, name, tenant) == words[name, tenant], (name, tenant)

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_every_bit_of_a_deadline_counts():
    """Told to the cycle from the commit on, over the borrow from that bit, and never over before it is."""
    async def test(harness, ctx):
        for within in [(1 << bit) + 30 for bit in range(5, 32)]:
            await commit(harness, ctx, [], confirm_within=within)
            for wait in (0, 45):
                await harness.tick(ctx, wait)
                read_at = harness.cycle + 1   # a register is read in the second cycle of its access
                assert await harness.read(ctx, "rm.confirm_left") == within - (read_at - harness.mirror.changes[-1])
            assert (await harness.finish(ctx))[0] == AWAITING
            assert await harness.command(ctx, "rollback") == (model.OK, 0)

    Harness(SMALL).run(test)
