"""Admission at one input and the count of what waits behind it: by induction; wrong ones are caught."""

import pytest
from amaranth import *
from amaranth.lib import wiring

from gateware.config import DeviceConfig
from gateware.fabric.admission import Admission
from gateware.fabric.decision import Decision
from gateware.fabric.place import PAGE_DESCRIPTORS
from gateware.fabric.waiting import Waiting
from gateware.stream.packet import FlowClass
from tests.formal.admission import AdmissionContract, WaitingContract
from tests.formal.prover import check, pass_through, prove

pytestmark = pytest.mark.slow

SMALL = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32)
LOOKUP = 4  # cycles from a table to the judgement, and one more
HOST, ENGINES = SMALL.host_port, SMALL.engine_port
NETWORK = DeviceConfig(ports=3, data_width=32, tenants=3, slots=1, pages=32)


class WrongAdmission(wiring.Component):
    """An admission that is told another table (`generous`), or is told late (`stale`), or writes a packet's later beats
    elsewhere (`strays`), or beats of a packet that it drops (`keeps`), stamps answers anew (`restamps`), or ends a
    packet where the source does (`trusts`)."""

    def __init__(self, config, port, fault):
        self.inner, self.fault = Admission(config, port), fault
        super().__init__(self.inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self.inner
        pass_through(m, self, inner)
        if self.fault == "generous":
            m.d.comb += inner.allocation.row.ports.eq(0xFFFF)
        elif self.fault == "stale":
            for name in ("active_bank", "epoch"):
                late = Signal.like(getattr(self.allocation, name))
                m.d.sync += late.eq(getattr(self.allocation, name))
                m.d.comb += getattr(inner.allocation, name).eq(late)
        elif self.fault == "strays":
            first, second = inner.crosspoints[:2]
            with m.If(~first.first):
                m.d.comb += [self.crosspoints[0].write.eq(second.write), self.crosspoints[1].write.eq(first.write)]
        elif self.fault == "trusts":
            for mine, its in zip(self.crosspoints, inner.crosspoints, strict=True):
                m.d.comb += mine.end.eq(its.end | inner.packets.data.payload.last)
        elif self.fault == "restamps":
            m.d.comb += self.ingress.header.epoch.eq(self.allocation.epoch)
        else:
            m.d.comb += self.crosspoints[0].write.eq(inner.crosspoints[0].put)
        return m


@pytest.mark.parametrize("port", [HOST, ENGINES])
def test_admitted_packets_are_granted_by_their_epoch_and_written_there_only(tmp_path, port):
    verdict = prove(AdmissionContract(Admission(SMALL, port), SMALL, port, invariant=True), tmp_path, LOOKUP)
    assert verdict.holds, verdict.log


@pytest.mark.long_proof
@pytest.mark.parametrize("port", [0, 1, 2])
def test_admission_of_any_kind_of_port_grants_only_by_its_epoch(tmp_path, port):
    verdict = prove(AdmissionContract(Admission(NETWORK, port), NETWORK, port, invariant=True), tmp_path, LOOKUP)
    assert verdict.holds, verdict.log


@pytest.mark.parametrize(("port", "fault"), [
    (HOST, "generous"), (HOST, "stale"), (HOST, "strays"), (HOST, "keeps"), (HOST, "trusts"),
    (ENGINES, "generous"), (ENGINES, "restamps")])
def test_wrong_admission_is_refuted(tmp_path, port, fault):
    verdict = check(AdmissionContract(WrongAdmission(SMALL, port, fault), SMALL, port), tmp_path, 8)
    assert verdict.refuted, verdict.log


def believes_anybody(self, header):
    """Takes what any port calls an answer for one."""
    return header.flow_class == FlowClass.RESPONSE


def sees_one_way(self, row, here):
    """Does not look at the way back from the engines."""
    return row.admits & (row.ports & here).any()


@pytest.mark.parametrize(("method", "wrong"), [("_is_answer", believes_anybody), ("_is_granted", sees_one_way)])
def test_admission_that_takes_requests_for_granted_is_refuted(tmp_path, monkeypatch, method, wrong):
    monkeypatch.setattr(Decision, method, wrong)
    verdict = check(AdmissionContract(Admission(SMALL, HOST), SMALL, HOST), tmp_path, 8)
    assert verdict.refuted, verdict.log


class WrongWaiting(Waiting):
    """Does not see an arrival in the cycle of a claim of the same tenant, or says of one that it has several."""

    def __init__(self, config, fault):
        self.config, self.fault = config, fault
        super().__init__(config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Waiting(self.config)
        pass_through(m, self, inner)
        if self.fault == "misses":
            m.d.comb += inner.arrive.eq(self.arrive & ~(self.claim & (self.claimed == self.arrived)))
        else:
            m.d.comb += self.several.eq(inner.several | inner.ready)
        return m


CAPACITY = SMALL.pages * PAGE_DESCRIPTORS


def test_as_many_packets_wait_as_arrived_and_were_not_claimed(tmp_path):
    verdict = prove(WaitingContract(Waiting(SMALL), SMALL, CAPACITY), tmp_path)
    assert verdict.holds, verdict.log


@pytest.mark.parametrize("fault", ["misses", "exaggerates"])
def test_wrong_count_of_what_waits_is_refuted(tmp_path, fault):
    verdict = check(WaitingContract(WrongWaiting(SMALL, fault), SMALL, CAPACITY, "inner."), tmp_path, 6)
    assert verdict.refuted, verdict.log
