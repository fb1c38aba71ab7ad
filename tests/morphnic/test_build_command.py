"""`morphnic build`: what it refuses, and one component from the command line to the report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateware.board.placer import placer_failing_at

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("arguments", "code", "message"), [
    ((), 1, "--board is missing; known: ecpix5-85, ice40-hx8k-evn, ulx3s-85f"),
    (("--board", "ulx3s"), 1, "there is no board 'ulx3s'; did you mean ulx3s-85f"),
    (("--board", "ulx3s-85f", "--seeds", "0"), 1, "--seeds must be at least 1, not 0"),
    (("--board", "ulx3s-85f", "--limit", "0"), 1, "--limit must be more than 0 minutes, not 0"),
    (("--board", "ulx3s-85f", "--limit", "nan"), 1, "--limit must be more than 0 minutes, not nan"),
    (("--board", "ulx3s-85f", "--jobs", "0"), 1, "--jobs must be at least 1, not 0"),
    (("--board", "ulx3s-85f", "--seed", "-1"), 1, "--seed must be at least 0, not -1"),
    (("--board", "ulx3s-85f", "--uid", "0x10000000000000000"), 1, "--uid must be in 0..2**64-1"),
    (("--board", "ulx3s-85f", "--clock", "0.5"), 1, "--clock: clock_hz must be at least 1000000, not 500000"),
    (("--board", "ulx3s-85f", "--set", "tenants=1"), 1, "tenants must be in 2..64, not 1"),
    (("--board", "ulx3s-85f", "--set", "histograms=2"), 1, "histograms must be False or True, not 2"),
    (("--board", "ulx3s-85f", "--only", "engine"), 1, "there is no component 'engine'; known: device, fabric"),
    (("--board", "ulx3s-85f", "--only", "gateware.no:Thing"), 1, "there is no module 'gateware.no'"),
    (("--board", "ulx3s-85f", "--only", "gateware.config:Thing"), 1, "gateware.config has no 'Thing'"),
    (("--board", "ulx3s-85f", "--only", "gateware.stream.fork:StreamFork"), 1, "cannot be made from the parameters"),
    (("--board", "ulx3s-85f", "--set", "pcie_width=64"), 1, "pcie_width must be 0 on a board, not 64"),
    (("--verilog", "--set", "pcie_width=64"), 1, "pcie_width must be 0 on a board, not 64"),
    (("--pcie", "ultrascale-plus"), 1, "--pcie goes with --verilog, and not with --board"),
    (("--verilog", "--pcie", "ultrascale-plus", "--clock", "200"), 1, "--clock must be 250 MHz"),
    (("--verilog", "--only", "fabric"), 1, "--verilog goes with neither --only nor --timing-may-fail"),
])
def test_wrong_arguments_name_the_argument(typed, tmp_path, arguments, code, message):
    done = typed("build", *arguments, "--output", str(tmp_path / "out"))
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "never used" not in done.stderr  # Amaranth's warning of what was made in vain
    assert not (tmp_path / "out").exists()


def test_missing_tools_name_the_extra(typed, monkeypatch, tmp_path):
    from gateware.board import tools

    monkeypatch.setattr(tools.sysconfig, "get_path", lambda name: str(tmp_path))
    done = typed("build", "--board", "ulx3s-85f", "--only", "counters", variables={"PATH": str(tmp_path)})
    assert done.returncode == 3
    assert "pip install 'morphnic[boards]'" in done.stderr


def test_missing_board_definitions_name_the_extra(home, tmp_path):
    script = ("import sys; sys.modules['amaranth_boards'] = None; sys.modules['amaranth_boards.ulx3s'] = None\n"
              "from morphnic.main import main; sys.exit(main(['build', '--board', 'ulx3s-85f']))")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/bin"},
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert "pip install 'morphnic[boards]'" in done.stderr


def test_failed_tool_is_a_build_error(typed, monkeypatch, tmp_path):
    fails = tmp_path / "yosys"
    fails.write_text("#!/bin/sh\necho 'ERROR: out of luck'\nexit 1\n")
    fails.chmod(0o755)
    done = typed("build", "--board", "ulx3s-85f", "--only", "counters", "--output", str(tmp_path / "out"),
                 variables={"YOSYS": str(fails)})
    assert done.returncode == 2
    assert "cannot synthesise ulx3s-85f counters: ERROR: out of luck" in done.stderr


@pytest.mark.slow
def test_component_is_measured_and_reported(typed, tmp_path):
    """The table and the document of one run; the second call finds everything as it was."""
    arguments = ("build", "--board", "ice40-hx8k-evn", "--only", "gateware.engine.ownership:SlotOwnership",
                 "--set", "tenants=2", "--output", str(tmp_path), "--seed", "3")
    done = typed(*arguments)
    assert done.returncode == 0, done.stderr
    assert "critical path of seed 3:" in done.stdout
    assert "bitstream" not in done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines() if line.startswith(("all", "dut", "harness"))} >= {
        "all", "dut", "harness"}
    document = json.loads(typed(*arguments, "--json").stdout)
    assert (document["kind"], document["target"], document["bitstream"]) == ("build", "ice40-hx8k-evn", None)
    assert [seed["seed"] for seed in document["seeds"]] == [3]
    assert document["config"]["tenants"] == 2
    assert document["config"]["histograms"] is False
    assert document["use"]["harness"]["ff"] > 10
    assert document["fmax_worst_mhz"] == document["seeds"][0]["fmax_mhz"] > 10
    assert f"{document['seeds'][0]['fmax_mhz']:.1f}" in done.stdout


@pytest.mark.slow
def test_seed_that_fails_is_told_beside_the_others(typed, tmp_path):
    done = typed("build", "--board", "ice40-hx8k-evn", "--only", "gateware.engine.ownership:SlotOwnership", "--set",
                 "tenants=2", "--output", str(tmp_path / "out"), "--seeds", "2", "--limit", "30",
                 variables={"NEXTPNR_ICE40": str(placer_failing_at(2, tmp_path))})
    assert done.returncode == 0, done.stderr
    assert "seed 2 FAILED: cannot place and route" in done.stdout
    assert "ERROR: no way left" in done.stdout
    assert "held by every seed that was routed" in done.stdout
