"""`morphnic regs diff` and `watch`, typed by a user."""

import json

import pytest

from tests.morphnic.standin import StandIn
from tests.morphnic.test_command_line import one_line


@pytest.fixture
def other(home):
    device = StandIn("other")
    yield device
    device.finish()


@pytest.fixture
def before(typed, stand_in, home):
    """A dump of the stand-in."""
    path = home / "before.json"
    path.write_text(typed("regs", "dump", "--device", "sim://stand-in", "--json").stdout)
    return str(path)


def test_devices_that_hold_the_same_are_told_by_exit_code_and_silence(typed, stand_in, other):
    done = typed("regs", "diff", "sim://stand-in", "sim://other")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_register_that_differs_is_shown_with_its_fields(typed, stand_in, other, before):
    other.registers.set("rm.active", 0x204)
    stand_in.registers.set("rm.active", 0x203)
    done = typed("regs", "diff", "sim://stand-in", "other")
    assert done.returncode == 1
    assert done.stdout == "rm.active: 0x203 -> 0x204  (epoch 3 -> 4)\n"
    found = json.loads(typed("regs", "diff", "other", before, "--json").stdout)
    assert [one["name"] for one in found["different"]] == ["rm.active"]
    assert (found["left"], found["different"][0]["left"]["value"], found["different"][0]["right"]["value"]) == (
        "other", 0x204, 3)
    assert found["compared"] == len(stand_in.registers.words)


def test_only_the_blocks_named_are_compared_and_ignored_ones_left_out(typed, stand_in, other):
    for name in ("rm.active", "staging[3].weight", "staging[4].weight", "id.scratch"):
        other.registers.set(name, 0x77)

    def different(*arguments):
        found = json.loads(typed("regs", "diff", "stand-in", "sim://other", *arguments, "--json").stdout)
        return [one["name"] for one in found["different"]]

    assert different() == ["id.scratch", "rm.active", "staging[3].weight", "staging[4].weight"]
    assert different("staging[3]", "rm") == ["staging[3].weight", "rm.active"]
    assert different("--ignore", "staging", "--ignore", "rm.active") == ["id.scratch"]


def test_register_that_one_side_refuses_or_lacks_differs(typed, stand_in, other, before, home):
    del other.registers.words[other.registers.map.register("staging[1].weight").address]
    assert typed("regs", "diff", before, "sim://other").stdout == "staging[1].weight: 0x0 -> refused\n"
    document = json.loads((home / "before.json").read_text())
    document["registers"] = [one for one in document["registers"] if one["name"] != "rm.active"]
    (home / "less.json").write_text(json.dumps(document))
    assert typed("regs", "diff", before, str(home / "less.json")).stdout == "rm.active: 0x3 -> absent\n"


@pytest.mark.parametrize(("arguments", "message"), [
    (("stand-in",), "name two devices, or files of"),
    (("stand-in", "stand-in", "rmm"), "did you mean rm"),
    (("stand-in", "stand-in", "--ignore", "rm.actve"), "did you mean active"),
    (("stand-in", "README.md"), "README.md is no dump of registers"),
    (("stand-in", "nowhere"), "no device is called 'nowhere'"),
])
def test_comparison_that_cannot_be_made_is_refused(typed, stand_in, arguments, message):
    assert message in one_line(typed("regs", "diff", *arguments), 1)


def change_while_watched(stand_in, name, values):
    """Give `name` the next of `values` each time the device's time is read."""
    left = list(values)
    low = stand_in.registers.map.register("id.cycle_lo").address

    def on_read(address):
        if address == low and left:
            stand_in.registers.set(name, left.pop(0))

    stand_in.registers.on_read = on_read


def test_watch_shows_each_change_once_with_the_devices_time(typed, stand_in):
    change_while_watched(stand_in, "rm.active", [0x203, 0x203, 0x204, 0x204, 0x304, 0x305])
    done = typed("regs", "watch", "rm.active.epoch", "rm.active", "--changes", "4", "--every", "0", "--json")
    assert done.returncode == 0, done.stderr
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["name"], one["value"]) for one in seen] == [
        ("rm.active.epoch", 3), ("rm.active", 0x203), ("rm.active.epoch", 4), ("rm.active", 0x204),
        ("rm.active", 0x304), ("rm.active.epoch", 5)]
    assert {one["cycle"] for one in seen} == {5000}


def test_watch_takes_whole_blocks(typed, stand_in):
    change_while_watched(stand_in, "port[1].dropped", [0, 0, 9])
    done = typed("regs", "watch", "port", "--changes", "1", "--every", "0")
    lines = done.stdout.splitlines()
    assert len(lines) == 4 * 4 + 1
    assert lines[-1].split()[2:4] == ["port[1].dropped", "0x9"]


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "name at least one register"),
    (("rm.actve",), "did you mean active"),
    (("rmm",), "did you mean rm"),
    (("0x1001",), "must be a multiple of 4"),
    (("rm.active", "--every", "-1"), "--every must be at least 0"),
    (("rm.active", "--changes", "0"), "--changes must be at least 1"),
])
def test_watch_with_wrong_arguments_opens_no_device(typed, arguments, message):
    assert message in one_line(typed("regs", "watch", *arguments, "--device", "sim://does-not-exist"), 1)
