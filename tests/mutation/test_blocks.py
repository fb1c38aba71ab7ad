"""What a campaign mutates: all gateware of a block, but for the files that are named with a reason."""

import subprocess
import sys
from itertools import chain

import pytest

from tests.mutation.blocks import BLOCKS, LEFT_OUT, ROOT
from tests.mutation.campaign import shares

SOURCES = {source for target in chain.from_iterable(BLOCKS.values()) for source in target.sources}


@pytest.mark.parametrize("block", BLOCKS)
def test_each_gateware_file_of_a_block_has_a_target_or_a_reason(block):
    folders = {(ROOT / source).parent for target in BLOCKS[block] for source in target.sources}
    files = {str(path.relative_to(ROOT)) for folder in folders for path in folder.glob("*.py")
             if path.name != "__init__.py"}
    assert not files - SOURCES - LEFT_OUT.keys(), "mutated by no campaign"


def test_each_source_exists_once_in_a_target_and_is_not_left_out():
    targets = list(chain.from_iterable(BLOCKS.values()))
    assert [target.name for target in targets if len(set(target.sources)) != len(target.sources)] == []
    assert [path for path in (*SOURCES, *LEFT_OUT) if not (ROOT / path).is_file()] == []
    assert not SOURCES & LEFT_OUT.keys()
    assert len({target.name for target in targets}) == len(targets), "a target's folder is named after it"


def test_tests_of_each_target_exist():
    assert [test for target in chain.from_iterable(BLOCKS.values()) for test in target.tests
            if not (ROOT / test).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("target", [target.name for target in chain.from_iterable(BLOCKS.values())])
def test_a_test_of_each_target_simulates_it_with_its_parameters(target):
    done = subprocess.run([sys.executable, "-m", "tests.mutation.simulated", target], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, f"none of its tests makes a {target} as tests/mutation/blocks.py does:\n{done.stdout}"


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("count", [50, 200, 997])
def test_sample_of_a_block_is_as_large_as_asked_and_divided_by_lines(block, count):
    targets = BLOCKS[block]
    found, total = shares(targets, count), sum(target.lines for target in targets)
    assert sum(found) == count
    assert all(abs(share - count * target.lines / total) < 1 for share, target in zip(found, targets, strict=True))
