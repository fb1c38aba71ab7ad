"""Reflex rules: when they fire, how fast, what holds them, what software sees, and what they can never do."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from amaranth.lib.data import Layout

from gateware.config import DeviceConfig
from gateware.manager.allocation import AllocationRow
from tests.gateware.manager import model
from tests.gateware.manager.harness import Harness, watch_word
from tests.gateware.manager.model import AWAITING, COLUMNS, COMMANDS, IDLE, STAGING, BusError, ResourceManagerModel
from tests.gateware.manager.rule_model import ABOVE, BELOW, RULE_COUNT, RULES_TAG, Rule, RuleModel
from tests.gateware.manager.test_tables import legal_table

SMALL = DeviceConfig(ports=3, tenants=5, slots=3, pages=32)
DEPTH, STALLED = 3, 5


def granted(weight, **columns):
    """A legal row that gives its tenant something."""
    return {"weight": weight, "rate": 65536, "burst": 512, "pages": 0, "ports": 1, "slots": 0,
            "host_share": 0} | columns


def rule_of(number=0, **changes):
    """A rule that fires when the depth of tenant 1 is above 100, and gives tenant 2 a weight of its own."""
    setting = {"figure": DEPTH, "tenant": 1, "comparison": ABOVE, "enable": 1, "threshold": 100, "hysteresis": 0,
               "hold": 1, "interval": 1, "target": 2, "row": granted(1000 + number)} | changes
    return Rule(**setting)


async def settle(harness, ctx):
    """Long enough for all rules to be tried one by one, and recorded."""
    await harness.tick(ctx, 4 * harness.config.tenants + 120)


@pytest.mark.slow
@pytest.mark.parametrize("config", [*(DeviceConfig(tenants=tenants) for tenants in (2, 16, 64)), SMALL])
@pytest.mark.parametrize("several", [1, 2, RULE_COUNT])
def test_rules_take_effect_within_tenants_plus_48_cycles_of_the_figure(config, several):
    """Exactly 18, and one for each other rule; no access of software is under way."""
    tenants = config.tenants

    async def test(harness, ctx):
        rules = [rule_of(number, target=number % tenants) for number in range(several)]
        for number, rule in enumerate(rules):
            await harness.prepare_rule(ctx, number, rule)
        await harness.tick(ctx, tenants)   # the copy that follows a reset is over
        strobe = await harness.figure(ctx, 1, DEPTH, 101)
        await harness.tick(ctx, tenants + 48)
        assert len(harness.mirror.changes) == 1
        took = harness.mirror.changes[0] - strobe
        assert took <= tenants + 48
        assert took == 18 + several - 1
        expected = model.reset_table(harness.config)
        for rule in rules:
            expected[rule.target] = rule.row
        assert harness.mirror.active == expected
        assert await harness.read(ctx, "rm.active_tag") == RULES_TAG | (1 << several) - 1

    Harness(config).run(test)


@pytest.mark.slow
def test_rules_with_one_target_are_stored_one_after_the_other_and_the_sums_follow():
    """The last row holds, and weights at capacity are accepted, one over refused: the sums are those of the rows."""
    async def test(harness, ctx):
        for spare, result in ((0, model.OK), (1, model.WEIGHTS)):
            for number, weight in enumerate([30_000, 20_000, 61_440 + spare]):
                await harness.prepare_rule(ctx, number, rule_of(target=2, row=granted(weight)))
            await harness.figure(ctx, 1, DEPTH, 101)
            await settle(harness, ctx)
            assert await harness.read(ctx, "rule.outcome", 2) >> 8 & 15 == result
            for number in range(3):
                await harness.write(ctx, "rule.watch", 0, number)
        assert len(harness.mirror.changes) == 3   # the first three together; then two by themselves
        assert harness.mirror.active[2] == granted(20_000)

    Harness(SMALL).run(test)


def test_software_sees_every_firing_and_acknowledges_by_writing():
    async def test(harness, ctx):
        assert await harness.read(ctx, "rules.count") == RULE_COUNT
        for number in (3, 9):
            await harness.prepare_rule(ctx, number, rule_of(number, threshold=100 * number))
        for value, pending in ((500, 1 << 3), (1000, 1 << 3 | 1 << 9)):
            await harness.figure(ctx, 1, DEPTH, value)
            await settle(harness, ctx)
            for _ in range(2):   # a read changes nothing
                assert await harness.read(ctx, "rules.pending") == pending
        first, second = harness.mirror.changes
        for number, cycle, epoch in ((3, first, 1), (9, second, 2)):
            assert await harness.read(ctx, "rule.firings", number) == 1
            assert await harness.read(ctx, "rule.fired_at", number) == cycle
            assert await harness.read(ctx, "rule.outcome", number) == epoch
        assert await harness.read(ctx, "rule.firings", 4) == 0
        assert await harness.read(ctx, "rules.firings") == 2
        assert await harness.read(ctx, "rm.commits") == 2
        await harness.write(ctx, "rules.acknowledge", 1 << 9 | 1 << 4)
        assert await harness.read(ctx, "rules.pending") == 1 << 3
        await harness.write(ctx, "rules.acknowledge", 0xFFFF)
        assert await harness.read(ctx, "rules.pending") == 0
        assert await harness.read(ctx, "rules.firings") == 2

    Harness(SMALL).run(test)


@pytest.mark.parametrize("count", [1, 3])
def test_device_of_few_rules_refuses_the_others_and_carries_out_its_own(count):
    async def test(harness, ctx):
        assert await harness.read(ctx, "rules.count") == count
        for name in ("rule.watch", "prepared.weight"):
            await harness.read(ctx, name, count - 1)
            with pytest.raises(BusError):
                await harness.read(ctx, name, count)
        for number in range(count):
            await harness.prepare_rule(ctx, number, rule_of(number, target=number + 1))
        await harness.tick(ctx, SMALL.tenants)
        await harness.figure(ctx, 1, DEPTH, 101)
        await settle(harness, ctx)
        assert await harness.read(ctx, "rules.pending") == (1 << count) - 1
        expected = model.reset_table(harness.config)
        for number in range(count):
            expected[number + 1] = rule_of(number).row
        assert harness.mirror.active == expected

    Harness(replace(SMALL, rules=count)).run(test)


@pytest.mark.slow
def test_acknowledge_at_any_cycle_hides_no_later_firing():
    """The write is in force in its third cycle: a firing in that cycle or later stays."""
    async def test(harness, ctx):
        later = 0
        for delay in range(SMALL.tenants + 22):
            await harness.prepare_rule(ctx, 0, rule_of(row=granted(delay + 1)))
            await harness.figure(ctx, 1, DEPTH, 101)
            await harness.tick(ctx, delay)
            acknowledged = harness.cycle + 2
            await harness.write(ctx, "rules.acknowledge", 1)
            await settle(harness, ctx)
            assert len(harness.mirror.firings) == delay + 1
            stays = harness.mirror.firings[-1] >= acknowledged
            assert await harness.read(ctx, "rules.pending") == stays
            assert await harness.read(ctx, "rule.firings", 0) == delay + 1
            later += stays
            await harness.write(ctx, "rules.acknowledge", 1)
            await harness.write(ctx, "rule.watch", 0, 0)
        assert 0 < later < SMALL.tenants + 22

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("hold", ["staging", "awaiting", "draining"])
def test_due_rule_waits_while_software_holds_the_allocation(hold):
    async def test(harness, ctx):
        await harness.write(ctx, "rm.confirm_within", 10_000)
        await harness.prepare_rule(ctx, 0, rule_of())
        await harness.command(ctx, "begin")
        if hold != "staging":
            if hold == "draining":
                await harness.traffic(ctx, admit=[0])
                await harness.write(ctx, "rm.confirm_within", 0)
            assert await harness.command(ctx, "commit") == (model.OK, 0)
        changes = len(harness.mirror.changes)
        await harness.figure(ctx, 1, DEPTH, 101)
        await settle(harness, ctx)
        assert await harness.read(ctx, "rules.waiting") == 1
        assert len(harness.mirror.changes) == changes
        if hold == "draining":
            await harness.traffic(ctx, leave=[0])
        else:
            await harness.command(ctx, {"staging": "abandon", "awaiting": "confirm"}[hold])
        await settle(harness, ctx)
        assert await harness.read(ctx, "rules.waiting") == 0
        assert len(harness.mirror.changes) == changes + 1
        assert harness.mirror.active[2] == granted(1000)

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_rule_that_waited_is_withdrawn_when_its_figure_comes_back():
    async def test(harness, ctx):
        await harness.prepare_rule(ctx, 0, rule_of(hysteresis=50))
        await harness.command(ctx, "begin")
        await harness.figure(ctx, 1, DEPTH, 101)
        await settle(harness, ctx)
        assert await harness.read(ctx, "rules.waiting") == 1
        await harness.figure(ctx, 1, DEPTH, 100)
        await settle(harness, ctx)
        assert await harness.read(ctx, "rules.waiting") == 0
        await harness.command(ctx, "abandon")
        await settle(harness, ctx)
        assert not harness.mirror.changes
        await harness.figure(ctx, 1, DEPTH, 101)   # it is still armed: it has not fired
        await settle(harness, ctx)
        assert len(harness.mirror.changes) == 1

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_software_never_stages_half_a_rule_and_its_epoch_is_stale_after_one():
    """A whole transaction of software at every cycle around a firing: each table is one of the two, or both."""
    async def test(harness, ctx):
        orders = set()
        columns = ("weight", "burst", "host_share")
        for delay in range(2 * SMALL.tenants + 30):
            await harness.write(ctx, "rule.watch", 0, 0)
            old = dict(harness.mirror.active[2])
            new = granted(2000 + delay, burst=300 + delay, host_share=1 + delay)
            await harness.prepare_rule(ctx, 0, rule_of(row=new))
            await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
            changes = len(harness.mirror.changes)
            await harness.figure(ctx, 1, DEPTH, 101)
            await harness.tick(ctx, delay)
            assert await harness.command(ctx, "begin") == (model.OK, 0)
            staged = {column: await harness.read(ctx, f"staging.{column}", 2) for column in columns}
            await harness.write(ctx, "staging.weight", 7 + delay, 3)
            result, _ = await harness.command(ctx, "commit")
            if result == model.OK:
                orders.add("software first")
                assert staged == {column: old[column] for column in columns}
                assert harness.mirror.active[3]["weight"] == 7 + delay
                await settle(harness, ctx)
                assert len(harness.mirror.changes) == changes + 2   # the rule waited, and fired on the new table
            else:
                orders.add("rule first")
                assert result == model.STALE_EPOCH
                assert staged == {column: new[column] for column in columns}
                assert len(harness.mirror.changes) == changes + 1
                await harness.command(ctx, "abandon")
            assert harness.mirror.active[2] == new
        assert orders == {"software first", "rule first"}

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_staged_row_is_never_that_of_a_table_that_a_rule_replaced_while_it_was_fetched():
    """Begin and a row, back to back, at every cycle around a firing: refused, or the row of the table in force."""
    async def test(harness, ctx):
        answers = {True: 0, False: 0}
        for delay in range(SMALL.tenants + 30):
            await harness.write(ctx, "rule.watch", 0, 0)
            await harness.prepare_rule(ctx, 0, rule_of(row=granted(2000 + delay)))
            await harness.figure(ctx, 1, DEPTH, 101)
            await harness.tick(ctx, delay)
            await harness.write(ctx, "rm.command", COMMANDS["begin"])
            try:
                staged = await harness.read(ctx, "staging.weight", 2)
            except BusError:
                staged = None
            await harness.finish(ctx)
            answers[staged is not None] += 1
            assert staged in (None, harness.mirror.active[2]["weight"]), delay
            assert await harness.command(ctx, "abandon") == (model.OK, 0)
            await settle(harness, ctx)
            assert harness.mirror.active[2]["weight"] == 2000 + delay
        print(answers)
        assert all(answers.values())

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_rules_commit_can_be_rolled_back_confirmed_or_left_to_expire():
    async def test(harness, ctx):
        before = [dict(row) for row in harness.mirror.active]
        await harness.write(ctx, "rules.confirm_within", 600)
        for number, end in enumerate(["expire", "rollback", "confirm"]):
            await harness.prepare_rule(ctx, number, rule_of(number, figure=number))
            await harness.figure(ctx, 1, number, 101)
            await settle(harness, ctx)
            assert (await harness.read(ctx, "rm.status")) & 7 == AWAITING
            assert harness.mirror.active[2] == granted(1000 + number)
            if end == "expire":
                await harness.tick(ctx, 700)
            else:
                assert await harness.command(ctx, end) == (model.OK, 0)
            if end != "confirm":
                assert harness.mirror.active == before
                assert await harness.active_table(ctx) == before
                assert await harness.read(ctx, "rm.active_tag") == 0
        assert harness.mirror.active[2] == granted(1002)
        assert await harness.read(ctx, "rm.active_tag") == RULES_TAG | 4

    Harness(SMALL).run(test)


def test_software_rollback_restores_the_rules_table():
    async def test(harness, ctx):
        await harness.prepare_rule(ctx, 0, rule_of())
        await harness.figure(ctx, 1, DEPTH, 101)
        await settle(harness, ctx)
        restored = [dict(row) for row in harness.mirror.active]
        await harness.command(ctx, "begin")
        await harness.write(ctx, "staging.weight", 9, 2)
        await harness.write(ctx, "rm.base_epoch", 1)
        await harness.write(ctx, "rm.confirm_within", 1000)
        assert await harness.command(ctx, "commit") == (model.OK, 0)
        assert harness.mirror.active[2]["weight"] == 9
        assert await harness.command(ctx, "rollback") == (model.OK, 0)
        assert harness.mirror.active == restored
        assert await harness.read(ctx, "rm.active_tag") == RULES_TAG | 1

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "guarantee", "result", "row"), [
    ({"row": granted(65535)}, None, model.WEIGHTS, 255),
    ({"row": granted(1, pages=65535)}, None, model.PAGES, 255),
    ({"row": granted(1)}, 2, model.GUARANTEE, 2),
    ({"row": granted(1, slots=1)}, None, model.SLOT_TWICE, 2),
    ({"row": granted(1, burst=255)}, None, model.BURST, 2),
    ({"row": granted(1, rate=0)}, None, model.RATE, 2),
    ({"target": 5}, None, model.UNKNOWN_TENANT, 5),
    ({"target": 63}, None, model.UNKNOWN_TENANT, 63),
])
def test_illegal_row_is_refused_counted_and_leaves_no_trace(changes, guarantee, result, row):
    async def test(harness, ctx):
        if guarantee:
            await harness.write(ctx, "guarantee.min_weight", guarantee, 2)
            await harness.command(ctx, "begin")
            await harness.write(ctx, "staging.weight", guarantee, 2)
            await harness.command(ctx, "commit")
        before = [dict(row) for row in harness.mirror.active]
        count = len(harness.mirror.changes)
        await harness.prepare_rule(ctx, 0, rule_of(**changes))
        for firings in (1, 2):
            await harness.figure(ctx, 1, DEPTH, 0)
            await harness.figure(ctx, 1, DEPTH, 101)
            await settle(harness, ctx)
            assert await harness.read(ctx, "rule.firings", 0) == firings
            assert await harness.read(ctx, "rules.refused") == firings
            assert await harness.read(ctx, "rule.outcome", 0) == harness.mirror.epoch | result << 8 | row << 16
            assert await harness.read(ctx, "rules.pending") == 1
        assert len(harness.mirror.changes) == count
        assert (await harness.read(ctx, "rm.status")) >> 8 & 15 == model.OK   # no command was refused
        assert await harness.read(ctx, "rm.refused") == 0
        # What the refused row left in the staging bank is gone when software begins.
        await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
        await harness.write(ctx, "rm.command", COMMANDS["begin"])
        assert await harness.command(ctx, "commit") == (model.OK, 0)
        assert harness.mirror.active == before

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_guarantee_written_at_any_cycle_of_a_rules_transaction_holds_or_comes_after_it():
    async def test(harness, ctx):
        refused = 0
        for delay in range(SMALL.tenants + 20):
            await harness.write(ctx, "guarantee.min_weight", 0, 2)
            await harness.prepare_rule(ctx, 0, rule_of(row=granted(1000 + delay)))
            changes = len(harness.mirror.changes)
            await harness.figure(ctx, 1, DEPTH, 101)
            await harness.tick(ctx, delay)
            await harness.write(ctx, "guarantee.min_weight", 2000, 2)
            written = harness.cycle - 1   # the cycle of the answer
            await settle(harness, ctx)
            result = await harness.read(ctx, "rule.outcome", 0) >> 8 & 15
            if len(harness.mirror.changes) > changes:
                assert result == model.OK
                assert harness.mirror.changes[-1] <= written
            else:
                refused += 1
                assert result == model.GUARANTEE
            await harness.write(ctx, "rule.watch", 0, 0)
        assert 4 < refused < SMALL.tenants + 20

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_one_bad_row_does_not_stop_the_rules_that_are_due_with_it():
    async def test(harness, ctx):
        for number in range(4):
            bad = {"row": granted(1, burst=0)} if number == 1 else {}
            await harness.prepare_rule(ctx, number, rule_of(number, target=number + 1, **bad))
        await harness.figure(ctx, 1, DEPTH, 101)
        await settle(harness, ctx)
        assert await harness.read(ctx, "rules.pending") == 0b1111
        assert await harness.read(ctx, "rules.firings") == 4
        assert await harness.read(ctx, "rules.refused") == 1
        assert await harness.read(ctx, "rule.outcome", 1) == 1 | model.BURST << 8 | 2 << 16
        assert [harness.mirror.active[tenant]["weight"] for tenant in range(1, 5)] == [1000, 0, 1002, 1003]
        assert len(harness.mirror.changes) == 3
        await harness.figure(ctx, 1, DEPTH, 0)
        await harness.write(ctx, "rule.watch", 0, 1)
        await harness.figure(ctx, 1, DEPTH, 101)
        await settle(harness, ctx)
        assert len(harness.mirror.changes) == 4   # together again

    Harness(SMALL).run(test)


def test_prepared_row_is_closed_while_its_rule_is_enabled():
    async def test(harness, ctx):
        await harness.prepare_rule(ctx, 5, rule_of())
        for column in model.COLUMNS:
            with pytest.raises(BusError):
                await harness.write(ctx, f"prepared.{column}", 1, 5)
            assert await harness.read(ctx, f"prepared.{column}", 5) == granted(1000)[column]
        await harness.write(ctx, "prepared.weight", 77, 6)
        assert await harness.read(ctx, "prepared.weight", 6) == 77
        await harness.write(ctx, "rule.watch", 0, 5)
        await harness.write(ctx, "prepared.weight", 78, 5)
        assert await harness.read(ctx, "prepared.weight", 5) == 78
        for name in ("rule.firings", "rule.fired_at", "rule.outcome", "rules.pending", "prepared.reserved"):
            with pytest.raises(BusError):
                await harness.write(ctx, name, 1)

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_prepared_rows_read_back_bit_for_bit(seed):
    """Under random masks, and also bits that a check would refuse: what is legal is asked when the rule fires."""
    async def test(harness, ctx):
        rng = random.Random(seed)
        rows = [model.reset_table(SMALL)[1] for _ in range(RULE_COUNT)]
        for masks in ((15,), (15 ^ 1, 15 ^ 2, 15 ^ 4), (15, *range(16))):
            for number, row in enumerate(rows):
                for name in rng.sample(COLUMNS, len(COLUMNS)):
                    mask, word = rng.choice(masks), rng.getrandbits(32)
                    bits = sum(0xFF << 8 * byte for byte in range(4) if mask >> byte & 1)
                    bits &= (1 << Layout.cast(AllocationRow)[name].width) - 1
                    await harness.access(ctx, ResourceManagerModel.address(f"prepared.{name}", number), word, mask)
                    row[name] = row[name] & ~bits | word & bits
            for number in rng.sample(range(RULE_COUNT), RULE_COUNT):
                read = {name: await harness.read(ctx, f"prepared.{name}", number) for name in COLUMNS}
                assert read == rows[number], number

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_every_column_of_a_prepared_row_comes_into_force(seed):
    """A whole legal table, a rule a row: tenant 0, which holds everything, gives it up first."""
    async def test(harness, ctx):
        rng = random.Random(seed)
        table = legal_table(rng, SMALL)
        for tenant, row in enumerate(table):
            await harness.prepare_rule(ctx, tenant, rule_of(target=tenant, row=row))
        await harness.figure(ctx, 1, DEPTH, 101)
        await settle(harness, ctx)
        assert harness.mirror.active == table
        assert await harness.active_table(ctx) == table

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_figures_one_a_cycle_reach_every_rule():
    """A sweep without a gap, in which sixteen rules watch sixteen figures, and all of one tenant come first."""
    config = DeviceConfig(tenants=16)

    async def test(harness, ctx):
        rng = random.Random(2)
        words = [(tenant, figure) for tenant in range(16) for figure in range(17)]
        watched = sorted(rng.sample(words[:32], 8) + rng.sample(words[32:], 8))
        for number, (tenant, figure) in enumerate(watched):
            await harness.prepare_rule(ctx, number, rule_of(number, tenant=tenant, figure=figure, target=number))
        for tenant, figure in words:
            await harness.figure(ctx, tenant, figure, 101 if (tenant, figure) in watched else 0)
        await harness.tick(ctx, 600)
        assert await harness.read(ctx, "rules.pending") == 0xFFFF
        assert await harness.read(ctx, "rules.refused") == 0
        assert [row["weight"] for row in harness.mirror.active] == [1000 + number for number in range(16)]

    Harness(config).run(test)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("interval", [0, 1, 3, 8])
@pytest.mark.parametrize("hold", [0, 1, 2, 5])
def test_flapping_is_bounded_by_hold_and_interval(hold, interval):
    """A figure that does everything to make the rule fire: never more often than the setting allows."""
    async def test(harness, ctx):
        await harness.prepare_rule(ctx, 0, rule_of(hold=hold, interval=interval))
        fired, windows = [], 40
        least = max(interval, max(hold, 1) + 1)   # one window to come back, then `hold` beyond
        for window in range(windows):
            beyond = not fired or window - fired[-1] > 1
            count = len(harness.mirror.changes)
            await harness.figure(ctx, 1, DEPTH, 101 if beyond else 100)
            await settle(harness, ctx)
            if len(harness.mirror.changes) > count:
                fired.append(window)
        gaps = {after - before for before, after in pairwise(fired)}
        assert fired[0] == max(hold, 1) - 1
        assert gaps == {least}

    Harness(SMALL).run(test)


class Session:
    """The same figures, commands and settings to the device and to the model."""

    def __init__(self, harness, ctx, rng):
        self.harness, self.ctx, self.rng = harness, ctx, rng
        self.manager = ResourceManagerModel(harness.config)
        self.rules = RuleModel(self.manager)
        self.fired_at = [0] * RULE_COUNT

    async def figure(self):
        rng = self.rng
        await self.send(rng.randrange(2), rng.choice([DEPTH, STALLED]), rng.randrange(16))

    async def send(self, tenant, figure, value):
        await self.harness.figure(self.ctx, tenant, figure, value)
        self.rules.figure(tenant, figure, value)

    async def rewrite(self, number, **changes):
        """Another setting for one rule; now and then one that is disabled, or no legal row."""
        rng, config = self.rng, self.harness.config
        rule = Rule(figure=rng.choice([DEPTH, STALLED]), tenant=rng.randrange(2),
                    comparison=rng.choice([ABOVE, BELOW]), enable=rng.random() < 0.9, threshold=rng.randrange(16),
                    hysteresis=rng.choice([0, 0, 1, 3, 20]), hold=rng.choice([0, 1, 1, 2, 3]),
                    interval=rng.choice([0, 1, 2, 5]), target=rng.randrange(config.tenants + (rng.random() < 0.1)),
                    row=granted(rng.choice([0, rng.randrange(1, 9000), rng.randrange(30000)]),
                                pages=rng.choice([0, 0, 1, 5]), burst=rng.choice([255, 256, 700, 700, 700]),
                                host_share=rng.randrange(257)),
                    firings=self.rules.rules[number].firings, outcome=self.rules.rules[number].outcome)
        rule = replace(rule, **changes)
        await self.harness.write(self.ctx, "rule.watch", 0, number)
        self.rules.rules[number].due = False
        await self.harness.prepare_rule(self.ctx, number, rule)
        self.rules.rules[number] = rule

    async def command(self):
        name = self.rng.choice({IDLE: ["begin"], STAGING: ["commit", "abandon"],
                                AWAITING: ["confirm", "rollback"]}[self.manager.state])
        if name == "commit":
            within = self.rng.choice([0, 1 << 20])
            for register, value in (("base_epoch", self.manager.epoch), ("confirm_within", within)):
                await self.harness.write(self.ctx, f"rm.{register}", value)
                self.manager.write(ResourceManagerModel.address(f"rm.{register}"), value)
        found = await self.harness.command(self.ctx, name)
        assert found == self.manager.command(name)

    async def compare_records(self):
        """What every rule did last; rules whose table was refused are tried one by one, and may fire in any cycle."""
        firings = {cycle & 0xFFFFFFFF for cycle in self.harness.mirror.firings}
        for number, rule in enumerate(self.rules.rules):
            epoch, result, row = rule.outcome
            assert await self.harness.read(self.ctx, "rule.firings", number) == rule.firings, number
            assert await self.harness.read(self.ctx, "rule.outcome", number) == epoch | result << 8 | row << 16
            fired_at = await self.harness.read(self.ctx, "rule.fired_at", number)
            assert fired_at in (firings if rule.firings else {0}), number

    async def compare(self):
        await settle(self.harness, self.ctx)
        self.rules.act()
        read = self.harness.read
        for name in ("pending", "waiting", "firings", "refused"):
            assert await read(self.ctx, f"rules.{name}") == getattr(self.rules, name), name
        number = self.rng.randrange(RULE_COUNT)
        rule = self.rules.rules[number]
        assert await read(self.ctx, "rule.firings", number) == rule.firings
        epoch, result, row = rule.outcome
        assert await read(self.ctx, "rule.outcome", number) == epoch | result << 8 | row << 16
        assert await read(self.ctx, "rule.watch", number) == watch_word(rule)
        assert await read(self.ctx, "rm.active_tag") == self.manager.active_tag
        assert self.harness.mirror.active == self.manager.active_table
        assert self.harness.mirror.epoch == self.manager.epoch


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3))])
def test_random_rules_and_figures_match_the_model(seed):
    async def test(harness, ctx):
        session = Session(harness, ctx, random.Random(seed))
        for number in range(RULE_COUNT):
            await session.rewrite(number)
        for _ in range(150):
            action = session.rng.random()
            if action < 0.75:
                await session.figure()
            elif action < 0.80:
                await session.rewrite(session.rng.randrange(RULE_COUNT))
            elif action < 0.85:
                await harness.write(ctx, "rules.acknowledge", mask := session.rng.getrandbits(16))
                session.rules.pending &= ~mask
            else:
                await session.command()
            await session.compare()
        print(session.rules.firings, session.rules.refused, session.manager.counters)
        assert session.rules.firings > session.rules.refused > 0

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_every_bit_of_a_figure_and_of_a_setting_counts(seed):
    """Figures at, beside and a bit away from where the model's verdict changes, with settings of all widths."""
    async def test(harness, ctx):
        session, rng = Session(harness, ctx, random.Random(seed)), random.Random(100 + seed)
        for number in range(RULE_COUNT):
            await session.rewrite(
                number, figure=rng.randrange(17), tenant=rng.randrange(SMALL.tenants), enable=1,
                threshold=rng.getrandbits(32) >> rng.randrange(24), hysteresis=rng.getrandbits(rng.randrange(1, 33)),
                hold=rng.randrange(2), interval=rng.choice([0, 1, 4]), row=granted(1 + number))
        for _ in range(90):
            rule = rng.choice(session.rules.rules)
            back = -rule.hysteresis if rule.comparison == ABOVE else rule.hysteresis
            value = rule.threshold + rng.choice([0, 0, back]) + rng.choice([-1, 0, 1])
            value = min(max(value, 0), 2**32 - 1) ^ rng.choice([0, 0, 0, 1 << rng.randrange(32)])
            await session.send(rule.tenant, rule.figure, value)
            await session.compare()
        await session.compare_records()
        assert session.rules.firings > 10

    Harness(SMALL, cycle=random.Random(seed).getrandbits(63)).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("comparison", [ABOVE, pytest.param(BELOW, marks=pytest.mark.long)])
def test_every_bit_of_threshold_and_hysteresis_counts(comparison):
    """A rule a bit: at the threshold, beyond it by one, short of the hysteresis by one, and at it."""
    async def test(harness, ctx):
        sign, base = (1, 0xFFFF_FFFE) if comparison == ABOVE else (-1, 1)
        thresholds = [(base ^ 1 << bit, 1) for bit in range(1, 32)]
        await harness.write(ctx, "rm.base_epoch", 0)
        assert await harness.command(ctx, "begin") == (model.OK, 0)   # what is due waits
        for threshold, hysteresis in [*thresholds, *((base, 1 << bit) for bit in range(32))]:
            await harness.prepare_rule(ctx, 3, rule_of(
                figure=DEPTH, comparison=comparison, threshold=threshold, hysteresis=hysteresis))
            await harness.tick(ctx, 20)
            back = threshold - sign * hysteresis
            for value, waits in ((threshold, 0), (threshold + sign, 1), (back, 0), (threshold + sign, 1)):
                await harness.figure(ctx, 1, DEPTH, value)
                await harness.tick(ctx, 20)
                assert await harness.read(ctx, "rules.waiting") == waits << 3, (hex(threshold), hex(value))
            # It fires, and is disarmed.
            assert await harness.command(ctx, "abandon") == (model.OK, 0)
            await settle(harness, ctx)
            assert await harness.read(ctx, "rules.waiting") == 0
            assert await harness.command(ctx, "begin") == (model.OK, 0)
            for value, waits in ((back + sign, 0), (threshold + sign, 0), (back, 0), (threshold + sign, 1)):
                await harness.figure(ctx, 1, DEPTH, value)
                await harness.tick(ctx, 20)
                assert await harness.read(ctx, "rules.waiting") == waits << 3, (hex(hysteresis), hex(value))
            await harness.write(ctx, "rule.watch", 0, 3)

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("shift", range(5))
def test_each_rule_sees_its_own_figure_alone(shift):
    """A fifth of the rules are disabled, three fifths watch tenants that do not exist, and differ in one bit."""
    async def test(harness, ctx):
        assert await harness.command(ctx, "begin") == (model.OK, 0)   # what is due waits
        watched = {}
        for number in range(RULE_COUNT):
            kind, tenant, figure = (number + shift) % 5, (number + shift) % SMALL.tenants, (2 * number + shift) % 17
            stray = 1 << kind + 2 if kind in (1, 2, 3) else 0
            await harness.prepare_rule(ctx, number, rule_of(
                number, tenant=tenant | stray, figure=figure, enable=kind != 0))
            if kind == 4:
                watched[tenant, figure] = watched.get((tenant, figure), 0) | 1 << number
        await harness.tick(ctx, 20)
        waiting, words = 0, [(tenant, figure) for tenant in range(SMALL.tenants) for figure in range(17)]
        for tenant, figure in random.Random(shift).sample(words, len(words)):
            await harness.figure(ctx, tenant, figure, 101)
            await harness.tick(ctx, 12)
            waiting |= watched.get((tenant, figure), 0)
            assert await harness.read(ctx, "rules.waiting") == waiting, (tenant, figure)
        assert waiting

    Harness(SMALL).run(test)


@pytest.mark.long
def test_thousands_of_refusals_are_counted():
    """Sixteen rules at a time, none of which has a row that is legal."""
    async def test(harness, ctx):
        rounds = 260
        for number in range(RULE_COUNT):
            await harness.prepare_rule(ctx, number, rule_of(number, row=granted(1, burst=255)))
        for _ in range(rounds):
            await harness.figure(ctx, 1, DEPTH, 101)
            await harness.tick(ctx, 500)   # together, then one by one
            await harness.figure(ctx, 1, DEPTH, 100)
            await harness.tick(ctx, 40)
        assert await harness.read(ctx, "rules.firings") == RULE_COUNT * rounds
        assert await harness.read(ctx, "rules.refused") == RULE_COUNT * rounds
        for number in range(RULE_COUNT):
            assert await harness.read(ctx, "rule.firings", number) == rounds

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize(("hold", "interval"), [
    (0xFF, 0), (0xA5, 3), (2, 0x1FF), (0, 0x2AA), (0x5A, 0x155), (3, 0x156),
    (1, (1 << 15) + 100),   # without its highest bit it would end soon
    *(pytest.param(1, 1 << bit, marks=pytest.mark.long) for bit in (10, 11, 15)),
    *(pytest.param(1, (1 << bit) + more, marks=pytest.mark.long) for bit in range(12, 15) for more in (0, 100))])
def test_long_hold_and_interval_are_counted_to_the_end(hold, interval):
    """Beyond in every window, but for one after a firing, for twice as long or (the longest) 2,200 windows."""
    async def test(harness, ctx):
        session = Session(harness, ctx, random.Random(1))
        rule = {"figure": DEPTH, "tenant": 1, "comparison": BELOW, "enable": 1, "threshold": 9, "hysteresis": 0}
        await session.rewrite(0, **rule, hold=hold, interval=interval, target=1, row=granted(9))
        for windows in range(min(2 * max(hold, interval) + 4, 2200)):
            await session.send(1, DEPTH, 3 if session.rules.rules[0].armed else 9)
            # The strobe's cycle has passed: a rule's table is in force, and it has fired, 18 cycles after the strobe.
            # Now and then also when it should not: while figures come without a pause, what is due has to wait.
            await harness.tick(ctx, 17 if session.rules.waiting or windows % 8 == 0 else 2)
            session.rules.act()
            assert len(harness.mirror.firings) == session.rules.firings, windows
        assert session.rules.firings > (interval < 0x1000)

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_every_rule_that_waits_is_due_by_its_own_figure_alone(seed):
    """Software holds the allocation while many become due and cease to be; then all that still are come into force."""
    async def test(harness, ctx):
        session = Session(harness, ctx, random.Random(seed))
        for _ in range(3):
            for number in session.rng.sample(range(RULE_COUNT), RULE_COUNT):
                await session.rewrite(number, enable=1, hold=session.rng.randrange(2), interval=0,
                                      row=granted(1 + number))
            await session.command()
            for _ in range(60):
                await session.figure()
                await harness.tick(ctx, 24)
                assert await harness.read(ctx, "rules.waiting") == session.rules.waiting
            assert await harness.command(ctx, "abandon") == session.manager.command("abandon")
            await harness.tick(ctx, 400)   # up to sixteen one by one
            await session.compare()
            await session.compare_records()

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_settings_of_every_rule_take_the_enabled_bytes_and_read_back(seed):
    """Random words under random masks, bits without a field included; each is read again when all are written."""
    fields = {"threshold": 0xFFFF_FFFF, "hysteresis": 0xFFFF_FFFF, "timing": 0xFFFF_00FF, "target": 0x3F,
              "watch": 0x8001_3F1F}

    async def test(harness, ctx):
        rng = random.Random(seed)
        words = dict.fromkeys(((name, number) for name in fields for number in range(RULE_COUNT)), 0)
        for _ in range(6):
            for name, number in rng.sample(list(words), len(words)):
                mask, word = rng.choice([15, rng.randrange(16), 15 ^ 1 << rng.randrange(4)]), rng.getrandbits(32)
                bits = sum(0xFF << 8 * byte for byte in range(4) if mask >> byte & 1) & fields[name]
                await harness.access(ctx, ResourceManagerModel.address(f"rule.{name}", number), word, mask)
                words[name, number] = words[name, number] & ~bits | word & bits
            for name, number in rng.sample(list(words), len(words)):
                assert await harness.read(ctx, f"rule.{name}", number) == words[name, number], (name, number)

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(0, 1), (13, 3)])
@pytest.mark.parametrize("apart", [*range(1, 14), 40])
def test_rule_whose_figure_is_being_evaluated_is_of_the_same_table(apart, first, second):
    """A rule is due nine cycles after its figure: the one before it does not close the table until then."""
    async def test(harness, ctx):
        for place, number in enumerate((first, second)):
            await harness.prepare_rule(ctx, number, rule_of(number, figure=DEPTH + place, target=1 + place))
        await harness.tick(ctx, SMALL.tenants)
        await harness.figure(ctx, 1, DEPTH, 101)
        await harness.tick(ctx, apart - 1)
        await harness.figure(ctx, 1, DEPTH + 1, 101)
        await settle(harness, ctx)
        assert len(harness.mirror.changes) == (1 if apart < 13 else 2)
        assert [harness.mirror.active[tenant]["weight"] for tenant in (1, 2)] == [1000 + first, 1000 + second]

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("written", [0, 2, 5])
def test_figure_in_the_very_cycle_in_which_its_rule_is_written_is_not_evaluated(written):
    """It delays another rule, which is behind it, by a cycle in any other alignment, and not in this one."""
    async def test(harness, ctx):
        port, bus, delays = harness.dut.figures, harness.dut.bus, []
        for delay in range(12):
            for number in (written, 7):
                await harness.write(ctx, "rule.watch", 0, number)
                await harness.prepare_rule(ctx, number, rule_of(number, hold=1 if number == 7 else 2))
            await harness.tick(ctx, 20)
            changes, strobe, is_written = len(harness.mirror.changes), harness.cycle + delay, False
            where = ResourceManagerModel.address("rule.watch", written) // 4
            for name, value in (("address", where), ("write", 1), ("w_data", watch_word(rule_of())), ("w_mask", 15)):
                ctx.set(getattr(bus, name), value)
            for name, value in (("tenant", 1), ("figure", DEPTH), ("value", 101)):
                ctx.set(getattr(port, name), value)
            for _ in range(60):
                ctx.set(port.valid, harness.cycle == strobe)
                ctx.set(bus.valid, not is_written)
                is_written |= bool(ctx.get(bus.ready))
                await harness.tick(ctx)
            assert len(harness.mirror.changes) == changes + 1
            delays.append(harness.mirror.changes[-1] - strobe)
        assert delays == [19] * 4 + [18] + [19] * 7   # the fourth cycle of an access writes, the strobe follows

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_rule_written_at_any_cycle_of_an_evaluation_is_withdrawn_alone(seed):
    """All rules are due and wait; each sees its figure again, while one of them is armed anew."""
    async def test(harness, ctx):
        rng = random.Random(seed)
        for number in range(RULE_COUNT):
            await harness.prepare_rule(ctx, number, rule_of(number, target=number % SMALL.tenants))
        assert await harness.command(ctx, "begin") == (model.OK, 0)
        numbers = [*range(RULE_COUNT), *range(RULE_COUNT)]
        rng.shuffle(numbers)
        for delay, number in enumerate(numbers):
            await harness.figure(ctx, 1, DEPTH, 101)
            await harness.tick(ctx, delay)
            await harness.write(ctx, "rule.watch", watch_word(rule_of(number)), number)
            await harness.tick(ctx, 30)
            assert await harness.read(ctx, "rules.waiting") == 0xFFFF & ~(1 << number), (delay, number)
        assert not harness.mirror.changes

    Harness(SMALL).run(test)
