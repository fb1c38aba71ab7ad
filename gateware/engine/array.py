"""The engine array: every engine slot behind the fabric's engine port, and the slots' registers.

Contract: each request packet is answered with one response packet to its source, under its epoch; the responses of one
tenant leave in the order of its requests. A tenant that owns slots is served by these alone, others by the slots that
nobody owns; if there are none either, the answer has status `NO_SLOT`.

Requests wait in the fabric, by tenant, until `feedback` lets them come: `eligible[t]` says that one of the slots of
tenant *t* is idle or soon will be (one request then waits in it), that the tenant has few requests without response,
and, where slots are shared, that it is its turn by engine time (see `rounds`); `wanted` is one for each such slot that
somebody waits for (two while requests are short), and one for those to be refused, at most `MOST_COMING`. So the choice
whose request goes next is made when a slot is about to be free, and not before. A packet that comes against that may
wait, and with it those behind it. `busy` reports each slot's work.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from ..fabric.events import EngineFeedbackSignature
from ..manager.allocation import AllocationSignature
from ..stream.packet import PacketSignature
from .accounts import EngineAccounts
from .collector import ResponseCollector
from .crc32c import Crc32cShard
from .dispatcher import Dispatcher
from .ownership import SlotOwnership
from .refuser import Refuser
from .rounds import EngineRounds
from .slot import MOST_COMING, EngineSlot, SlotBusy

__all__ = ["EngineArray"]


class EngineArray(wiring.Component):
    """Dispatcher, slots, refuser, collector, accounts, rounds, registers.

    shard: makes what is loaded in each slot, from the configuration.
    """

    def __init__(self, config: DeviceConfig, shard=Crc32cShard):
        self._config = config
        self._shard = shard
        super().__init__({
            "bus": In(CsrSignature(16)),
            "requests": In(PacketSignature(config)),
            "responses": Out(PacketSignature(config)),
            "allocation": In(AllocationSignature(config)),
            "feedback": Out(EngineFeedbackSignature(config)),
            "busy": Out(SlotBusy).array(config.slots),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.dispatcher = dispatcher = Dispatcher(config)
        m.submodules.collector = collector = ResponseCollector(config, config.slots + 1)
        m.submodules.accounts = accounts = EngineAccounts(config)
        m.submodules.rounds = rounds = EngineRounds(config)
        m.submodules.ownership = ownership = SlotOwnership(config, config.tenants + 1)
        m.submodules.registers = registers = RegisterBlock({"slot": config.slots})
        m.submodules.refuser = refuser = Refuser(config)
        slots = [EngineSlot(config, self._shard(config)) for _ in range(config.slots)]
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        for part in (ownership, rounds):
            wiring.connect(m, wiring.flipped(self.allocation), part.allocation)
        wiring.connect(m, wiring.flipped(self.requests), dispatcher.requests)
        wiring.connect(m, collector.responses, wiring.flipped(self.responses))
        wiring.connect(m, dispatcher.slots[-1], refuser.slot.request)
        wiring.connect(m, refuser.slot.answers, collector.answers[-1])
        for index, slot in enumerate(slots):
            m.submodules[f"slot_{index}"] = slot
            wiring.connect(m, dispatcher.slots[index], slot.requests)
            wiring.connect(m, slot.answers, collector.answers[index])
            m.d.comb += [
                slot.assigned.eq(dispatcher.assigned & (dispatcher.target == index)),
                slot.price.eq(accounts.price),
                dispatcher.load[index].eq(slot.load),
                dispatcher.far[index].eq(slot.far),
                dispatcher.quiesce[index].eq(slot.quiesce),
                accounts.finished[index].eq(slot.finished),
                accounts.bills[index].eq(slot.bill),
                self.busy[index].eq(slot.busy),
            ]
            self._attach_registers(m, index, registers, slot)
        self._dispatch(m, dispatcher, collector, accounts, ownership)
        m.d.comb += [
            rounds.charge.eq(accounts.charged),
            rounds.tenant.eq(accounts.charge_tenant),
            rounds.amount.eq(accounts.amount),
        ]
        self._feed_back(m, slots, collector, accounts, rounds, ownership)
        return m

    def _dispatch(self, m, dispatcher, collector, accounts, ownership):
        """What the dispatcher asks about the tenant of the next header, and tells about the packet that it takes."""
        header = self.requests.header.payload
        m.d.comb += [
            ownership.tenants[-1].eq(dispatcher.tenant),
            dispatcher.usable.eq(ownership.eligible[-1]),
            dispatcher.full.eq(collector.full.bit_select(dispatcher.tenant, 1)),
            dispatcher.tag.eq(collector.tag),
            dispatcher.price.eq(accounts.price),
            collector.issue.eq(dispatcher.assigned),
            collector.tenant.eq(dispatcher.tenant),
            collector.ticket.destination.eq(header.source),
            collector.ticket.epoch.eq(header.epoch),
            collector.ticket.flow_hash.eq(header.flow_hash),
            collector.word_enable.eq(dispatcher.word_enable),
            collector.word.eq(dispatcher.word),
            collector.word_place.tenant.eq(dispatcher.word_tenant),
            collector.word_place.tag.eq(dispatcher.word_tag),
            accounts.assigned.eq(dispatcher.assigned),
            accounts.tenant.eq(dispatcher.tenant),
            accounts.refused.eq(dispatcher.target == self._config.slots),
        ]

    def _feed_back(self, m, slots, collector, accounts, rounds, ownership):
        """Who may be granted, and how many."""
        config, feedback = self._config, self.feedback
        takes = Signal(len(slots))
        refused, ready = Signal(config.tenants), Signal(config.tenants)
        demand = Signal(len(slots))   # slots that take a request, and for which one waits
        m.d.sync += rounds.contends.eq(ownership.contends)
        m.d.comb += [
            takes.eq(Cat(slot.takes for slot in slots) & accounts.settled),
            ready.eq(feedback.waiting & collector.room),
            rounds.asking.eq(Mux((takes & ownership.shared).any(), ready & rounds.contends, 0)),
        ]
        for tenant in range(config.tenants):
            usable = ownership.eligible[tenant]
            turn = rounds.solvent[tenant] | ~rounds.contends[tenant]
            m.d.comb += [
                ownership.tenants[tenant].eq(tenant),
                refused[tenant].eq(usable == 0),
            ]
            m.d.sync += feedback.eligible[tenant].eq(
                (((usable & takes).any() & turn) | refused[tenant]) & collector.room[tenant])
        for index in range(len(slots)):
            users = Cat(ownership.eligible[tenant][index] for tenant in range(config.tenants))
            m.d.comb += demand[index].eq(takes[index] & (users & ready).any())
        wanted = sum(one + (one & slot.takes_two) for one, slot in zip(demand, slots, strict=True)) \
            + (refused & ready).any()
        m.d.sync += feedback.wanted.eq(Mux(wanted > MOST_COMING, MOST_COMING, wanted))

    def _attach_registers(self, m, index, registers, slot):
        def port(name):
            return getattr(registers, f"slot_{index}_{name}")

        m.d.comb += [
            slot.quiesce.eq(port("control_quiesce")),
            slot.clear.eq(port("control_clear")),
            slot.watchdog.eq(port("watchdog_cycles")),
            port("shard_id").eq(slot.kind),
            port("status_busy").eq(slot.busy.busy),
            port("status_drained").eq(slot.drained),
            port("status_failed").eq(slot.failed),
            port("requests_value").eq(slot.served),
            port("busy_cycles_value").eq(slot.busy_cycles),
        ]
