"""`DmaReader`: reads host memory as commands say, within what is granted, and delivers packed data in order.

Contract: a command is split at maximum read request size (`max_read`, 128 << n bytes, at most `slot_bytes`) and 4 KiB;
up to `tags` requests are outstanding. For each command, `data` brings ceil(length / beat) beats, `last` with the final
one, in the order of commands. Its report is offered when the last of it is on its way to `data`, which may be some
cycles before it is taken there. What a request did not bring, because it was refused, revoked, errored,
poisoned or timed out, is delivered as zeros, and the first such reason is the outcome; a command that was refused as a
whole is one beat of zeros. A request times out `timeout` cycles after it was sent. Its tag is then used again only
after its completion came; when all tags are lost so, commands end with TIMEOUT at once.

Latency: 7 cycles from command to request, and one for each region before the one that grants it; three from the last
beat of the final completion to the first beat of data.
Throughput: a beat a cycle less one a request, as far as `tags` requests cover the round trip.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .align import Packer
from .dma import SIZE_BITS, Command, Outcome, Report, Splitter, enables, outcome_of
from .protection import Gate, GrantStatus, TableSignature
from .reassembly import Reassembly
from .tlp import RequestKind, check_width, completion_layout, request_layout

__all__ = ["TIMEOUT_BITS", "DmaReader"]

TIMEOUT_BITS = 24


class _Sent(data.Struct):
    """An entry of the queue of requests, in order: `size` bytes from `start` of the slot, unless `outcome` says that
    nothing was sent; `skipped` entries only pass over a retired tag."""

    start: 12
    size: SIZE_BITS
    last: 1
    skipped: 1
    outcome: Outcome
    tag: 8
    stamp: TIMEOUT_BITS


class DmaReader(wiring.Component):
    """Read engine with beats of `width` bits. `enable`: bus mastering is on. `abandon`: a function reset begins."""

    def __init__(self, width: int = 64, tags: int = 32, slot_bytes: int = 512):
        self._width, self._tags, self._slot_bytes = check_width(width), tags, slot_bytes
        self._reassembly = Reassembly(width, tags, slot_bytes)
        super().__init__({
            "commands": In(stream.Signature(Command)),
            "data": Out(stream.Signature(data.StructLayout({"data": width, "last": 1}))),
            "reports": Out(stream.Signature(Report)),
            "requests": Out(stream.Signature(request_layout(width))),
            "completions": In(stream.Signature(completion_layout(width))),
            "table": Out(TableSignature()),
            "requester_id": In(16),
            "max_read": In(3),
            "timeout": In(TIMEOUT_BITS, init=(1 << TIMEOUT_BITS) - 1),
            "enable": In(1, init=1),
            "abandon": In(1),
            "blocked": Out(1),
            "unexpected": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.gate = gate = Gate(self._width)
        m.submodules.splitter = splitter = Splitter()
        m.submodules.reassembly = slots = self._reassembly
        m.submodules.sent = sent = Memory(shape=_Sent, depth=self._tags, init=[])
        wiring.connect(m, gate.table, wiring.flipped(self.table))
        wiring.connect(m, gate.passed, wiring.flipped(self.requests))
        wiring.connect(m, wiring.flipped(self.completions), slots.completions)
        queue, now = _Queue(self._tags, sent.write_port(), sent.read_port(domain="comb")), Signal(TIMEOUT_BITS)
        largest = exact_log2(self._slot_bytes) - 7
        m.d.sync += now.eq(now + 1)
        m.d.comb += [
            gate.enable.eq(self.enable), self.blocked.eq(gate.blocked), self.unexpected.eq(slots.unexpected),
            splitter.limit.eq(Mux(self.max_read > largest, largest, self.max_read)),
            slots.abandon.eq(self.abandon),
            queue.read.addr.eq(queue.head), queue.write.addr.eq(queue.tail), queue.write.data.stamp.eq(now),
        ]
        self._elaborate_requests(m, gate, splitter, slots, queue)
        self._elaborate_delivery(m, slots, queue, now)
        with m.If(queue.push):
            m.d.sync += queue.tail.eq(queue.tail + 1)
        with m.If(queue.pop):
            m.d.sync += queue.head.eq(queue.head + 1)
        m.d.sync += queue.used.eq(queue.used + queue.push - queue.pop)
        m.d.comb += [queue.write.en.eq(queue.push), queue.room.eq(queue.used != self._tags)]
        return m

    def _elaborate_requests(self, m, gate, splitter, slots, queue):
        """Looks commands up, and sends their pieces, each with the tag of the next place in the queue."""
        command, waiting = Signal(Command), Signal()
        following, empty = self.commands.payload, self.commands.payload.length == 0
        piece, entry = splitter.pieces.payload, queue.write.data
        m.d.comb += [
            gate.access.valid.eq(self.commands.valid & ~waiting & ~empty),
            gate.access.payload.tenant.eq(following.tenant),
            gate.access.payload.generation.eq(following.generation),
            gate.access.payload.address.eq(following.address),
            gate.access.payload.length.eq(following.length),
            self.commands.ready.eq(~waiting & (gate.access.ready | empty)),
            splitter.address.eq(gate.grant.payload.address), splitter.length.eq(command.length),
            slots.issue_tag.eq(queue.tail), slots.entry.start.eq(entry.start), slots.entry.size.eq(entry.size),
        ]
        with m.If(self.commands.valid & self.commands.ready):
            m.d.sync += [command.eq(following), waiting.eq(1)]
        tag = Signal(8)
        with m.FSM():
            with m.State("idle"):
                m.d.comb += [entry.tag.eq(command.tag), entry.last.eq(1)]
                with m.If(waiting & (command.length == 0)):
                    m.d.comb += [queue.push.eq(queue.room), entry.outcome.eq(Outcome.EMPTY)]
                with m.Elif(waiting & gate.grant.valid):
                    with m.If(gate.grant.payload.status != GrantStatus.GRANTED):
                        m.d.comb += [gate.grant.ready.eq(queue.room), queue.push.eq(queue.room),
                                     entry.outcome.eq(outcome_of(gate.grant.payload.status))]
                    with m.Else():
                        m.d.comb += [gate.grant.ready.eq(1), splitter.load.eq(1)]
                        m.d.sync += [waiting.eq(0), tag.eq(command.tag)]
                        m.next = "send"
                with m.If(queue.push):
                    m.d.sync += waiting.eq(0)
            with m.State("send"):
                self._elaborate_piece(m, gate, slots, queue, piece, tag)
                m.d.comb += splitter.pieces.ready.eq(queue.push & ~entry.skipped)
                with m.If(splitter.pieces.ready & piece.last):
                    m.d.comb += gate.finish.eq(1)
                    m.next = "idle"

    def _elaborate_piece(self, m, gate, slots, queue, piece, tag):
        """A request leaves, is swallowed by the gate, or cannot be sent because its tag is lost."""
        entry, request = queue.write.data, gate.requests.payload
        lost, all_lost = slots.retired.bit_select(queue.tail, 1), slots.retired.all()
        statements, length, first, last = enables(piece.address, piece.size)
        m.d.comb += [
            *statements,
            request.header.kind.eq(RequestKind.READ),
            request.header.address.eq(piece.address[2:]),
            request.header.length.eq(length),
            request.header.first_be.eq(first),
            request.header.last_be.eq(last),
            request.header.requester_id.eq(self.requester_id),
            request.header.tag.eq(queue.tail),
            request.first.eq(1), request.last.eq(1),
            entry.start.eq(piece.address[:exact_log2(self._slot_bytes)]),
            entry.size.eq(piece.size), entry.tag.eq(tag), entry.last.eq(piece.last),
        ]
        with m.If(queue.room & lost):
            m.d.comb += [queue.push.eq(1), entry.skipped.eq(~all_lost), entry.outcome.eq(Outcome.TIMEOUT)]
        with m.Elif(queue.room):
            m.d.comb += [
                gate.requests.valid.eq(1),
                queue.push.eq(gate.requests.ready),
                entry.outcome.eq(Mux(gate.blocked, Outcome.REVOKED, Outcome.DONE)),
                slots.issue.eq(queue.push & ~gate.blocked),
            ]

    def _elaborate_delivery(self, m, slots, queue, now):
        """The oldest request, when it is done: its rows of the slot, cut to its bytes and packed."""
        m.submodules.packer = packer = Packer(self._width)
        wiring.connect(m, packer.packed, wiring.flipped(self.data))
        entry, beat_bytes = queue.read.data, self._width // 8
        shift, rows = exact_log2(beat_bytes), exact_log2(self._slot_bytes // beat_bytes)
        sent, done, due, age = Signal(), Signal(), Signal(), Signal(TIMEOUT_BITS)
        place, left, begun = Signal(12), Signal(SIZE_BITS), Signal()
        start, size, count = Signal(12), Signal(SIZE_BITS), Signal(range(beat_bytes + 1))
        worst, outcome, offered = Signal(Outcome), Signal(Outcome), _Row(beat_bytes)
        moves, takes, final = Signal(), Signal(), Signal()
        fault = Mux(sent, slots.fault, entry.outcome)
        m.d.comb += [
            sent.eq(entry.outcome == Outcome.DONE),
            done.eq(~sent | slots.done.bit_select(queue.head, 1)),
            due.eq((queue.used != 0) & done),
            slots.fault_tag.eq(queue.head),
            slots.expire_tag.eq(queue.head),
            slots.expire.eq((queue.used != 0) & sent & slots.pending.bit_select(queue.head, 1)
                            & (age >= self.timeout)),
            age.eq(now - entry.stamp),
            # The row that is looked up now
            start.eq(Mux(begun, place, entry.start)),
            size.eq(Mux(begun, left, entry.size)),
            count.eq(Mux(size < beat_bytes - start[:shift], size, beat_bytes - start[:shift])),
            final.eq(count == size),
            slots.row.eq(Cat(start[shift:shift + rows], queue.head)),
            # ... and the one that comes out of the memory.
            packer.pieces.valid.eq(offered.valid),
            packer.pieces.payload.data.eq(Mux(offered.blank, 0, slots.row_data)),
            packer.pieces.payload.offset.eq(offered.offset),
            packer.pieces.payload.count.eq(offered.count),
            packer.pieces.payload.end.eq(offered.end),
            moves.eq(~offered.valid | packer.pieces.ready),
            slots.row_enable.eq(moves),
            outcome.eq(Mux(worst == Outcome.DONE, fault, worst)),
            takes.eq(due & ~entry.skipped & moves & ~(final & entry.last & self.reports.valid)),
            queue.pop.eq((takes & final) | (due & entry.skipped)),
        ]
        with m.If(moves):
            m.d.sync += [
                offered.valid.eq(takes), offered.offset.eq(start[:shift]), offered.count.eq(count),
                offered.end.eq(final & entry.last), offered.blank.eq(fault != Outcome.DONE),
            ]
        with m.If(takes):
            m.d.sync += [begun.eq(~final), place.eq(start + count), left.eq(size - count)]
            with m.If(final):
                m.d.sync += worst.eq(Mux(entry.last, Outcome.DONE, outcome))
        with m.If(self.reports.ready):
            m.d.sync += self.reports.valid.eq(0)
        with m.If(takes & final & entry.last):
            m.d.sync += [self.reports.valid.eq(1), self.reports.payload.tag.eq(entry.tag),
                         self.reports.payload.outcome.eq(outcome)]


class _Queue:
    """The requests in order. A place in it is a tag."""

    def __init__(self, tags, write, read):
        self.write, self.read = write, read
        self.head, self.tail, self.used = Signal(range(tags)), Signal(range(tags)), Signal(range(tags + 1))
        self.push, self.pop, self.room = Signal(), Signal(), Signal()


class _Row:
    """A row that comes out of the memory: `count` bytes from `offset` on; `blank`: zeros instead."""

    def __init__(self, beat_bytes):
        self.valid, self.end, self.blank = Signal(), Signal(), Signal()
        self.offset, self.count = Signal(range(beat_bytes)), Signal(range(beat_bytes + 1))
