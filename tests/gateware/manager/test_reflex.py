"""What several reflex rules store together: one row a cycle, whatever targets they have and whichever are withdrawn."""

import random
from itertools import pairwise

import pytest

from gateware.config import DeviceConfig
from tests.gateware.manager import model
from tests.gateware.manager.harness import Harness, watch_word
from tests.gateware.manager.rule_model import RULE_COUNT, RULES_TAG
from tests.gateware.manager.test_rules import DEPTH, SMALL, granted, rule_of, settle


async def prepare(harness, ctx, targets, **changes):
    """A rule for each of `targets`, of the figure of its own number unless `changes` name one; returns the rules."""
    rng = random.Random(1)
    rules = [rule_of(number, target=target, **{"figure": number} | changes,
                     row=granted(100 + number, pages=rng.randrange(3), slots=4 if target == 2 else 0))
             for number, target in enumerate(targets)]
    for number, rule in enumerate(rules):
        await harness.prepare_rule(ctx, number, rule)
    await harness.tick(ctx, harness.config.tenants)   # the copy that follows a reset is over
    return rules


def table_of(harness, rules, **given_up):
    """The table after a reset, tenant 0's columns `given_up`, with the rows of `rules` stored in this order."""
    expected = model.reset_table(harness.config)
    expected[0] |= given_up
    for rule in rules:
        expected[rule.target] = rule.row
    return expected


async def give_up(harness, ctx):
    """Software commits the table after a reset, but for pages and slots of tenant 0: who is given some gets them."""
    await harness.command(ctx, "begin")
    await harness.write(ctx, "rm.base_epoch", harness.mirror.epoch)
    for tenant, row in enumerate(table_of(harness, [], pages=0, slots=0)):
        for name in ("weight", "pages", "slots", "ports"):
            await harness.write(ctx, f"staging.{name}", row[name], tenant)
    assert await harness.command(ctx, "commit") == (model.OK, 0)


@pytest.mark.slow
def test_any_number_of_rules_is_stored_a_row_a_cycle():
    """One to sixteen, each time one more is enabled; the first is tenant 0's, which gives up its slots and pages."""
    async def test(harness, ctx):
        rules = await prepare(
            harness, ctx, [number % SMALL.tenants for number in range(RULE_COUNT)], figure=DEPTH, enable=0)
        for several in range(1, RULE_COUNT + 1):
            await harness.write(ctx, "rule.watch", watch_word(rules[several - 1]) | 1 << 31, several - 1)
            strobe = await harness.figure(ctx, 1, DEPTH, 101)
            await settle(harness, ctx)
            assert len(harness.mirror.changes) == several
            assert harness.mirror.changes[-1] - strobe == 18 + several - 1
            assert harness.mirror.active == table_of(harness, rules[:several])
            assert harness.mirror.sum_pages == sum(row["pages"] for row in harness.mirror.active)
            assert await harness.read(ctx, "rm.active_tag") == RULES_TAG | (1 << several) - 1
            await harness.figure(ctx, 1, DEPTH, 0)   # all are armed again
            await settle(harness, ctx)

    Harness(SMALL).run(test)


@pytest.mark.slow
@pytest.mark.parametrize("config", [SMALL, DeviceConfig(tenants=2), DeviceConfig(tenants=16)])
@pytest.mark.parametrize("targets", [[1], [1, 0], [1, 1, 0], [1, 1, 1, 0, 0, 1]])
def test_row_over_the_one_just_stored_takes_a_cycle_more_and_the_sums_are_those_of_the_rows(config, targets):
    """A table of exactly the capacity is accepted, without the scan that slots counted wrongly would bring about."""
    targets = (targets * RULE_COUNT)[:RULE_COUNT]
    again = sum(this == following for this, following in pairwise(targets))

    async def test(harness, ctx):
        rules = [rule_of(number, target=target, row=granted(
            30_000 + number, pages=number % 3, slots=number % 2)) for number, target in enumerate(targets)]
        final = {rule.target: rule for rule in rules}
        for rule in final.values():
            rule.row.update(slots=0, pages=0)
        rest = sum(row["weight"] for row in table_of(harness, rules)) - final[targets[-1]].row["weight"]
        final[targets[-1]].row["weight"] = (1 << 16) - rest
        await give_up(harness, ctx)
        for number, rule in enumerate(rules):
            await harness.prepare_rule(ctx, number, rule)
        await harness.tick(ctx, config.tenants)
        strobe = await harness.figure(ctx, 1, DEPTH, 101)
        await harness.tick(ctx, 2 * config.tenants + 60)
        assert len(harness.mirror.changes) == 2
        assert harness.mirror.changes[-1] - strobe == 18 + RULE_COUNT - 1 + again
        expected = table_of(harness, rules, pages=0, slots=0)
        assert harness.mirror.active == expected
        assert sum(row["weight"] for row in expected) == 1 << 16
        assert harness.mirror.sum_pages == sum(row["pages"] for row in expected)

    Harness(config).run(test)


@pytest.mark.slow
@pytest.mark.parametrize(("by", "last", "targets"), [
    ("figure", 10, [2] * RULE_COUNT), ("software", 6, [number % SMALL.tenants for number in range(RULE_COUNT)]),
    pytest.param("figure", 10, [number % SMALL.tenants for number in range(RULE_COUNT)], marks=pytest.mark.long),
    pytest.param("software", 6, [2] * RULE_COUNT, marks=pytest.mark.long),
])
def test_rule_withdrawn_at_any_cycle_of_the_storing_is_stored_and_recorded_or_neither(targets, by, last):
    """All wait for software; it lets them go, and one of them ceases to be due: early, in every step, late.

    It is not due from the ninth cycle after its figure, the fifth of the write of `watch`. Until then it can be taken;
    two cycles later its row is broadcast: `last` after the withdrawal began.
    """
    async def test(harness, ctx):
        rules = await prepare(harness, ctx, targets)
        fired = dict.fromkeys(range(RULE_COUNT), 0)
        ends, stored_after, one = [], [], 5   # of the one that is withdrawn
        for delay in range(24):
            await give_up(harness, ctx)
            assert await harness.command(ctx, "begin") == (model.OK, 0)
            for value in (0, 101):
                for number in range(RULE_COUNT):
                    await harness.figure(ctx, 1, number, value)
                await harness.tick(ctx, 3 * RULE_COUNT)   # all are evaluated
            assert await harness.read(ctx, "rules.waiting") == (1 << RULE_COUNT) - 1
            await harness.write(ctx, "rm.command", model.COMMANDS["abandon"])
            await harness.tick(ctx, delay)
            began = harness.cycle
            if by == "figure":
                await harness.figure(ctx, 1, one, 100)
            else:
                await harness.write(ctx, "rule.watch", watch_word(rules[one]), one)
            await settle(harness, ctx)
            tag = await harness.read(ctx, "rm.active_tag")
            taken = [number for number in range(RULE_COUNT) if tag >> number & 1]
            assert tag & 0xFFFF_0000 == RULES_TAG
            assert set(taken) | {one} == set(range(RULE_COUNT))
            assert harness.mirror.active == table_of(
                harness, [rules[number] for number in taken], pages=0, slots=0)
            assert harness.mirror.sum_pages == sum(row["pages"] for row in harness.mirror.active)
            for number in taken:
                fired[number] += 1
            for number in (one - 1, one, one + 1):
                assert await harness.read(ctx, "rule.firings", number) == fired[number]
            ends.append(one in taken)
            if ends[-1]:
                stored_after.append(next(
                    cycle - began for cycle, row in harness.mirror.broadcasts if row == rules[one].row))
            harness.mirror.broadcasts.clear()
        print("".join("sw"[not end] for end in ends), stored_after)
        assert max(stored_after) == last
        assert ends == sorted(ends)   # the later it is withdrawn, the surer it was stored
        assert not ends[0]
        assert ends[-1]

    Harness(SMALL).run(test)


@pytest.mark.slow
def test_rule_that_was_on_its_way_when_a_transaction_ended_is_fetched_again():
    """The rule before it has a target that does not exist; then software takes the allocation, and gives it another."""
    async def test(harness, ctx):
        await give_up(harness, ctx)
        caught = 0
        for delay in range(30):
            rules = await prepare(harness, ctx, [63, 1, 3])
            assert await harness.command(ctx, "begin") == (model.OK, 0)
            for number in range(len(rules)):
                await harness.figure(ctx, 1, number, 101)
            await harness.tick(ctx, 20)
            await harness.write(ctx, "rm.command", model.COMMANDS["abandon"])
            await harness.tick(ctx, delay)
            assert await harness.command(ctx, "begin") == (model.OK, 0)
            if await harness.read(ctx, "rules.waiting") == 0b110:
                caught += 1
                await harness.write(ctx, "rule.target", 4, 1)
                rules[1].target = 4
            changes = len(harness.mirror.changes)
            assert await harness.command(ctx, "abandon") == (model.OK, 0)
            await settle(harness, ctx)
            if rules[1].target == 4:
                assert len(harness.mirror.changes) == changes + 1
                expected = table_of(harness, rules[1:])
                assert [harness.mirror.active[tenant] for tenant in (3, 4)] == [expected[tenant] for tenant in (3, 4)]
            for number in range(len(rules)):
                await harness.write(ctx, "rule.watch", 0, number)
        assert caught > 0

    Harness(SMALL).run(test)
