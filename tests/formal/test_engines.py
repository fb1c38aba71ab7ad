"""Every request to the engines has one response, its own: by induction, part by part. Wrong parts are refuted."""

import pytest
from amaranth import *
from amaranth.lib import wiring

from gateware.config import DeviceConfig
from gateware.engine.collector import ResponseCollector
from gateware.engine.crc32c import Crc32cShard
from gateware.engine.dispatcher import Dispatcher
from gateware.engine.refuser import Refuser
from gateware.engine.shard import Status
from gateware.engine.slot import EngineSlot
from tests.formal.answers import PARTS, CollectorContract
from tests.formal.prover import check, pass_through, prove
from tests.formal.slots import DispatcherContract, ShardContract, SlotContract

pytestmark = pytest.mark.slow

SMALL = DeviceConfig(ports=2, data_width=32, tenants=2, slots=1)
SHARDS = [Crc32cShard, Refuser]


class Wrong(wiring.Component):
    """`inner`, of which `tamper(m, outer, inner)` changes some ports."""

    def __init__(self, inner, tamper):
        self.inner, self.tamper = inner, tamper
        super().__init__(inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = self.inner
        pass_through(m, self, self.inner)
        self.tamper(m, self, self.inner)
        return m


@pytest.mark.long_proof
@pytest.mark.parametrize("tenant", [0, 1])
@pytest.mark.parametrize("part", PARTS)
def test_collector_gives_every_request_its_own_answer_once_and_in_order(tmp_path, tenant, part):
    verdict = prove(CollectorContract(ResponseCollector(SMALL, 2), SMALL, tenant, part), tmp_path, depth=1)
    assert verdict.holds, verdict.log


class EagerCollector(ResponseCollector):
    """Takes places that were never used for answered: no turn differs from the first."""

    def _memory(self, m, name, shape, init=()):
        return super()._memory(m, name, shape)


def give_to_another(m, outer, inner):
    m.d.comb += outer.responses.header.payload.tenant.eq(~inner.responses.header.payload.tenant[0])


def keep_the_ticket_before(m, outer, inner):
    before = Signal(inner.ticket.shape())
    m.d.sync += before.eq(outer.ticket)
    m.d.comb += inner.ticket.eq(before)


def take_for_the_next(m, outer, inner):
    for source in range(len(outer.answers)):
        m.d.comb += inner.answers[source].payload.tag.eq(outer.answers[source].payload.tag ^ 1)


@pytest.mark.parametrize("tamper", [give_to_another, keep_the_ticket_before, take_for_the_next])
def test_collector_that_mixes_answers_is_refuted(tmp_path, tamper):
    verdict = check(CollectorContract(Wrong(ResponseCollector(SMALL, 2), tamper), SMALL, 1), tmp_path, 10)
    assert verdict.refuted, verdict.log


@pytest.mark.long_proof
def test_collector_that_does_not_wait_for_an_answer_is_refuted(tmp_path):
    verdict = check(CollectorContract(EagerCollector(SMALL, 2), SMALL, 1), tmp_path, 10)
    assert verdict.refuted, verdict.log


def test_dispatcher_gives_each_request_to_one_slot(tmp_path):
    verdict = prove(DispatcherContract(Dispatcher(SMALL), invariant=True), tmp_path, depth=2)
    assert verdict.holds, verdict.log


def send_to_all(m, outer, inner):
    m.d.comb += outer.slots[1].header.valid.eq(inner.slots[0].header.valid | inner.slots[1].header.valid)


def repeat_the_header(m, outer, inner):
    m.d.comb += outer.slots[0].header.valid.eq(inner.slots[0].data.valid)


def name_it_late(m, outer, inner):
    for index in range(2):
        m.d.comb += outer.slots[index].header.payload.tag.eq(outer.tag)


@pytest.mark.parametrize("tamper", [send_to_all, repeat_the_header, name_it_late])
def test_dispatcher_that_changes_or_repeats_a_request_is_refuted(tmp_path, tamper):
    verdict = check(DispatcherContract(Wrong(Dispatcher(SMALL), tamper)), tmp_path, 6)
    assert verdict.refuted, verdict.log


@pytest.mark.parametrize("shard", SHARDS)
def test_shard_answers_each_request_once(tmp_path, shard):
    verdict = prove(ShardContract(shard(SMALL)), tmp_path, depth=2)
    assert verdict.holds, verdict.log


def answer_twice(m, outer, inner):
    again = Signal()
    m.d.sync += again.eq(outer.slot.answers.valid & outer.slot.answers.ready & ~again)
    m.d.comb += inner.slot.answers.ready.eq(outer.slot.answers.ready & again)


def answer_the_one_at_hand(m, outer, inner):
    m.d.comb += outer.slot.answers.payload.tag.eq(outer.slot.request.header.payload.tag)


@pytest.mark.parametrize("tamper", [answer_twice, answer_the_one_at_hand])
@pytest.mark.parametrize("shard", SHARDS)
def test_shard_that_answers_twice_or_under_another_name_is_refuted(tmp_path, shard, tamper):
    verdict = check(ShardContract(Wrong(shard(SMALL), tamper)), tmp_path, 8)
    assert verdict.refuted, verdict.log


@pytest.mark.parametrize("shard", SHARDS)
def test_slot_answers_each_request_once_and_in_order(tmp_path, shard):
    verdict = prove(SlotContract(EngineSlot(SMALL, shard(SMALL)), invariant=True), tmp_path, depth=2)
    assert verdict.holds, verdict.log


def time_out_under_the_newest_name(m, outer, inner):
    newest = Signal(6)
    with m.If(outer.requests.header.valid):
        m.d.sync += newest.eq(outer.requests.header.payload.packet.tenant)
    with m.If(inner.answers.payload.status == Status.TIMEOUT):
        m.d.comb += outer.answers.payload.tenant.eq(newest)


@pytest.mark.parametrize("tamper", [time_out_under_the_newest_name])
def test_slot_that_answers_under_another_name_is_refuted(tmp_path, tamper):
    verdict = check(SlotContract(Wrong(EngineSlot(SMALL, Refuser(SMALL)), tamper)), tmp_path, 10)
    assert verdict.refuted, verdict.log
