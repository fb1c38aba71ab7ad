"""Isolation in the whole fabric, for ever: what leaves was granted the way; wrong fabrics are refuted."""

import pytest
from amaranth import *

from gateware.config import DeviceConfig
from gateware.fabric.fabric import Fabric
from tests.formal.isolation import PARTS, IsolationContract
from tests.formal.prover import Engine, check, pass_through, prove

DEPTH = 10  # cycles in which a packet has been written to a crosspoint


@pytest.fixture
def few_pages():
    """Two tenants, four pages: fewer than a device may have."""
    config = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32)
    object.__setattr__(config, "pages", 4)
    return config


class WrongFabric(Fabric):
    """Grants every tenant everything (`generous`), or whoever may send to the engines (`one_way`); reads the table of
    the cycle before (`stale`); shows headers at the other output (`crosses`); takes the words of one input for those of
    the other (`mixes`)."""

    def __init__(self, config, fault):
        self.fault = fault
        super().__init__(config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Fabric(self.config)
        pass_through(m, self, inner)
        row, bus = inner.allocation.row, self.allocation
        if self.fault == "generous":
            m.d.comb += row.ports.eq(~0)
        elif self.fault == "one_way":
            m.d.comb += row.ports.eq(Mux(bus.row.ports[self.config.engine_port], ~0, bus.row.ports))
        elif self.fault == "stale":
            late = Signal.like(bus.active_bank)
            m.d.sync += late.eq(bus.active_bank)
            m.d.comb += inner.allocation.active_bank.eq(late)
        elif self.fault == "mixes":
            m.d.comb += [mine.data.payload.eq(other.data.payload)
                         for mine, other in zip(inner.inputs, reversed(self.inputs), strict=True)]
        else:
            m.d.comb += [mine.header.payload.eq(other.header.payload)
                         for mine, other in zip(self.outputs, reversed(inner.outputs), strict=True)]
        return m


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
