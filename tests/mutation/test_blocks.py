"""What a campaign mutates: all gateware of a block, but for the files that are named with a reason."""

from collections import Counter
from itertools import chain

import pytest

from tests.mutation.blocks import BLOCKS, LEFT_OUT, ROOT

SOURCES = Counter(source for target in chain.from_iterable(BLOCKS.values()) for source in target.sources)


@pytest.mark.parametrize("block", BLOCKS)
def test_each_gateware_file_of_a_block_has_a_target_or_a_reason(block):
    folders = {(ROOT / source).parent for target in BLOCKS[block] for source in target.sources}
    files = {str(path.relative_to(ROOT)) for folder in folders for path in folder.glob("*.py")
             if path.name != "__init__.py"}
    assert not files - SOURCES.keys() - LEFT_OUT.keys(), "mutated by no campaign"


def test_each_source_belongs_to_one_target_and_exists():
    assert max(SOURCES.values()) == 1
    assert [path for path in (*SOURCES, *LEFT_OUT) if not (ROOT / path).is_file()] == []
    assert not SOURCES.keys() & LEFT_OUT.keys()


def test_tests_of_each_target_exist():
    assert [test for target in chain.from_iterable(BLOCKS.values()) for test in target.tests
            if not (ROOT / test).exists()] == []
