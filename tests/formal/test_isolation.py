"""Isolation in the whole fabric, for ever: what leaves was granted the way; wrong fabrics are refuted."""

import pytest

from gateware.fabric.fabric import Fabric
from tests.formal.isolation import PARTS, IsolationContract
from tests.formal.prover import Engine, check, prove
from tests.formal.wrong_fabric import WrongFabric

DEPTH = 10  # cycles in which a packet has been written to a crosspoint


@pytest.mark.long_proof
@pytest.mark.parametrize("part", PARTS)
def test_what_leaves_the_fabric_was_granted_the_way_for_ever(tmp_path, few_pages, part):
    verdict = prove(IsolationContract(Fabric(few_pages), few_pages, part), tmp_path, engine=Engine.ABC)
    assert verdict.holds, verdict.log


@pytest.mark.long_proof
@pytest.mark.parametrize(("part", "fault"), [
    ("headers", "generous"), ("headers", "one_way"), ("headers", "stale"), ("leaves", "crosses"),
    ("words", "mixes"), ("words", "generous")])
def test_fabric_that_takes_a_way_for_granted_is_refuted(tmp_path, few_pages, part, fault):
    contract = IsolationContract(WrongFabric(few_pages, fault), few_pages, part)
    verdict = check(contract, tmp_path, DEPTH, engine=Engine.ABC)
    assert verdict.refuted, verdict.log
