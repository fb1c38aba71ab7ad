"""`DmaWriter`: writes packed data to host memory, as commands say, within what is granted.

Contract: a command takes ceil(length / beat) beats of `data`, byte 0 lowest, whatever becomes of it; commands and their
data are in the same order. It is split at maximum payload size (`max_payload`, 128 << n bytes) and 4 KiB. Its report
follows when its last request was handed on (a posted write is not answered): a request that is sent after the report,
such as an interrupt, arrives after the data.

Throughput: a beat a cycle, also where a command is split; a cycle lies between commands that are there early enough
for the next one to be looked up (5 to 12 cycles) meanwhile.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .align import Cutter
from .dma import SIZE_BITS, Command, Outcome, Report, Splitter, enables, outcome_of
from .protection import LENGTH_BITS, Gate, GrantStatus, TableSignature
from .tlp import RequestKind, check_width, request_layout

__all__ = ["DmaWriter"]


class DmaWriter(wiring.Component):
    """Write engine with beats of `width` bits. `enable`: bus mastering is on."""

    def __init__(self, width: int = 64):
        self._width = check_width(width)
        super().__init__({
            "commands": In(stream.Signature(Command)),
            "data": In(stream.Signature(width)),
            "reports": Out(stream.Signature(Report)),
            "requests": Out(stream.Signature(request_layout(width))),
            "table": Out(TableSignature()),
            "requester_id": In(16),
            "max_payload": In(3),
            "enable": In(1, init=1),
            "blocked": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.gate = gate = Gate(self._width)
        m.submodules.splitter = splitter = Splitter()
        m.submodules.cutter = cutter = Cutter(self._width, SIZE_BITS)
        wiring.connect(m, gate.table, wiring.flipped(self.table))
        wiring.connect(m, gate.passed, wiring.flipped(self.requests))
        m.d.comb += [gate.enable.eq(self.enable), self.blocked.eq(gate.blocked), splitter.limit.eq(self.max_payload)]
        following, waiting = self._elaborate_lookup(m, gate)
        self._elaborate_requests(m, gate, splitter, cutter)

        tag, outcome = Signal(8), Signal(Outcome)
        beats, beat_bytes = Signal(LENGTH_BITS), self._width // 8
        m.d.comb += [splitter.address.eq(gate.grant.payload.address), splitter.length.eq(following.length)]
        # Beside the next command: a report that was not taken yet. Only the end of that command waits for it.
        free = ~self.reports.valid | self.reports.ready
        with m.If(self.reports.ready):
            m.d.sync += self.reports.valid.eq(0)

        def report(outcome):
            m.d.sync += [self.reports.valid.eq(1), self.reports.payload.tag.eq(tag),
                         self.reports.payload.outcome.eq(outcome)]

        def begin():
            """The grant of the next command, if it is there, is taken: what is to be done next."""
            m.d.sync += [tag.eq(following.tag),
                         beats.eq((following.length + (beat_bytes - 1)) // beat_bytes)]
            m.next = "idle"
            with m.If(waiting & gate.grant.valid & (following.length != 0)):
                m.d.comb += gate.grant.ready.eq(1)
                m.d.sync += [outcome.eq(outcome_of(gate.grant.payload.status)), waiting.eq(0)]
                m.next = "drain"
                with m.If(gate.grant.payload.status == GrantStatus.GRANTED):
                    m.d.comb += splitter.load.eq(1)
                    m.next = "send"

        with m.FSM():
            with m.State("idle"):
                begin()
                with m.If(waiting & (following.length == 0)):
                    m.d.sync += [outcome.eq(Outcome.EMPTY), waiting.eq(0)]
                    m.next = "report"
            with m.State("send"):
                wiring.connect(m, wiring.flipped(self.data), cutter.packed)
                with m.If(gate.blocked):
                    m.d.sync += outcome.eq(Outcome.REVOKED)
                with m.If(gate.requests.valid & gate.requests.ready & gate.requests.payload.last
                          & splitter.pieces.payload.last):
                    m.next = "settle"
            # The report must not overtake the last beat, which is in the gate.
            with m.State("settle"):
                with m.If((gate.empty | gate.passed.ready) & free):
                    m.d.comb += gate.finish.eq(1)
                    report(outcome)
                    begin()
            with m.State("drain"):
                m.d.comb += self.data.ready.eq(1)
                with m.If(self.data.valid):
                    m.d.sync += beats.eq(beats - 1)
                    with m.If(beats == 1):
                        m.next = "report"
            with m.State("report"):
                with m.If(free):
                    report(outcome)
                    m.next = "idle"
        return m

    def _elaborate_lookup(self, m, gate):
        """The next command is looked up while the one before is carried out; one without bytes is not."""
        following, waiting = Signal(Command), Signal()
        command, empty = self.commands.payload, self.commands.payload.length == 0
        m.d.comb += [
            gate.access.valid.eq(self.commands.valid & ~waiting & ~empty),
            gate.access.payload.tenant.eq(command.tenant),
            gate.access.payload.generation.eq(command.generation),
            gate.access.payload.address.eq(command.address),
            gate.access.payload.length.eq(command.length),
            gate.access.payload.write.eq(1),
            self.commands.ready.eq(~waiting & (gate.access.ready | empty)),
        ]
        with m.If(self.commands.valid & self.commands.ready):
            m.d.sync += [following.eq(command), waiting.eq(1)]
        return following, waiting

    def _elaborate_requests(self, m, gate, splitter, cutter):
        """A piece of the splitter, with its bytes from the cutter, is a request."""
        piece, header = splitter.pieces.payload, gate.requests.payload.header
        statements, length, first, last = enables(piece.address, piece.size)
        m.d.comb += [
            *statements,
            header.kind.eq(RequestKind.WRITE),
            header.address.eq(piece.address[2:]),
            header.length.eq(length),
            header.first_be.eq(first),
            header.last_be.eq(last),
            header.requester_id.eq(self.requester_id),
            cutter.want.eq(splitter.pieces.valid),
            cutter.size.eq(piece.size),
            cutter.offset.eq(piece.address[:2]),
            cutter.end.eq(piece.last),
            gate.requests.payload.data.eq(cutter.payload.payload.data),
            gate.requests.payload.first.eq(cutter.payload.payload.first),
            gate.requests.payload.last.eq(cutter.payload.payload.last),
            gate.requests.valid.eq(cutter.payload.valid),
            cutter.payload.ready.eq(gate.requests.ready),
            splitter.pieces.ready.eq(cutter.payload.payload.last & cutter.payload.valid & gate.requests.ready),
        ]
