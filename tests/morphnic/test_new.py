"""`morphnic new block`: what it writes passes as it is; what it cannot do it refuses, and leaves nothing behind."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from morphnic.commands.new import MAP

ROOT = Path(__file__).parents[2]
COPIED = ["rtl", "gateware", "device_link", "morphnic", "sim", "tests", "docs", "pyproject.toml"]


@pytest.fixture
def tree(tmp_path):
    """A copy of the source tree to write into."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def in_tree(tree):
    """Run `python -m ARGUMENTS` in the copy, with the packages of the copy."""
    def run(*arguments):
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COCOTB"))}
        return subprocess.run([sys.executable, "-m", *arguments], cwd=tree, capture_output=True, text=True, timeout=500,
                              env=environment, check=False)
    return run


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"}


def error(done, code):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.slow
def test_new_block_has_registers_in_the_map_and_everything_derived_from_it(tree, in_tree):
    done = in_tree("morphnic", "new", "block", "rate_meter", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["kind"] == "new-block"
    assert all((tree / path).is_file() for path in document["files"])
    assert in_tree("rtl.registers.generate", "--check").returncode == 0
    blocks = json.loads((tree / "rtl/registers/regmap.json").read_text())["blocks"]
    (mine,) = [block for block in blocks if block["name"] == "rate_meter"]
    assert mine["address"] == document["address"]
    assert [register["name"] for register in mine["registers"]] == ["offset", "control", "words", "status"]
    for block in blocks:
        if block is not mine:
            assert not mine["address"] <= block["address"] < mine["address"] + 0x400


@pytest.mark.slow
def test_second_block_gets_a_place_of_its_own(tree, in_tree):
    addresses = [json.loads(in_tree("morphnic", "new", "block", name, "--json").stdout)["address"]
                 for name in ("one_block", "other_block")]
    assert addresses[1] >= addresses[0] + 0x400
    assert in_tree("rtl.registers.generate", "--check").returncode == 0


@pytest.mark.slow
def test_test_and_contract_of_a_new_block_pass_as_they_are_and_leave_a_waveform(tree, in_tree):
    assert in_tree("morphnic", "new", "block", "rate_meter").returncode == 0
    proof = in_tree("pytest", "-q", "tests/formal/test_rate_meter.py")
    assert proof.returncode == 0, proof.stdout
    assert "3 passed" in proof.stdout
    test = in_tree("pytest", "-q", "tests/hdl/test_benches.py", "--wave", "--case", "rate_meter")
    assert test.returncode == 0, test.stdout
    saves = {path.stem: path.read_text() for path in tree.glob("build/regression/cases/rate_meter*/*.gtkw")}
    assert set(saves) == {"every_word_comes_out_in_order_with_the_offset_added", "words_are_counted_until_cleared"}
    for text in saves.values():
        (names,) = set(re.findall(r"^\^\d+ (.*State\.enum)$", text, re.M))
        assert Path(names).read_text().split() == ["0", "EMPTY", "1", "FULL"]


@pytest.mark.slow
def test_generated_files_are_clean_for_the_linter(tree, in_tree):
    assert in_tree("morphnic", "new", "block", "a_block_with_quite_a_long_name").returncode == 0
    done = in_tree("ruff", "check", "gateware", "tests/hdl", "tests/formal")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x", "Rate", "9lives", "rate-meter", "../up", "class", "module", "state", "a" * 32])
def test_bad_name_is_refused(in_tree, tree, name):
    before = files(tree)
    assert "the name of a block must be" in error(in_tree("morphnic", "new", "block", name), 1)
    assert files(tree) == before


@pytest.mark.slow
@pytest.mark.parametrize(("name", "what"), [("fabric", "gateware/fabric"), ("identity", "gateware/identity.py"),
                                            ("skid", "tests/hdl/skid_cocotb.py"), ("generator", "'generator'")])
def test_name_that_exists_is_refused(in_tree, tree, name, what):
    before = files(tree)
    message = error(in_tree("morphnic", "new", "block", name), 1)
    assert what in message
    assert "already" in message
    assert files(tree) == before


def test_name_that_the_register_map_cannot_take_leaves_nothing_behind(in_tree, tree):
    before = files(tree)
    message = error(in_tree("morphnic", "new", "block", "regfile"), 2)
    assert "nothing was written" in message
    assert files(tree) == before


def test_outside_a_source_tree_is_refused_with_the_remedy(typed, tmp_path):
    done = typed("new", "block", "rate_meter", "--tree", str(tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path} is in no Morphnic source tree" in done.stderr
    assert "--tree" in done.stderr


@pytest.mark.slow
def test_tree_above_the_current_folder_is_found(tree, in_tree):
    done = in_tree("morphnic", "new", "block", "rate_meter", "--tree", str(tree / "docs" / "guides"))
    assert done.returncode == 0, done.stderr
    assert (tree / MAP).read_text().count("rate_meter_block rate_meter @") == 1
