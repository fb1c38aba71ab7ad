"""`Executor`: answers the messages of a host, one after another, in the order of their frames.

Contract: takes each message or corrupt mark from a `MessageBuffer`, sends exactly one answer as a message on
`output`, then releases it. A request that is in sequence is carried out by the `OperationRunner` while its answer
leaves, so that a slow line holds back the run and nothing is buffered; a repeated one only reads and is answered
with the status it had. A message of an unknown type is answered like a corrupt one, and counted by
`unknown`; `repeat` counts repetitions. Both are strobes.
"""

from amaranth import *
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..csr.bus import CsrSignature
from .cobs import FRAME_BYTE
from .operations import OperationRunner, Status
from .receive import BUFFER_BYTES, BUFFER_MESSAGES
from .session import REMEMBERED, SequenceTable

__all__ = ["Executor", "MessageType", "RejectReason"]

PROTOCOL_VERSION = 2


class MessageType(enum.Enum, shape=unsigned(8)):
    """Byte 0 of a message."""

    REQUEST = 0x01
    HELLO = 0x02
    RESPONSE = 0x81
    HELLO_RESPONSE = 0x82
    WINDOW = 0x83
    REJECT = 0x84


class RejectReason(enum.Enum, shape=unsigned(2)):
    """Why a message was not taken."""

    NONE = 0
    NO_SESSION = 1
    OUT_OF_ORDER = 2
    CORRUPT = 3


class Executor(wiring.Component):
    """Link protocol of the device. max_bytes: of the longest message."""

    def __init__(self, max_bytes: int = 512):
        self._max_bytes = max_bytes
        super().__init__({
            "present": In(1),
            "corrupt": In(1),
            "input": In(stream.Signature(8)),
            "remaining": In(range(max_bytes + 1)),
            "rewind": Out(1),
            "release": Out(1),
            "output": Out(stream.Signature(FRAME_BYTE)),
            "bus": Out(CsrSignature(16)),
            "boot_nonce": In(32),
            "repeat": Out(1),
            "unknown": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.table = table = SequenceTable()
        m.submodules.runner = runner = OperationRunner(self._max_bytes)
        wiring.connect(m, runner.bus, wiring.flipped(self.bus))
        kind, session, sequence = Signal(8), Signal(8), Signal(8)
        reason = Signal(RejectReason)
        again = Signal()         # the request is a repetition
        position = Signal(4)     # byte of a message's fixed part
        m.d.comb += [
            table.session.eq(session),
            table.sequence.eq(sequence),
            table.end_status.eq(runner.status),
            table.end_index.eq(runner.index),
            runner.remaining.eq(self.remaining),
            runner.write.eq(~again),
            runner.run.eq(~again | (table.status != Status.MALFORMED)),
            runner.stop.eq(again & (table.status == Status.BUS_ERROR)),
            runner.stop_index.eq(table.index),
            self.rewind.eq(runner.rewind),
        ]
        header = Array([kind, session, sequence])
        with m.FSM():
            with m.State("idle"):
                m.d.sync += [position.eq(0), again.eq(0)]
                with m.If(self.present & self.corrupt):
                    self._reject(m, reason, RejectReason.CORRUPT)
                    m.d.sync += [session.eq(table.current), sequence.eq(0)]
                with m.Elif(self.present):
                    m.next = "header"
            with m.State("header"):
                m.d.comb += self.input.ready.eq(1)
                with m.If(self.input.valid):
                    m.d.sync += [header[position].eq(self.input.payload), position.eq(position + 1)]
                    with m.If(position == 2):
                        m.d.sync += position.eq(0)
                        m.next = "decide"
            with m.State("decide"):
                self._elaborate_decision(m, table, kind, session, sequence, reason, again)
            self._elaborate_hello(m, table, session, position)
            self._elaborate_reject(m, table, session, sequence, reason, position)
            self._elaborate_response(m, table, runner, session, sequence, again, position)
            with m.State("release"):
                m.d.comb += self.release.eq(1)
                m.next = "idle"
        return m

    def _reject(self, m, reason, value):
        m.d.sync += reason.eq(value)
        m.next = "reject"

    def _elaborate_decision(self, m, table, kind, session, sequence, reason, again):
        with m.If(kind == MessageType.HELLO.value):
            m.d.comb += table.hello.eq(session != 0)
            m.next = "hello"
            with m.If(session == 0):
                self._reject(m, reason, RejectReason.NO_SESSION)
        with m.Elif(kind != MessageType.REQUEST.value):
            m.d.comb += self.unknown.eq(1)
            self._reject(m, reason, RejectReason.CORRUPT)
            m.d.sync += [session.eq(table.current), sequence.eq(0)]
        with m.Elif(~table.known):
            self._reject(m, reason, RejectReason.NO_SESSION)
        with m.Elif(table.fresh | table.repeated):
            m.d.comb += self.repeat.eq(~table.fresh)
            m.d.sync += again.eq(~table.fresh)
            m.next = "response"
        with m.Else():
            self._reject(m, reason, RejectReason.OUT_OF_ORDER)

    def _send_fixed(self, m, position, parts, *, last, following):
        """Send the bytes of `parts`, then go on to the state `following`."""
        parts = Array(parts)
        final = position == len(parts) - 1
        m.d.comb += [
            self.output.valid.eq(1),
            self.output.payload.data.eq(parts[position]),
            self.output.payload.last.eq(final & last),
        ]
        with m.If(self.output.ready):
            m.d.sync += position.eq(position + 1)
            with m.If(final):
                m.d.sync += position.eq(0)
                m.next = following

    def _elaborate_hello(self, m, table, session, position):
        with m.State("hello"):
            numbers = Cat(C(PROTOCOL_VERSION, 8), C(REMEMBERED, 8), C(self._max_bytes, 16), self.boot_nonce,
                          table.previous_session, table.previous_expected, C(BUFFER_BYTES, 16), C(BUFFER_MESSAGES, 8))
            self._send_fixed(m, position, [
                C(MessageType.HELLO_RESPONSE.value, 8), session, C(0, 8),
                *(numbers[start:start + 8] for start in range(0, len(numbers), 8)),
            ], last=1, following="release")

    def _elaborate_reject(self, m, table, session, sequence, reason, position):
        with m.State("reject"):
            self._send_fixed(m, position, [
                C(MessageType.REJECT.value, 8), session, sequence, reason.as_value(), table.expected,
            ], last=1, following="release")

    def _elaborate_response(self, m, table, runner, session, sequence, again, position):
        # The header goes out first, so that words can follow as they are read.
        with m.State("response"):
            self._send_fixed(m, position, [C(MessageType.RESPONSE.value, 8), session, sequence],
                             last=0, following="start")
        with m.State("start"):
            m.d.comb += runner.start.eq(1)
            m.next = "run"
        with m.State("run"):
            wiring.connect(m, wiring.flipped(self.input), runner.bytes)
            m.d.comb += [
                self.output.payload.data.eq(runner.words.payload),
                self.output.valid.eq(runner.words.valid),
                runner.words.ready.eq(self.output.ready),
            ]
            with m.If(runner.done):
                m.next = "status"
        with m.State("status"):
            self._send_fixed(m, position, [
                Mux(again, table.status, runner.status.as_value()), Mux(again, table.index, runner.index),
            ], last=1, following="finish")
        with m.State("finish"):
            m.d.comb += table.finish.eq(~again)
            m.next = "release"
