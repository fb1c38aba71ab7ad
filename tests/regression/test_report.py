"""The regression's reports: what they are made from is read exactly, and nothing that failed can be overlooked."""

import re
import xml.etree.ElementTree as xml

import pytest

from tests.hdl.bench import Case
from tests.hdl.failing_cocotb import FAILING
from tests.hdl.harness import Outcome, TestResult
from tests.regression.__main__ import drawn, main, run_for, write_junit
from tests.regression.lines import by_module, merged, read_points
from tests.regression.report import write_report

PASSED = Outcome("skid", "skid width=8 seed=1", 1, "run skid 1", {"width": 8}, model="m1",
                 tests=(TestResult("moves", 0.1, 700),), seconds=2.5,
                 functional={"g": {"size": {"one": 3, "more": 0}}})
FAILED = Outcome("skid", "skid width=<16> seed=2", 2, "run skid 2", {"width": 16}, model="m2",
                 tests=(TestResult("moves", 0.1, 90, "word 3 & 4 <lost>"),), seconds=1.0, log="the \x1b log",
                 waveforms=("/a/moves.vcd",), notes=("moves ends differently",),
                 functional={"g": {"size": {"one": 1, "more": 0}}})


def point(page, line, what, count):
    return f"C '\x01f\x02top.v\x01l\x02{line}\x01page\x02{page}\x01o\x02{what}\x01h\x02top' {count}"


@pytest.fixture
def counts(tmp_path):
    """A coverage file in Verilator's format."""
    path = tmp_path / "coverage.dat"
    path.write_text("\n".join([
        "# SystemC::Coverage-3", point("v_line/top", 10, "block", 5), point("v_branch/top", 11, "if", 0),
        point("v_branch/top", 11, "else", 5), point("v_toggle/top", 3, "o___05Fvalid:0->1", 2),
        point("v_toggle/top", 3, "o___05Fvalid:1->0", 0), point("v_toggle/top", 4, "word[0]:0->1", 1),
        point("v_toggle/top", 4, "word[0]:1->0", 1), point("v_toggle/top", 5, "__0241:0->1", 0),
        point("v_line/top.part", 20, "block", 0)]) + "\n")
    return path


def test_coverage_file_is_counted_by_module_and_kind(counts):
    modules = by_module(merged([counts, counts]))
    top = modules["top"]
    assert (top.hit["line"], top.total["line"]) == (1, 1)
    assert (top.hit["branch"], top.total["branch"]) == (1, 2)
    assert (top.hit["toggle"], top.total["toggle"]) == (3, 4)
    assert top.missed_signals == ["o__valid"]
    assert top.missed_lines == [11]
    assert modules["top.part"].hit["line"] == 0
    assert merged([counts, counts])["line", "top", "10", "block"] == 10


@pytest.mark.parametrize("text", ["", "something else\n", "# SystemC::Coverage-3\nC 'broken\n"])
def test_file_that_is_no_coverage_file_is_refused(tmp_path, text):
    path = tmp_path / "coverage.dat"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"must begin with|no coverage point"):
        read_points(path)


def test_report_shows_what_failed_with_its_command_and_waveform_and_bins_never_hit(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, [PASSED, FAILED], 4.0)
    text = path.read_text()
    assert "1 failed" in text
    assert "word 3 &amp; 4 &lt;lost&gt;" in text
    assert "run skid 2" in text
    assert "moves ends differently" in text
    assert "moves.vcd" in text
    assert "run skid 1" not in text
    assert '<span class="missed">more</span>' in text
    assert "one: 4" in text
    assert not re.search(r"https?://|<script|<link", text), "the report must be one file"


def test_report_shows_line_and_toggle_coverage_of_each_module(tmp_path, counts):
    from dataclasses import replace

    path = tmp_path / "report.html"
    write_report(path, [replace(PASSED, lines=str(counts))], 1.0)
    text = path.read_text()
    assert "<code>top.part</code>" in text
    assert "<td class=\"number\">3/4</td>" in text
    assert "all passed" in text


def test_junit_names_seed_parameters_and_waveform(tmp_path):
    path = tmp_path / "junit.xml"
    write_junit(path, [PASSED, FAILED], 3.5)
    suite = xml.parse(path).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    good, bad = suite.findall("testcase")
    assert good.find("failure") is None
    properties = {one.get("name"): one.get("value") for one in bad.iter("property")}
    assert properties == {"seed": "2", "parameters": "width=16", "command": "run skid 2", "waveform": "/a/moves.vcd"}
    assert bad.find("failure").get("message") == "word 3 & 4 <lost>"


def test_outcome_survives_its_file(tmp_path):
    FAILED.save(tmp_path / "outcome.json")
    assert Outcome.load(tmp_path / "outcome.json") == FAILED


def test_outcome_without_a_test_has_not_passed():
    assert not Outcome("skid", "skid seed=1", 1, "", {}).passed
    assert PASSED.passed
    assert not FAILED.passed


@pytest.mark.parametrize("arguments", [["--benches", "nothing"], ["--jobs", "0"], ["--minutes", "-1"]])
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_draw_is_repeated_by_its_seed():
    first, second = drawn(5, ["skid", "link"]), drawn(5, ["skid", "link"])
    assert [str(next(first)) for _ in range(20)] == [str(next(second)) for _ in range(20)]


@pytest.mark.slow
def test_random_run_keeps_what_failed_and_ends(tmp_path):
    outcomes = run_for(0.0, 1, [Case(FAILING, {"width": 16}, 3)], iter(()), tmp_path, False)
    assert [outcome.passed for outcome in outcomes] == [False]
    assert list(tmp_path.glob("cases/00000-failing*/fails_on_purpose.vcd"))


@pytest.mark.slow
def test_random_regression_leaves_a_report_and_junit(tmp_path):
    code = main(["--minutes", "0.02", "--benches", "skid", "--jobs", "1", "--seed", "11", "--no-lines", "--folder",
                 str(tmp_path / "random")])
    assert code == 0
    suite = xml.parse(tmp_path / "random" / "junit.xml").getroot()
    assert int(suite.get("tests")) >= 1
    assert "Random regression, seed 11" in (tmp_path / "random" / "report.html").read_text()
    assert not list((tmp_path / "random" / "cases").iterdir()), "what passed is not kept"
