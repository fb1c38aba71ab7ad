"""`QueueEngine`: moves packets between rings in host memory and the fabric, many descriptors at a time.

A ring of 2**order descriptors of 16 bytes lies in guest memory of its tenant; every access goes by a DMA command of
that tenant, and so through the memory table. Word by word, when software posts it, and when the device gives it back:

    0, 1  guest address of the payload           as posted
    2     15..0 length (receive: room), transmit: 19..16 destination, 23..20 flow class    15..0 length, rest 0
    3     transmit: 15..0 flow hash              31 done, 19..16 status

Contract: descriptors of a ring are taken in order, while its tail, a count modulo 2**16 that software writes, is ahead
of the head; up to `WINDOW` of them are in progress. They are given back in order: `BATCH` in one write; or what is
ready when nothing else of the ring is under way and no packet waits in the receiver, so that a lone one waits for
nothing; or when one has been ready for `PATIENCE` to twice as many cycles. The status of one is `Status` or the
`Outcome` of its DMA; a transmit descriptor that is not `DONE` sent nothing, a received packet without room is gone;
each is counted as refused. Received packets for which nothing is posted are dropped and counted. A tail more than a
ring ahead of the head or behind what was taken, and a ring that cannot be read or written, are faults of the queue
alone: it is disabled, with the outcome (or `BAD_INDEX`) in its word `FAULT`, and what is in progress of it is not given
back. `raised` strobes for the tenant whenever descriptors were given back, or the queue got a fault.

A packet is sent only with the fabric's credit for its tenant. Rings have their own places in every memory, and those of
all tenants are served in turn, a burst of descriptors at a time: none waits for another's credit, ring or packets.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .dma import Outcome
from .queue_ports import QueueReceiver, QueueSender
from .queue_reads import QueueReads
from .queue_steps import BURST, COUNT, RECEIVE_STEPS, TRANSMIT_STEPS, WINDOW, QueueSteps, in_turn
from .queue_store import Job, JobKind, Status, Store, row
from .queue_table import CONTROL, DROPPED, FAULT, HEAD, RECEIVED, REFUSED, RING, SENT, TAIL, TablePort
from .queue_writes import QueueWrites
from .share import DmaSignature

__all__ = ["BAD_INDEX", "BATCH", "PATIENCE", "QueueEngine", "Status"]

BAD_INDEX = 13
#: Descriptors that are ready are given back when they are so many, or after so many to twice as many cycles.
BATCH, PATIENCE = 8, 256


class QueueEngine(wiring.Component):
    """Engine of the queues of `config`, between `sender` and `receiver`, whose ports on its side it drives.

    `hold`: packets of before a reset still leave.
    """

    def __init__(self, config: DeviceConfig, sender: QueueSender, receiver: QueueReceiver):
        self._config, self._sender, self._receiver = config, sender, receiver
        super().__init__({
            "table": Out(TablePort(config.tenants)), "dma": Out(DmaSignature(config.data_width)),
            "credit": In(config.tenants), "cycle": In(32), "raised": Out(config.tenants), "hold": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        config, table = self._config, self.table
        steps = [QueueSteps(config.tenants, names) for names in (TRANSMIT_STEPS, RECEIVE_STEPS)]
        stores = [Store(m, config, name) for name in ("transmit", "receive")]
        generations = Signal(data.ArrayLayout(8, config.tenants))
        m.submodules.transmit_steps, m.submodules.receive_steps = steps
        m.submodules.reads = reads = QueueReads(config, self.dma, steps, stores, self._sender, generations)
        m.submodules.writes = writes = QueueWrites(config, self.dma, steps, stores, self._receiver, generations)
        state = _State(config)
        m.d.comb += [
            *(ring.enabled.eq(table.enabled) for ring in steps), reads.hold.eq(self.hold),
            table.tenant.eq(state.tenant),
            table.busy.eq(steps[0].busy | steps[1].busy | (state.active << state.tenant)),
            writes.posted.eq(state.posted[config.tenants:] | (state.looking << state.tenant)),
        ]
        with m.If(state.looking):
            m.d.comb += [writes.reserved.eq(state.giving), reads.reserved.eq(~state.giving)]
        self._elaborate_sends(m, steps[0], stores[0])
        self._elaborate_due(m, steps, state)
        with m.FSM():
            with m.State("choose"):
                self._choose(m, state, steps, reads, writes)
            with m.State("load"):
                self._load(m, state, generations)
                m.d.comb += state.looking.eq(1)
            with m.State("judge"):
                self._judge(m, state, steps, reads, writes)
                m.d.comb += state.looking.eq(1)
            with m.State("settle"):
                self._settle(m, state, steps)
            with m.State("drop"):
                m.d.comb += [state.active.eq(1), table.word.eq(DROPPED)]
                m.next = "count"
            with m.State("count"):
                self._store(m, DROPPED, table.value + 1)
                m.d.comb += [state.active.eq(1), writes.dropped_taken.eq(1)]
                m.next = "choose"
            with m.State("fault"):
                m.d.comb += state.active.eq(1)
                with m.If(table.enabled.bit_select(state.tenant, 1)):
                    self._store(m, FAULT, state.outcome)
                    m.d.comb += [table.stop.eq(1), self.raised.bit_select(state.tenant, 1).eq(1)]
                m.next = "choose"
        return m

    def _elaborate_due(self, m, steps, state):
        """Rings to look at, and those of which descriptors are to be given back: many, old ones, or all there are."""
        waiting, old, seen = (Signal(len(state.due), name=name) for name in ("waiting", "old", "seen"))
        clock = Signal(range(PATIENCE))
        pairs = [(ring, tenant) for ring in steps for tenant in range(self._config.tenants)]
        m.d.sync += clock.eq(clock + 1)
        m.d.comb += waiting.eq(Cat(ring.passed(_last(ring), "back") for ring in steps))
        # What becomes ready behind those that are given back begins to wait anew.
        with m.If(clock == 0):
            m.d.sync += [seen.eq(waiting & ~state.emptied), old.eq(seen & waiting & ~state.emptied)]
        with m.Else():
            m.d.sync += [seen.eq(seen & ~state.emptied), old.eq(old & ~state.emptied)]
        enabled = self.table.enabled.replicate(2)
        arriving = self._receiver.asks.valid.replicate(self._config.tenants)
        alone = ~Cat(steps[0].passed("wanted", "sent"), steps[1].passed("asked", "ready") | arriving)
        m.d.comb += [
            state.due.eq(enabled & waiting & (old | alone | Cat(
                ring.between(_last(ring), "back", tenant) >= BATCH for ring, tenant in pairs))),
            state.wanting.eq(enabled & state.posted & Cat(
                ring.between("wanted", "closed", tenant) <= WINDOW - BURST for ring, tenant in pairs)),
        ]
        m.d.sync += state.posted.eq((state.posted | self.table.posted) & enabled | self.table.posted)

    def _choose(self, m, state, steps, reads, writes):
        """What others wait for; then rings to write, then rings to read."""
        tenants = self._config.tenants
        giving, wanting = (in_turn(m, ready, state.last, name)
                           for ready, name in ((state.due, "giving"), (state.wanting, "wanting")))
        m.d.sync += [state.step.eq(0), state.giving.eq(0)]
        with m.If(writes.settled):
            m.d.comb += writes.settled_taken.eq(1)
            m.d.sync += [state.job.eq(writes.settled_job), state.tenant.eq(writes.settled_job.tenant),
                         state.outcome.eq(writes.settled_outcome), state.good.eq(writes.good)]
            m.next = "settle"
        with m.Elif(reads.failed):
            m.d.comb += reads.failed_taken.eq(1)
            m.d.sync += [state.tenant.eq(reads.failed_tenant), state.outcome.eq(reads.failed_outcome)]
            m.next = "fault"
        with m.Elif(writes.dropped):
            m.d.sync += state.tenant.eq(writes.dropped_tenant)
            m.next = "drop"
        for ready, chosen, part, gives in ((state.due, giving, writes, 1), (state.wanting, wanting, reads, 0)):
            with m.Elif(ready.any() & part.jobs.ready):
                m.d.comb += part.reserved.eq(1)
                receiving = chosen >= tenants
                m.d.sync += [state.tenant.eq(Mux(receiving, chosen - tenants, chosen)), state.giving.eq(gives),
                             state.receiving.eq(receiving), state.last.eq(chosen)]
                m.next = "load"

    def _load(self, m, state, generations):
        """A word a cycle; it is there in the cycle after."""
        ring = RING + (state.receiving << 1)
        words = [(ring, state.ring[:32]), (ring + 1, state.ring[32:]), (CONTROL, state.control),
                 (TAIL + state.receiving, state.tail), (HEAD + state.receiving, state.head)]
        m.d.comb += state.active.eq(1)
        m.d.sync += state.step.eq(state.step + 1)
        with m.Switch(state.step):
            for index, (word, _) in enumerate(words):
                with m.Case(index):
                    m.d.comb += self.table.word.eq(word)
                    if index:
                        m.d.sync += words[index - 1][1].eq(self.table.value)
            with m.Case(len(words)):
                m.d.sync += [words[-1][1].eq(self.table.value), generations[state.tenant].eq(state.control[8:16])]
                m.next = "judge"
        # What is posted from now on counts; what was before is seen here.
        with m.If((state.step == 0) & ~state.giving):
            m.d.sync += state.posted.bit_select(state.last, 1).eq(self.table.posted.bit_select(state.last, 1))

    def _judge(self, m, state, steps, reads, writes):
        """The burst that follows what is in progress, up to the end of the ring."""
        used, fresh, ahead, entries = Signal(16), Signal(16), Signal(COUNT), Signal(16)
        place, room, count = Signal(16), Signal(16), Signal(5)
        ready, wanted, begin = Signal(COUNT), Signal(COUNT), Signal(COUNT)
        for receiving, ring in enumerate(steps):
            with m.If(state.receiving == receiving):
                m.d.comb += [
                    ready.eq(ring.between(_last(ring), "back", state.tenant)),
                    wanted.eq(ring.between("wanted", "closed", state.tenant)),
                    ahead.eq(Mux(state.giving, ring.between("back", "closed", state.tenant), wanted)),
                    begin.eq(Mux(state.giving, ring.back[state.tenant], ring.wanted[state.tenant])),
                ]
        m.d.comb += [
            entries.eq(1 << state.control[4:8]), used.eq(state.tail - state.head), fresh.eq(used - wanted),
            place.eq((state.head + ahead) & (entries - 1)),
            room.eq(Mux(entries - place < BURST, entries - place, BURST)),
            count.eq(Mux(state.giving, Mux(ready < room, ready, room), Mux(fresh < room, fresh, room))),
            state.active.eq(1),
        ]
        m.d.sync += state.outcome.eq(BAD_INDEX)
        m.next = "choose"
        with m.If(~self.table.enabled.bit_select(state.tenant, 1)):
            pass
        with m.Elif(~state.giving & ((used > entries) | (used < wanted))):
            m.next = "fault"
        with m.Elif(state.giving):
            self._issue(m, state, steps, writes.jobs, "back", begin, count, place)
            m.d.comb += state.emptied.bit_select(state.last, 1).eq(count == ready)
        with m.Elif(fresh != 0):
            self._issue(m, state, steps, reads.jobs, "wanted", begin, count, place)
            m.d.sync += state.posted.bit_select(state.last, 1).eq(1)

    def _issue(self, m, state, steps, stream, step, begin, count, place):
        """The stream is ready: it was reserved when the ring was chosen."""
        job, command = stream.payload.job, stream.payload.command
        m.d.comb += [
            stream.valid.eq(1), job.kind.eq(JobKind.DESCRIPTORS), job.receiving.eq(state.receiving),
            job.tenant.eq(state.tenant), job.place.eq(begin), job.count.eq(count),
            command.tenant.eq(state.tenant), command.generation.eq(state.control[8:16]),
            command.address.eq(state.ring + (place << 4)), command.length.eq(count << 4),
        ]
        for receiving, ring in enumerate(steps):
            with m.If(state.receiving == receiving):
                m.d.comb += [getattr(ring, f"{step}_of").eq(state.tenant), getattr(ring, f"{step}_by").eq(count)]

    def _settle(self, m, state, steps):
        """Head and counts, each read in one cycle and written in the next, while the following one is read."""
        receiving, bad = state.job.receiving, state.job.count - state.good
        words = [(HEAD + receiving, state.job.count), (Mux(receiving, RECEIVED, SENT), state.good), (REFUSED, bad[:5])]
        m.d.comb += state.active.eq(1)
        m.d.sync += state.step.eq(state.step + 1)
        failed = state.outcome != Outcome.DONE
        with m.Switch(state.step):
            for index in range(len(words) + 1):
                with m.Case(index):
                    if index < len(words):
                        m.d.comb += self.table.word.eq(words[index][0])
                    if index:
                        with m.If(~failed):
                            word, more = words[index - 1]
                            value = self.table.value + more
                            self._store(m, word, value[:16] if index == 1 else value)
        with m.If(state.step == len(words)):
            for direction, ring in enumerate(steps):
                with m.If(receiving == direction):
                    m.d.comb += [ring.closed_of.eq(state.tenant), ring.closed_by.eq(state.job.count)]
            m.d.comb += self.raised.bit_select(state.tenant, 1).eq(~failed)
            m.next = "choose"
            with m.If(failed):
                m.next = "fault"

    def _elaborate_sends(self, m, steps, store):
        """The next packet of a tenant with credit, in turn, is made ready while the one before leaves."""
        sender, tenant, last = self._sender, Signal(6), Signal(6)
        descriptor, result = store.look_up_descriptor(), store.look_up_result()
        ready, place, header = Signal(self._config.tenants), steps.sent[tenant], sender.next.payload.header
        good = result.data.status == Status.DONE
        chosen = in_turn(m, ready, last, "send")
        m.d.comb += [
            ready.eq(steps.passed("ready", "sent") & steps.enabled & self.credit),
            descriptor.addr.eq(row(tenant, place)), result.addr.eq(row(tenant, place)),
            header.tenant.eq(tenant), header.length.eq(result.data.length),
            header.destination.eq(descriptor.data.destination), header.flow_class.eq(descriptor.data.flow_class),
            header.flow_hash.eq(descriptor.data.flow_hash), header.timestamp.eq(self.cycle),
            sender.next.payload.place.eq(place), steps.sent_of.eq(tenant),
        ]
        with m.FSM(name="send"):
            with m.State("choose"):
                m.d.sync += [tenant.eq(chosen), last.eq(chosen)]
                with m.If(ready.any() & sender.settled):
                    m.next = "look up"
            with m.State("look up"):
                m.next = "offer"
            with m.State("offer"):
                # What it was chosen for may be gone until the sender is free.
                usable = (steps.enabled & self.credit).bit_select(tenant, 1)
                m.d.comb += sender.next.valid.eq(usable & good)
                with m.If(sender.next.ready | ~good | ~usable):
                    m.d.comb += steps.sent_by.eq(usable)
                    m.next = "choose"

    def _store(self, m, word, value):
        m.d.comb += [self.table.store.eq(1), self.table.store_word.eq(word), self.table.store_value.eq(value)]


def _last(ring):
    """The step after which a descriptor of `ring` may be given back."""
    return "sent" if hasattr(ring, "sent") else "ready"


class _State:
    """Registers of the ring that is being looked at. By ring, those of transmit first: `posted`, to be looked at;
    `wanting`, and with room to read more; `due`, to be given back; `emptied`, all that was ready is given back now."""

    def __init__(self, config):
        self.active, self.looking = Signal(), Signal()
        self.posted, self.wanting, self.due, self.emptied = (
            Signal(2 * config.tenants, name=name) for name in ("posted", "wanting", "due", "emptied"))
        self.tenant, self.receiving, self.giving = Signal(6), Signal(), Signal()
        self.last, self.step = Signal(range(2 * config.tenants)), Signal(3)
        self.ring, self.control, self.tail, self.head = Signal(64), Signal(32), Signal(16), Signal(16)
        self.job, self.good, self.outcome = Signal(Job), Signal(5), Signal(4)
