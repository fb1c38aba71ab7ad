"""Every board file: short, consistent with Amaranth's description of the board, and behind a top that elaborates."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateware.board.board import Board, Cable, board_names, find_board
from gateware.board.flow import board_design, build_id_of
from gateware.config import DeviceConfig
from morphnic.errors import InputError
from tests.gateware.board.tiny import TinyCore

FOLDER = Path(__file__).parents[3] / "gateware" / "board" / "boards"
RULES = Path(__file__).parents[3] / "deploy" / "udev" / "71-morphnic-cables.rules"


def tiny(config):
    return TinyCore()


def test_the_boards_of_the_issue_are_there():
    assert {"ulx3s-85f", "ecpix5-85", "ice40-hx8k-evn"} <= set(board_names())


@pytest.mark.parametrize("name", board_names())
def test_board_file_is_short_and_documented(name):
    text = (FOLDER / f"{name.replace('-', '_')}.py").read_text()
    assert len(text.splitlines()) <= 100
    assert text.startswith('"""')


@pytest.mark.parametrize("name", board_names())
def test_board_has_its_pins_its_clock_and_a_name(name):
    board = find_board(name)
    assert board.name == name
    design = board_design(board, make_core=tiny)
    assert f"{design.clock_hz:.1f}" in design.constraints.replace(f"{design.clock_hz / 1e6}", f"{design.clock_hz:.1f}")
    assert "device_clock" in design.constraints
    assert board.config.clock_hz <= design.clock_hz <= 1.03 * board.config.clock_hz
    platform = board.make_platform()
    part = {"ecp5": f"--speed {platform.speed}" if board.family == "ecp5" else "", "ice40": "--hx8k"}[board.family]
    assert part in " ".join(board.nextpnr)
    assert len(board.leds) == 3


@pytest.mark.parametrize("name", board_names())
def test_device_has_a_reset_only_where_its_clock_cannot_be_gated(name):
    board = find_board(name)
    text = board_design(board, make_core=tiny).rtlil
    assert ("\\rst\n" in text, "cell \\DCCA" in text) == {"ecp5": (False, True), "ice40": (True, False)}[board.family]


@pytest.mark.parametrize("name", board_names())
def test_rule_opens_the_cable(name):
    vendor, product = find_board(name).cable.usb
    rule = [line for line in RULES.read_text().splitlines() if line.startswith("ATTR{idVendor}")]
    assert any(f'"{vendor:04x}"' in line and f"{product:04x}" in line and "uaccess" in line for line in rule)


def test_unknown_board_names_the_nearest():
    with pytest.raises(InputError, match="there is no board 'ulx3s-86f'; did you mean ulx3s-85f"):
        find_board("ulx3s-86f")
    with pytest.raises(InputError, match="known: ecpix5-85"):
        find_board("zzz")


@pytest.mark.parametrize(("change", "message"), [
    ({"family": "gowin"}, "family must be 'ecp5' or 'ice40', not 'gowin'"),
    ({"idcode": 0}, r"idcode must be in 1..2\*\*32-1 or None, not 0"),
    ({"leds": (("led", 0, None),) * 4}, "leds must be at most heartbeat, link and epoch"),
])
def test_board_that_cannot_be_is_refused(change, message):
    facts = {"title": "", "platform": "", "family": "ecp5", "nextpnr": (), "config": DeviceConfig(),
             "cable": Cable((1, 2), "", ()), "idcode": None}
    with pytest.raises(ValueError, match=message):
        Board(**facts | change)


def test_build_id_follows_parameters_and_files_but_not_the_time(monkeypatch, tmp_path):
    board = find_board("ulx3s-85f")
    assert build_id_of(repr(board)) == build_id_of(repr(board))
    assert build_id_of(repr(board)) != build_id_of(repr(replace(board, config=DeviceConfig(tenants=8))))
    (tmp_path / "gateware").mkdir()
    file = tmp_path / "gateware" / "device.py"
    monkeypatch.setattr("gateware.board.flow.ROOT", tmp_path)
    ids = []
    for text in ("one", "two", "one"):
        file.write_text(text)
        ids.append(build_id_of("x"))
    assert ids[0] == ids[2] != ids[1]
