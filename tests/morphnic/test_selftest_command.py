"""`morphnic selftest`, typed by a user."""

import json
from xml.etree import ElementTree

import pytest

from device_link.selftest import SELFTESTS
from tests.morphnic.test_command_line import one_line

ONLY = ("--only", "identity", "--only", "scratch", "--only", "losses")


def test_results_are_shown_and_a_warning_exits_0(typed, stand_in, home):
    stand_in.registers.set("port[1].cut", 2)
    done = typed("selftest", *ONLY, "--junit", str(home / "x.xml"))
    assert done.returncode == 0, done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["pass", "pass", "warn"]
    assert "port[1].cut 2" in done.stdout
    assert "2 pass, 1 warn, 0 fail, 0 skip" in done.stderr
    suite = ElementTree.parse(home / "x.xml").getroot().find("testsuite")
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("morphnic self-test", "3", "0")
    assert "port[1].cut 2" in suite.find(".//system-out").text


def test_failure_exits_1(typed, stand_in):
    done = typed("selftest", "--only", "slots", "--json")
    assert json.loads(done.stdout)["results"][0]["outcome"] == "skip"
    assert done.returncode == 0
    stand_in.registers.set("slot[0].status", 4)
    done = typed("selftest", "--only", "slots", "--json")
    assert json.loads(done.stdout)["results"][0]["outcome"] == "fail"
    assert done.returncode == 1


def test_device_in_use_can_be_looked_at_for_reading(typed, stand_in):
    stand_in.hold()
    assert "or `morphnic selftest --read-only`" in one_line(typed("selftest", *ONLY), 1)
    done = typed("selftest", *ONLY, "--read-only")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["pass", "skip", "pass"]


def test_tests_are_listed_without_a_device(typed):
    assert [one["name"] for one in json.loads(typed("selftest", "--list", "--json").stdout)["tests"]] == [
        one.name for one in SELFTESTS]
    assert "losses" in typed("selftest", "--list").stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (("--only", "nothing"), "there is no self-test nothing"), (("--timeout", "0"), "--timeout must be over 0"),
    (("--junit", "/there/is/no/such/folder/x.xml"), "the folder does not exist"),
])
def test_wrong_arguments_are_refused(typed, stand_in, arguments, message):
    assert message in one_line(typed("selftest", *arguments), 1)
