"""The machinery of the mutation campaigns, on a component of which is known what its tests see and what they do not."""

import json
import math
import re
from pathlib import Path

import amaranth.sim
import pytest
from amaranth import ClockDomain, Module

from tests.mutation import check_tiny
from tests.mutation.campaign import STEPS, Campaign, Verdict, killed_of
from tests.mutation.netlist import Mutation, prepare, sample
from tests.mutation.stand_in import StandIn, TestHangs, installed, model_of
from tests.mutation.survivors import explained, unexplained
from tests.mutation.tiny import TINY, Tiny, Twins

pytestmark = [pytest.mark.slow, pytest.mark.long]
SOURCE = Path(__file__).with_name("tiny.py").read_text().splitlines()
MUTANTS = 60


def remark(verdict):
    """What `tiny.py` says at the end of the mutated line."""
    return SOURCE[int(verdict.mutation.where.rpartition(":")[2]) - 1].rpartition("# ")[2]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    campaign = Campaign(TINY, MUTANTS, 1, tmp_path_factory.mktemp("mutation"))
    campaign.run(1, 300, 20)
    return campaign


def test_what_the_tests_check_is_killed_and_only_that(campaign):
    verdicts = [verdict for verdict in campaign.verdicts() if not verdict.equivalent]
    assert {(remark(verdict), bool(verdict.killed_by)) for verdict in verdicts} == {
        ("checked", True), ("not checked", False), ("checked too", True), ("redundant", True)}


def test_a_survivor_that_shows_at_an_output_is_told_apart(campaign):
    survivors = [verdict for verdict in campaign.verdicts() if verdict.survives]
    assert survivors
    assert all(verdict.apart for verdict in survivors)


def test_what_changes_nothing_is_shown_equivalent_and_no_test_kills_it(campaign):
    equivalent = [verdict for verdict in campaign.verdicts() if verdict.equivalent]
    assert "redundant" in {remark(verdict) for verdict in equivalent}
    # No bit of the parity is redundant, and no test would object.
    assert "not checked" not in {remark(verdict) for verdict in equivalent}
    # Against the truth: the tests of the rest see every value of both inputs.
    killed = [verdict.mutation.number for verdict in campaign.verdicts() if verdict.killed_by]
    campaign.compare(killed, STEPS, 20)
    assert not [verdict for verdict in campaign.verdicts() if verdict.killed_by and verdict.equivalent]


def test_a_test_fails_only_on_mutants_that_change_its_trace(campaign):
    stand_in = StandIn(Tiny(), model_of((campaign.folder / "mutants.v").read_text()))
    fails, seen = set(), set()
    with installed(stand_in):
        stand_in.start(0, learns=True)
        check_tiny.test_total_and_same(4)
        traces = stand_in.traces()
        for mutant in range(MUTANTS + 1):
            if stand_in.is_seen(mutant, traces):
                seen.add(mutant)
            stand_in.start(mutant)
            try:
                check_tiny.test_total_and_same(4)
            except AssertionError:
                fails.add(mutant)
    parity = {verdict.mutation.number for verdict in campaign.verdicts() if remark(verdict) == "not checked"}
    assert fails <= seen
    assert seen - fails <= parity   # it is an output, and changes
    assert parity & seen
    assert 0 not in seen


def test_reset_of_the_simulation_reaches_the_model(campaign):
    stand_in = StandIn(Tiny(), model_of((campaign.folder / "mutants.v").read_text()))
    m, sync, tiny = Module(), ClockDomain("sync"), Tiny()
    m.domains += sync
    m.submodules.tiny = tiny

    async def bench(ctx):
        ctx.set(tiny.a, 5)
        for reset, total in ((0, 5), (1, 0), (0, 5)):
            ctx.set(sync.rst, reset)
            await ctx.tick()
            assert ctx.get(tiny.total) == total

    with installed(stand_in):
        simulator = amaranth.sim.Simulator(m)
        simulator.add_clock(1e-8)
        simulator.add_testbench(bench)
        simulator.run()
    assert stand_in.edges == 3


def test_a_test_that_waits_for_ever_is_ended(campaign):
    stand_in = StandIn(Tiny(), model_of((campaign.folder / "mutants.v").read_text()))
    stand_in.start(1, limit=100)

    async def bench(ctx):
        while True:
            await ctx.tick()

    with installed(stand_in):
        simulator = amaranth.sim.Simulator(Tiny())
        simulator.add_clock(1e-8)
        simulator.add_testbench(bench)
        with pytest.raises(TestHangs, match="not done after 100 cycles"):
            simulator.run()


def test_campaign_goes_on_where_it_stopped_and_another_sample_begins_anew(campaign, tmp_path):
    assert len(campaign.verdicts()) == len(campaign.mutations) == MUTANTS
    again = Campaign(TINY, MUTANTS, 1, campaign.folder.parent)
    assert again.verdicts() == campaign.verdicts()
    other = Campaign(TINY, 5, 2, tmp_path)
    assert other.verdicts() == []
    assert len(other.mutations) == 5


def test_no_logic_is_drawn_in_a_part_that_is_a_target_of_its_own(tmp_path):
    prepare(Twins(), tmp_path)
    inside = {parts: {part for mutation in sample(tmp_path, TINY.sources, 60, 1, parts) for part in ("first", "second")
                      if re.search(rf"-cell \S*{part}\.", mutation.text)}
              for parts in ((), ("first",), ("second",), ("first", "second"))}
    assert inside == {(): {"first", "second"}, ("first",): {"second"}, ("second",): {"first"},
                      ("first", "second"): set()}


def test_what_is_undecided_or_has_not_run_counts_as_a_survivor():
    mutation = Mutation(1, "-mode inv", "")
    verdicts = [Verdict(mutation, "a test", False, False), Verdict(mutation, "", True, False),
                Verdict(mutation, "", False, False), Verdict(mutation, "", False, True)]
    assert killed_of(verdicts, 0) == 1 / 3
    assert killed_of(verdicts, 7) == 1 / 10
    assert math.isnan(killed_of(verdicts[1:2], 0))


def test_list_of_survivors_speaks_of_lines_that_exist():
    explained()


def test_entry_of_a_line_that_changed_is_refused_by_name(tmp_path):
    listed = tmp_path / "list.toml"
    listed.write_text('[[survivor]]\nfile = "tests/mutation/tiny.py"\ncode = "gone"\nmutants = ["inv"]\nwhy = "x"\n')
    with pytest.raises(ValueError, match="no longer has: 'gone'"):
        explained(listed)


def test_survivor_is_explained_by_the_text_of_its_line(campaign, tmp_path):
    survivors = [verdict.mutation for verdict in campaign.verdicts() if verdict.survives]
    listed = tmp_path / "list.toml"
    listed.write_text("".join(
        f'[[survivor]]\nfile = "tests/mutation/tiny.py"\ncode = {json.dumps(line.strip())}\n'
        'mutants = ["inv"]\nwhy = "nobody looks at it"\n' for line in SOURCE if line.endswith("# not checked")))
    left = unexplained(survivors, listed)
    assert {mutation.kind.split()[0] for mutation in survivors} - {mutation.kind.split()[0] for mutation in left} == {
        "inv"}
