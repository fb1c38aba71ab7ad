"""No DMA leaves the regions that are granted to its tenant: proven for any engine; wrong gates are refuted."""

import pytest
from amaranth import *
from amaranth.lib import wiring

from gateware.pcie.protection import Gate
from tests.formal.gate import REGIONS, GateContract
from tests.formal.prover import check, pass_through, prove

pytestmark = pytest.mark.slow


class WrongGate(wiring.Component):
    """A gate with a fault: it does not hear of changes, or that DMA is off; takes every access for one of the other
    kind, or of generation 0, or of tenant 0; or lets requests out 4 bytes further."""

    def __init__(self, fault):
        self.inner, self.fault = Gate(64, REGIONS), fault
        super().__init__(self.inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self.inner
        pass_through(m, self, inner)
        m.d.comb += {
            "deaf": lambda: inner.table.changed.eq(0),
            "on": lambda: inner.enable.eq(1),
            "kind": lambda: inner.access.payload.write.eq(~self.access.payload.write),
            "generation": lambda: inner.access.payload.generation.eq(0),
            "tenant": lambda: inner.access.payload.tenant.eq(0),
            "address": lambda: inner.requests.payload.header.address.eq(self.requests.payload.header.address - 1),
        }[self.fault]()
        return m


def test_what_leaves_is_granted_at_that_moment(tmp_path):
    verdict = prove(GateContract(Gate(64, REGIONS)), tmp_path, 5)
    assert verdict.holds, verdict.log


@pytest.mark.parametrize("fault", ["deaf", "on", "kind", "generation", "tenant", "address"])
def test_wrong_gate_is_refuted(tmp_path, fault):
    verdict = check(GateContract(WrongGate(fault), invariants=False), tmp_path, 12)
    assert verdict.refuted, verdict.log
