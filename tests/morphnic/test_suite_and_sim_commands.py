"""`morphnic test` and `morphnic sim`: what they hand over, and what they refuse before they do."""

import json
from xml.etree import ElementTree

import pytest

from device_link.conformance import CHECKS
from tests.morphnic.test_command_line import one_line


def test_suite_passes_writes_junit_and_is_replayed(typed, stand_in, tmp_path):
    only = ("--only", "identity", "--only", "scratch")
    junit, record = tmp_path / "report.xml", tmp_path / "session.jsonl"
    done = typed("test", "--device", "sim://stand-in", *only, "--junit", str(junit), "--record", str(record))
    assert done.returncode == 0, done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["pass", "pass"]
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("2", "0")
    again = typed("test", "--device", f"replay://{record}", *only, "--json")
    assert again.returncode == 0, again.stdout
    found = json.loads(again.stdout)
    assert (found["schema"], found["kind"], found["passed"]) == ("1.0", "test", True)


def test_failed_check_exits_1_and_says_why(typed, stand_in):
    """The stand-in takes any write: it is no proper device, and the suite must notice."""
    done = typed("test", "--only", "read-only")
    assert done.returncode == 1
    assert done.stdout.startswith("fail")
    assert ": " in done.stdout


def test_checks_are_listed_without_a_device(typed):
    found = json.loads(typed("test", "--list", "--json").stdout)["checks"]
    assert [one["name"] for one in found] == [check.name for check in CHECKS]
    assert CHECKS[0].name in typed("test", "--list").stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (("--only", "nothing"), "there is no check nothing"),
    (("--timeout", "0"), "--timeout must be over 0"),
    (("--junit", "/there/is/no/such/folder/x.xml"), "the folder does not exist"),
])
def test_wrong_arguments_of_the_suite_are_refused(typed, stand_in, arguments, message):
    assert message in one_line(typed("test", *arguments), 1)


def test_suite_is_refused_while_a_manager_holds_the_device(typed, stand_in):
    stand_in.hold()
    assert "stop the manager" in one_line(typed("test", "--only", "identity"), 1)


def test_sim_without_a_subcommand_lists_them(typed):
    done = typed("sim")
    assert done.returncode == 1
    for name in ("run", "repl", "reset", "wave"):
        assert f"  {name} " in done.stderr


@pytest.mark.parametrize(("arguments", "message"), [
    (("--set", "tenants=zwei"), "--set must be PARAMETER=NUMBER"),
    (("--set", "tenants=1"), "tenants must be in 2..64, not 1"),
    (("--pace", "-1"), "--pace must be at least 0"),
    (("--name", "a/b"), "name must be"),
])
def test_simulated_device_with_wrong_options_does_not_start(typed, arguments, message):
    done = typed("sim", "run", *arguments)
    assert done.returncode in (1, 3)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("arguments", "message"), [
    (("x.vcd",), "one of the arguments --start --trigger is required"),
    (("x.vcd", "--start", "-5"), "--start must be at least 0"),
    (("x.vcd", "--start", "5", "--cycles", "0"), "--cycles must be at least 1"),
])
def test_waveform_with_wrong_arguments_is_refused(typed, arguments, message):
    assert message in one_line(typed("sim", "wave", *arguments), 1)


def test_waveform_of_what_is_no_simulation_is_refused(typed, stand_in, tmp_path):
    record = tmp_path / "r.jsonl"
    assert typed("test", "--only", "identity", "--record", str(record)).returncode == 0
    lines = record.read_text().splitlines()
    header = json.loads(lines[0]) | {"capabilities": ["REGISTERS"]}
    record.write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n")
    assert "no waveform to give" in one_line(
        typed("sim", "wave", "x.vcd", "--start", "1", "--device", f"replay://{record}"), 1)
