"""Nothing leaves the endpoint beside its gates, and who asks is the owner; designs that do otherwise are refuted."""

from unittest import mock

import pytest
from amaranth import *
from amaranth.lib import wiring

from gateware.pcie.endpoint import Endpoint
from gateware.pcie.queue_engine import QueueEngine
from tests.formal.dma import ClosedContract, OwnerContract
from tests.formal.prover import Engine, check, pass_through, prove

pytestmark = pytest.mark.slow

#: Cycles to the command of a payload: the ring is read, its descriptor is judged; and two more.
DEPTH = 17


def endpoint():
    """One tenant, one vector, two tags of 128 bytes."""
    return Endpoint(64, 1, 1, 2, 128)


class Bypass(wiring.Component):
    """An endpoint that puts out more than its mux does: as soon as there are data to be written, they are valid."""

    def __init__(self):
        self._inner = endpoint()
        super().__init__(self._inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self._inner
        pass_through(m, self, inner)
        m.d.comb += self.requests.valid.eq(inner.requests.valid | self.dma.write_data.valid)
        return m


class WrongEngine(wiring.Component):
    """An engine with a fault: it looks at the other tenant's row, or gives all commands to tenant 0."""

    def __init__(self, fault, *neighbours):
        self._inner, self._fault = QueueEngine(*neighbours), fault
        super().__init__(self._inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self._inner
        pass_through(m, self, inner)
        m.d.comb += {
            "row": lambda: self.table.tenant.eq(~inner.table.tenant[0]),
            "tenant": lambda: self.dma.read_commands.payload.tenant.eq(0),
        }[self._fault]()
        return m


def test_nothing_leaves_an_endpoint_but_what_a_gate_passed_and_interrupts(tmp_path):
    verdict = prove(ClosedContract(endpoint), tmp_path, engine=Engine.ABC)
    assert verdict.holds, verdict.log


@pytest.mark.parametrize(("make", "opened"), [(endpoint, True), (Bypass, False)], ids=["opened", "bypass"])
def test_endpoint_that_sends_beside_its_gates_is_refuted(tmp_path, make, opened):
    verdict = check(ClosedContract(make, opened), tmp_path, 5)
    assert verdict.refuted, verdict.log


@pytest.mark.long_proof
def test_dma_command_of_a_host_queue_names_the_owner_of_the_ring(tmp_path):
    verdict = check(OwnerContract(), tmp_path, DEPTH, large=True)
    assert verdict.holds, verdict.log


@pytest.mark.parametrize("fault", ["row", "tenant"])
def test_queue_engine_that_takes_another_row_or_tenant_is_refuted(tmp_path, fault):
    verdict = check(OwnerContract(lambda *neighbours: WrongEngine(fault, *neighbours)), tmp_path, 12, large=True)
    assert verdict.refuted, verdict.log


@pytest.mark.long_proof
def test_queue_engine_that_looks_at_another_ones_descriptor_is_refuted(tmp_path):
    """That its command is reached within the depth of the proof is what this shows, too."""
    with mock.patch("gateware.pcie.queue_writes.row", lambda tenant, place: Cat(place[:5], ~tenant[0], tenant[1:])):
        verdict = check(OwnerContract(), tmp_path, DEPTH, large=True)
    assert verdict.refuted, verdict.log
