"""A crosspoint between admission and reader, and the whole fabric, on their ports: bounded; wrong ones are caught."""

import pytest
from amaranth import *

from gateware.fabric import rows
from gateware.fabric.crosspoint import Crosspoint
from gateware.fabric.fabric import Fabric
from tests.formal.fabric import Crossing, FabricContract, open_row
from tests.formal.prover import Engine, check, pass_through
from tests.formal.wrong_fabric import WrongFabric

DEPTH = 13  # cycles
WHOLE = 11  # cycles of the whole fabric, in which a packet has left under a table that was written


@pytest.fixture
def open_table(monkeypatch):
    """The table that memories begin with grants everybody everything."""
    monkeypatch.setattr(rows, "reset_row", open_row)


class WrongCrosspoint(Crosspoint):
    """Stores a first beat that was not asked for (`eager`), or each at the start of its page (`overwrites`), or reads
    one beat too far (`ahead`)."""

    def __init__(self, config, fault):
        self.config, self.fault = config, fault
        super().__init__(config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Crosspoint(self.config)
        pass_through(m, self, inner)
        if self.fault == "eager":
            m.d.comb += inner.w.put.eq(self.w.put | self.w.first)
        elif self.fault == "overwrites":
            m.d.comb += inner.w.placed.start.eq(0)
        else:
            m.d.comb += inner.r.address.eq(self.r.address + 1)
        return m


class WrongCrossing(Crossing):
    def __init__(self, config, fault):
        self.fault = fault
        super().__init__(config)

    def make_crosspoint(self):
        return WrongCrosspoint(self.config, self.fault)


@pytest.mark.long_proof
@pytest.mark.usefixtures("open_table")
def test_what_leaves_a_crosspoint_was_admitted_once_whole_and_in_order(tmp_path, few_pages):
    contract = FabricContract(Crossing(few_pages), few_pages, inputs=[0], changing=False)
    verdict = check(contract, tmp_path, DEPTH, engine=Engine.ABC)
    assert verdict.holds, verdict.log


@pytest.mark.long_proof
@pytest.mark.usefixtures("open_table")
@pytest.mark.parametrize("fault", ["eager", "overwrites", "ahead"])
def test_wrong_crosspoint_is_refuted(tmp_path, few_pages, fault):
    contract = FabricContract(WrongCrossing(few_pages, fault), few_pages, inputs=[0], changing=False)
    verdict = check(contract, tmp_path, DEPTH, engine=Engine.ABC)
    assert verdict.refuted, verdict.log


@pytest.mark.long_proof
def test_what_leaves_the_fabric_was_admitted_by_its_table_once_whole_and_in_order(tmp_path, few_pages):
    verdict = check(FabricContract(Fabric(few_pages), few_pages), tmp_path, WHOLE, engine=Engine.ABC)
    assert verdict.holds, verdict.log


@pytest.mark.long_proof
@pytest.mark.parametrize("fault", ["generous", "stale", "loses"])
def test_wrong_fabric_is_refuted(tmp_path, few_pages, fault):
    verdict = check(FabricContract(WrongFabric(few_pages, fault), few_pages), tmp_path, WHOLE, engine=Engine.ABC)
    assert verdict.refuted, verdict.log
