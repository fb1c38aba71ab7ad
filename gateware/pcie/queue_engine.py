"""`QueueEngine`: moves packets between rings in host memory and the fabric, one descriptor at a time.

A ring of 2**order descriptors of 16 bytes lies in guest memory of its tenant; every access goes by a DMA command of
that tenant, and so through the memory table. Word by word, when software posts it, and when the device gives it back:

    0, 1  guest address of the payload           as posted
    2     15..0 length (receive: room), transmit: 19..16 destination, 23..20 flow class    15..0 length, rest 0
    3     transmit: 15..0 flow hash              31 done, 19..16 status

Contract: descriptors of a ring are taken in order, while its tail, a count modulo 2**16 that software writes, is ahead
of the head. The status of one is `Status` or the `Outcome` of its DMA; a transmit descriptor that is not `DONE` sent
nothing, a received packet without room is gone; each is counted as refused. Received packets for which nothing is
posted are dropped and counted. A tail more than a ring ahead of the head, and a ring that cannot be read or written,
are faults of the queue alone: it is disabled, with the outcome (or `BAD_INDEX`) in its word `FAULT`. `raised` strobes
for the tenant whenever a descriptor was given back, or the queue got a fault.

A packet is sent only with the fabric's credit for its tenant, and so waits for nobody. Received packets and, in turn,
the tenants that have posted something are served alternately, one descriptor at a time.
"""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from ..config import CREDIT_BEATS, MAX_PACKET_BEATS, DeviceConfig
from ..stream.packet import PacketHeader
from .dma import Outcome
from .queue_table import CONTROL, DROPPED, FAULT, HEAD, RECEIVED, REFUSED, RING, SENT, TAIL, TablePort
from .share import DmaSignature

__all__ = ["BAD_INDEX", "QueueEngine", "Status"]

BAD_INDEX = 13


class Status(enum.Enum, shape=unsigned(4)):
    """How a descriptor ended, if not with the `Outcome` of its DMA."""

    DONE = 0
    LENGTH = 14
    NO_ROOM = 15


class QueueEngine(wiring.Component):
    """Engine of the queues of `config`. Ports of sender and receiver are those of `queue_ports`."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "table": Out(TablePort(config.tenants)), "dma": Out(DmaSignature(config.data_width)),
            "credit": In(config.tenants), "cycle": In(32), "raised": Out(config.tenants),
            "clear": Out(1), "beat": Out(config.data_width), "beat_valid": Out(1),
            "header": Out(PacketHeader), "start": Out(1), "sending": In(1),
            "full": In(1), "tenant": In(6), "length": In(12), "release": Out(1),
            "row": Out(range(MAX_PACKET_BEATS)), "received": In(config.data_width),
        })

    def elaborate(self, platform):
        m = Module()
        state = _State(self._config)
        table = self.table
        m.d.comb += [table.tenant.eq(state.tenant), table.busy.eq(1), state.place.eq(state.head & state.mask),
                     self.row.eq(state.beats)]
        m.d.sync += state.pending.eq((state.pending & table.enabled) | table.posted)
        with m.FSM():
            with m.State("idle"):
                m.d.comb += table.busy.eq(0)
                self._choose(m, state)
            with m.State("load"):
                self._load(m, state)
            with m.State("judge"):
                self._judge(m, state)
            with m.State("fetch"):
                self._read(m, state.ring + (state.place << 4), 16, "descriptor", state)
            with m.State("descriptor"):
                self._take(m, state, into=state.descriptor, done="check")
            with m.State("check"):
                self._check(m, state)
            with m.State("fetch payload"):
                m.d.comb += self.clear.eq(1)
                self._read(m, state.address, state.length, "payload", state)
            with m.State("payload"):
                m.d.comb += [self.beat.eq(self.dma.read_data.payload.data),
                             self.beat_valid.eq(self.dma.read_data.valid)]
                self._take(m, state, into=None, done="send")
            with m.State("send"):
                self._send(m, state)
            with m.State("announce payload"):
                self._write(m, state.address, state.length, "look up", state)
            with m.State("look up"):
                m.next = "deliver"
            with m.State("deliver"):
                self._deliver(m, state)
            with m.State("announce completion"):
                self._write(m, state.ring + (state.place << 4) + 8, 8, "complete", state)
            with m.State("complete"):
                self._complete(m, state)
            with m.State("advance"):
                self._store(m, HEAD + state.receiving, (state.head + 1)[:16])
                m.d.comb += self.raised.bit_select(state.tenant, 1).eq(1)
                m.d.sync += state.counted.eq(Mux(state.status != 0, REFUSED, Mux(state.receiving, RECEIVED, SENT)))
                m.next = "count"
            with m.State("count"):
                m.d.comb += table.word.eq(state.counted)
                m.next = "counted"
            with m.State("counted"):
                self._store(m, state.counted, table.value + 1)
                self._finish(m, state)
            with m.State("fault"):
                self._store(m, FAULT, state.status)
                m.d.comb += [table.stop.eq(1), self.raised.bit_select(state.tenant, 1).eq(1)]
                self._finish(m, state)
        return m

    def _choose(self, m, state):
        """Received packets and transmit rings in turn; among the rings in turn after the last."""
        ready, count = state.pending & self.table.enabled & self.credit, self._config.tenants
        m.d.sync += [state.step.eq(0), state.status.eq(0), state.descriptor.eq(0), state.whole.eq(0), state.beats.eq(0)]
        can_send = ready.any() & ~self.sending
        with m.If(self.full & (~can_send | ~state.receiving)):
            m.d.sync += [state.tenant.eq(self.tenant), state.receiving.eq(1)]
            m.next = "load"
        with m.Elif(can_send):
            m.d.sync += state.receiving.eq(0)
            m.next = "load"
            with m.Switch(state.last):
                for last in range(count):
                    with m.Case(last):
                        for step in range(count, 0, -1):
                            with m.If(ready[(last + step) % count]):
                                m.d.sync += [state.tenant.eq((last + step) % count),
                                             state.last.eq((last + step) % count)]

    def _load(self, m, state):
        """A word a cycle; it is there in the cycle after."""
        ring = RING + (state.receiving << 1)
        words = [(ring, state.ring[:32]), (ring + 1, state.ring[32:]), (CONTROL, state.control),
                 (TAIL + state.receiving, state.tail), (HEAD + state.receiving, state.head)]
        m.d.sync += state.step.eq(state.step + 1)
        with m.Switch(state.step):
            for index, (word, _) in enumerate(words):
                with m.Case(index):
                    m.d.comb += self.table.word.eq(word)
                    if index:
                        m.d.sync += words[index - 1][1].eq(self.table.value)
            with m.Case(len(words)):
                m.d.sync += words[-1][1].eq(self.table.value)
                m.next = "judge"
        # What is posted from now on counts; what was before is seen here.
        with m.If((state.step == 0) & ~state.receiving):
            m.d.sync += state.pending.eq((state.pending & self.table.enabled & ~(1 << state.tenant))
                                         | self.table.posted)

    def _judge(self, m, state):
        used = Signal(16)
        m.d.comb += used.eq(state.tail - state.head)
        m.d.sync += [state.mask.eq((1 << state.control[4:8]) - 1), state.generation.eq(state.control[8:16])]
        with m.If(~self.table.enabled.bit_select(state.tenant, 1)):
            self._finish(m, state, again=False)
        with m.Elif((used == 0) & state.receiving):
            m.d.sync += state.counted.eq(DROPPED)
            m.next = "count"
        with m.Elif(used == 0):
            self._finish(m, state, again=False)
        with m.Elif(used > (1 << state.control[4:8])):
            m.d.sync += state.status.eq(BAD_INDEX)
            m.next = "fault"
        with m.Else():
            m.next = "fetch"

    def _check(self, m, state):
        found, longest = state.descriptor, CREDIT_BEATS * self._config.beat_bytes
        wanted = Signal(16)
        m.d.comb += wanted.eq(found[64:80])
        m.d.sync += [state.address.eq(found[:64]), state.whole.eq(0), state.beats.eq(0),
                     state.length.eq(Mux(state.receiving, self.length, wanted[:13]))]
        m.next = "announce completion"
        with m.If(state.receiving & (wanted < self.length)):
            m.d.sync += [state.status.eq(Status.NO_ROOM), state.length.eq(0)]
        with m.Elif(state.receiving):
            m.next = "announce payload"
        with m.Elif((wanted == 0) | (wanted > longest)):
            m.d.sync += [state.status.eq(Status.LENGTH), state.length.eq(0)]
        with m.Else():
            m.next = "fetch payload"

    def _command(self, m, stream, address, length, state):
        m.d.comb += [
            stream.valid.eq(1), stream.payload.tenant.eq(state.tenant), stream.payload.generation.eq(state.generation),
            stream.payload.address.eq(address), stream.payload.length.eq(length),
        ]

    def _read(self, m, address, length, following, state):
        self._command(m, self.dma.read_commands, address, length, state)
        with m.If(self.dma.read_commands.ready):
            m.next = following

    def _write(self, m, address, length, following, state):
        self._command(m, self.dma.write_commands, address, length, state)
        m.d.sync += state.whole.eq(0)
        with m.If(self.dma.write_commands.ready):
            m.next = following

    def _take(self, m, state, into, done):
        """Data of a read, `into` a register from its low end; its report, when the last beat was taken."""
        beat, report, width = self.dma.read_data, self.dma.read_reports, self._config.data_width
        m.d.comb += [beat.ready.eq(1), report.ready.eq(state.whole)]
        with m.If(beat.valid):
            m.d.sync += [state.whole.eq(beat.payload.last), state.beats.eq(state.beats + 1)]
            if into is not None:
                parts = max(len(into) // width, 1)
                with m.Switch(state.beats):
                    for part in range(parts):
                        with m.Case(part):
                            m.d.sync += into[part * width:min((part + 1) * width, len(into))].eq(beat.payload.data)
        with m.If(report.valid & state.whole):
            m.next = done
            with m.If(report.payload.outcome != Outcome.DONE):
                m.d.sync += [state.status.eq(report.payload.outcome), state.length.eq(0)]
                m.next = "fault" if into is not None else "announce completion"

    def _send(self, m, state):
        header, found = self.header, state.descriptor
        m.d.comb += [
            self.start.eq(1), header.tenant.eq(state.tenant), header.length.eq(state.length),
            header.destination.eq(found[80:84]), header.flow_class.eq(found[84:88]),
            header.flow_hash.eq(found[96:112]), header.timestamp.eq(self.cycle),
        ]
        m.next = "announce completion"

    def _deliver(self, m, state):
        """A beat each two cycles, until all of the packet has gone; then the report."""
        data, report, beat_bytes = self.dma.write_data, self.dma.write_reports, self._config.beat_bytes
        more = state.beats * beat_bytes < state.length
        m.d.comb += [data.payload.eq(self.received), data.valid.eq(more), report.ready.eq(~more)]
        with m.If(data.valid & data.ready):
            m.d.sync += state.beats.eq(state.beats + 1)
            m.next = "look up"
        with m.If(report.valid & report.ready):
            m.next = "announce completion"
            with m.If(report.payload.outcome != Outcome.DONE):
                m.d.sync += [state.status.eq(report.payload.outcome), state.length.eq(0)]

    def _complete(self, m, state):
        data, report = self.dma.write_data, self.dma.write_reports
        m.d.comb += [data.payload.eq(Cat(state.length, C(0, 48 - len(state.length)), state.status, C(0, 11), C(1, 1))),
                     data.valid.eq(~state.whole), report.ready.eq(state.whole)]
        with m.If(data.valid & data.ready):
            m.d.sync += state.whole.eq(1)
        with m.If(report.valid & report.ready):
            m.next = "advance"
            with m.If(report.payload.outcome != Outcome.DONE):
                m.d.sync += state.status.eq(report.payload.outcome)
                m.next = "fault"

    def _store(self, m, word, value):
        m.d.comb += [self.table.store.eq(1), self.table.store_word.eq(word), self.table.store_value.eq(value)]

    def _finish(self, m, state, again=True):
        """Look at the ring once more: more may have been posted than this."""
        with m.If(state.receiving):
            m.d.comb += self.release.eq(1)
        if again:
            with m.Else():
                m.d.sync += state.pending.eq((state.pending & self.table.enabled) | self.table.posted
                                             | (1 << state.tenant))
        m.next = "idle"


class _State:
    """Registers of the descriptor that is being worked on. `pending`: transmit rings to be looked at."""

    def __init__(self, config):
        self.tenant, self.receiving, self.last = Signal(6), Signal(), Signal(range(config.tenants))
        self.pending = Signal(config.tenants)
        self.step, self.ring, self.control = Signal(3), Signal(64), Signal(32)
        self.tail, self.head, self.mask, self.place = Signal(16), Signal(16), Signal(16), Signal(16)
        self.generation, self.descriptor, self.address = Signal(8), Signal(128), Signal(64)
        self.length, self.status, self.counted = Signal(13), Signal(4), Signal(4)
        self.whole, self.beats = Signal(), Signal(9)
