"""The harness itself: what fails is reported, repeated by itself and kept; coverage is read and reported."""

import random
import re
import xml.etree.ElementTree as xml

import pytest

from morphnic.errors import BuildError
from tests.hdl.bench import Case, benches, draw_case, parse_case
from tests.hdl.cover import CoverGroup, merge
from tests.hdl.failing_cocotb import FAILING, MISSING
from tests.hdl.harness import run_case, visible_ports

slow = pytest.mark.slow


@slow
@pytest.mark.slow
def test_failing_test_is_reported_and_run_again_by_itself_with_a_waveform(tmp_path):
    outcome = run_case(Case(FAILING, {"width": 16}, 5), tmp_path / "run")
    assert not outcome.passed
    assert [test.name for test in outcome.tests] == ["fails_on_purpose", "passes", "fails_unless_it_runs_alone"]
    assert [test.name for test in outcome.failed] == ["fails_on_purpose", "fails_unless_it_runs_alone"]
    assert [path.rpartition("/")[2] for path in outcome.waveforms] == [
        "fails_on_purpose.vcd", "fails_unless_it_runs_alone.vcd"]
    assert [note.partition(" ")[0] for note in outcome.notes] == ["fails_unless_it_runs_alone"]
    assert (tmp_path / "run" / "fails_on_purpose.gtkw").exists()
    alone = xml.parse(tmp_path / "run" / "fails_on_purpose" / "results.xml")
    assert [entry.get("name") for entry in alone.iter("testcase")] == ["fails_on_purpose"]
    assert 'python -m pytest tests/hdl --wave --case "failing width=16 seed=5"' in outcome.summary()
    assert "on purpose" in outcome.log


@slow
def test_module_that_does_not_exist_is_a_failure(tmp_path):
    outcome = run_case(Case(MISSING, {"width": 16}, 1), tmp_path / "run")
    assert not outcome.passed
    assert outcome.tests == ()
    assert outcome.error


@slow
def test_component_that_verilator_refuses_is_a_failure_with_its_message(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.hdl.harness.BUILD_ARGS", ["--no-such-flag"])
    outcome = run_case(Case(FAILING, {"width": 16}, 1), tmp_path / "run")
    assert not outcome.passed
    assert "cannot be built" in outcome.error
    assert "no-such-flag" in outcome.error


def test_only_the_ports_of_a_netlist_are_visible():
    verilog = r"""module top(clk, \rx__0 , out);
  wire _00_;
  input clk;
  wire clk;
  input [7:0] \rx__0 ;
  output [3:0] out;
  wire [3:0] out;
  LUT4 cell (.A(_00_));
endmodule
module LUT4(input A, output Z);
  input B;
endmodule
"""
    assert visible_ports(verilog).splitlines() == [
        "`verilator_config", *(f'public_flat_rw -module "top" -var "{port}"' for port in ("clk", "rx__0", "out"))]
    with pytest.raises(BuildError, match="no module top"):
        visible_ports("module other();\nendmodule\n")


def test_every_case_is_repeated_by_its_text():
    for one in benches().values():
        for case in one.matrix():
            assert parse_case(str(case)) == case


def test_matrix_crosses_parameters_with_seeds_and_has_no_case_twice():
    texts = [str(case) for one in benches().values() for case in one.matrix()]
    assert len(set(texts)) == len(texts)
    assert {case.seed for case in benches()["skid"].matrix()} == {1, 2}


@pytest.mark.parametrize(("text", "message"), [
    ("nothing seed=1", "there is no bench 'nothing'"),
    ("skid depth=3", "skid has no parameter depth"),
    ("skid width", "a case must be written as"),
    ("skid width=wide", "width of skid must be of type int, not 'wide'"),
])
def test_wrong_case_is_refused_by_name(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_case(text)


def test_draw_repeats_with_its_seed_and_only_draws_what_the_bench_allows():
    def draw(seed):
        rng, built = random.Random(seed), set()
        return [draw_case(rng, benches(), built) for _ in range(200)]

    cases = draw(7)
    assert [str(case) for case in cases] == [str(case) for case in draw(7)]
    assert [str(case) for case in cases] != [str(case) for case in draw(8)]
    assert {case.bench.name for case in cases} == set(benches())
    for case in cases:
        assert all(value in case.bench.choices[name] for name, value in case.parameters.items())
        assert parse_case(str(case)) == case


def test_draw_seldom_needs_a_new_model():
    rng, built = random.Random(1), set()
    for _ in range(100):
        draw_case(rng, {"skid": benches()["skid"]}, built)
    assert 1 < len(built) <= len(benches()["skid"].model["width"])


def test_cover_group_counts_points_and_crosses_and_merges():
    group = CoverGroup("g", {"size": {"one": range(1, 2), "more": range(2, 9)}, "way": {"in": ["in"], "out": ["out"]}},
                       crosses=[("size", "way")])
    group.sample(size=1, way="in")
    group.sample(size=5, way="in")
    assert group.counts == {"size": {"one": 1, "more": 1}, "way": {"in": 2, "out": 0},
                            "size x way": {"one x in": 1, "one x out": 0, "more x in": 1, "more x out": 0}}
    merged = {}
    merge(merged, {"g": group.counts})
    merge(merged, {"g": group.counts})
    assert merged["g"]["way"] == {"in": 4, "out": 0}
    with pytest.raises(ValueError, match="size of g must be in one of its bins"):
        group.sample(size=9, way="in")
    with pytest.raises(TypeError, match="must have the points size, way"):
        group.sample(size=1)
