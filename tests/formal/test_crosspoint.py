"""A crosspoint and its reader, where packets are laid down, and the lists: proven. Wrong ones are refuted."""

import pytest
from amaranth import *

from gateware.config import DeviceConfig
from gateware.fabric.account import Account
from gateware.fabric.chain import Chain
from gateware.fabric.decision import Decision
from tests.formal.crosspoint import CrosspointContract, Lane
from tests.formal.lists import STEPS
from tests.formal.pages import PagesContract
from tests.formal.placement import PlacementContract
from tests.formal.prover import Engine, check, pass_through, prove

SMALL = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1, pages=32)
DEPTH = 11  # cycles in which a second packet of a queue has left


class WrongLane(Lane):
    """A crosspoint that is told, or that tells the reader, something else.

    It stores each packet at the start of its page (`overwrites`), takes what is stored on trial for admitted
    (`counts`), or reads a beat too far (`ahead`).
    """

    def __init__(self, config, fault):
        self.fault = fault
        super().__init__(config)

    def elaborate(self, platform):
        m = super().elaborate(platform)
        w, r, read = self.crosspoint.w, self.crosspoint.r, self.reader.crosspoints[self.SOURCE]
        m.d.comb += {
            "overwrites": w.placed.start.eq(0), "counts": w.write.eq(self.w.put),
            "ahead": r.address.eq(read.address + 1),
        }[self.fault]
        return m


@pytest.mark.long_proof
@pytest.mark.parametrize("step", STEPS)
def test_what_leaves_a_crosspoint_was_admitted_once_whole_and_in_order_for_ever(tmp_path, few_pages, step):
    verdict = prove(CrosspointContract(Lane(few_pages), invariant=True, part=step), tmp_path, depth=1, large=True)
    assert verdict.holds, verdict.log


@pytest.mark.long_proof
@pytest.mark.parametrize("fault", ["overwrites", "counts", "ahead"])
def test_crosspoint_that_stores_or_reads_elsewhere_is_refuted(tmp_path, few_pages, fault):
    verdict = check(CrosspointContract(WrongLane(few_pages, fault)), tmp_path, DEPTH, large=True)
    assert verdict.refuted, verdict.log


class LateAccount(Account):
    """Shows the end of a queue that it closes in that very cycle."""

    def _answer(self, m):
        super()._answer(m)
        _, _, is_open = self._look(m, self.booking.ask)
        m.d.sync += self.booking.place.open.eq(is_open)


class HastyAccount(Account):
    """Closes a queue although somebody books who was told before that it is open."""

    def _book(self, m):
        super()._book(m)
        m.d.comb += self.booking.hold.eq(self.pool.hold)


class ForgetfulDecision(Decision):
    """Does not count the packet that it admits while it looks up the next one."""

    def _find_before(self, m, here):
        _, succeeds = super()._find_before(m, here)
        return C(0), succeeds


class ShortDecision(Decision):
    """Does not count the packet that it admitted while what the crosspoint knows was read."""

    def _find_before(self, m, here):
        follows, _ = super()._find_before(m, here)
        return follows, C(0)


class EagerDecision(Decision):
    """Counts a packet that it looked up before and did not admit."""

    def _find_before(self, m, here):
        _, succeeds = super()._find_before(m, here)
        return self.valid & self.read.follows & (here & self.known.here).any(), succeeds


@pytest.mark.slow
@pytest.mark.parametrize("port", [SMALL.host_port, SMALL.engine_port])
def test_packets_are_laid_down_behind_the_end_of_their_queue(tmp_path, port):
    decision = Decision(SMALL, port, drops_without_pages=False)
    verdict = prove(PlacementContract(decision, Account(SMALL), SMALL, invariant=True), tmp_path)
    assert verdict.holds, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize(("decision", "account"), [
    (Decision, LateAccount), (Decision, HastyAccount), (ForgetfulDecision, Account), (ShortDecision, Account),
    (EagerDecision, Account)])
def test_packet_that_is_laid_down_elsewhere_is_refuted(tmp_path, decision, account):
    wrong = decision(SMALL, SMALL.host_port, drops_without_pages=False), account(SMALL)
    verdict = check(PlacementContract(*wrong, SMALL), tmp_path, 8)
    assert verdict.refuted, verdict.log


class WrongChain(Chain):
    """A list that gets back another page than comes home (`swaps`), forgets one (`forgets`), keeps a page for each beat
    that is put, if it counts or not (`eager`), keeps the place of a first beat only if it does not count (`strays`),
    or lets a packet go on where the next page should begin (`runs`)."""

    def __init__(self, config, fault):
        self.config, self.fault = config, fault
        super().__init__(config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Chain(self.config)
        pass_through(m, self, inner)
        if self.fault == "swaps":
            m.d.comb += inner.home_page.eq(self.home_page ^ 1)
        elif self.fault == "forgets":
            m.d.comb += inner.home.eq(self.home & ~self.w.write)
        elif self.fault == "eager":
            m.d.comb += inner.w.write.eq(self.w.put)
        elif self.fault == "strays":
            m.d.comb += inner.w.put.eq(self.w.put & ~self.w.write)
        else:
            m.d.comb += inner.w.placed.shares.eq(self.w.placed.open)
        return m


@pytest.mark.slow
def test_beat_goes_where_nobody_elses_is(tmp_path, few_pages):
    verdict = prove(PagesContract(Chain(few_pages), few_pages), tmp_path, engine=Engine.ABC)
    assert verdict.holds, verdict.log


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["swaps", "forgets", "eager", "strays", "runs"])
def test_chain_that_gives_a_page_twice_or_loses_it_is_refuted(tmp_path, few_pages, fault):
    verdict = prove(PagesContract(WrongChain(few_pages, fault), few_pages), tmp_path, engine=Engine.ABC)
    assert verdict.refuted, verdict.log
