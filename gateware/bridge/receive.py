"""`MessageBuffer`: checked messages wait here for the executor, while more arrive.

Contract: tokens are taken in every cycle (`input.ready` is always high, because a serial line cannot wait). A message
counts once its end has come without error; one with an error leaves a *corrupt* mark in its place, so that answers keep
the order of the frames. A message that finds no room is lost as if the line had lost it; what a host may have in flight
must fit, or be sent as it is answered. The oldest message or mark is at the output: `present`, and for a message its
bytes in order, at a byte a cycle, `remaining` counting those that were not taken. `rewind` for one cycle starts again
behind the three bytes of the header; `release` for one cycle goes on to the next message.
"""

from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from .cobs import FRAME_TOKEN

__all__ = ["BUFFER_BYTES", "BUFFER_MESSAGES", "HEADER_BYTES", "MessageBuffer"]

HEADER_BYTES = 3
BUFFER_BYTES = 4096
BUFFER_MESSAGES = 64


class MessageBuffer(wiring.Component):
    """Ring of messages. depth: bytes, a power of two. messages: most that may wait. max_bytes: of one message."""

    def __init__(self, *, depth: int = BUFFER_BYTES, messages: int = BUFFER_MESSAGES, max_bytes: int = 512):
        if depth < 2 * max_bytes or depth & depth - 1:
            raise ValueError(f"depth must be a power of two of at least {2 * max_bytes}, not {depth!r}")
        if messages < 2:
            raise ValueError(f"messages must be at least 2, not {messages!r}")
        self._depth = depth
        self._messages = messages
        self._max_bytes = max_bytes
        super().__init__({
            "input": In(stream.Signature(FRAME_TOKEN, always_ready=True)),
            "output": Out(stream.Signature(8)),
            "present": Out(1),
            "corrupt": Out(1),
            "remaining": Out(range(max_bytes + 1)),
            "rewind": In(1),
            "release": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.ring = ring = memory.Memory(shape=8, depth=self._depth, init=[])
        # Length of each waiting message; 0 is a corrupt mark.
        m.submodules.lengths = lengths = SyncFIFO(width=self._max_bytes.bit_length(),
                                                  depth=self._messages)
        head = Signal(range(self._depth))   # first byte of the oldest message
        used = Signal(range(self._depth + 1))
        added, freed = Signal.like(used), Signal.like(used)
        m.d.sync += used.eq(used + added - freed)
        self._elaborate_input(m, ring.write_port(), lengths, used, added)
        self._elaborate_output(m, ring.read_port(), lengths, head, freed)
        return m

    def _elaborate_input(self, m, port, lengths, used, added):
        token = self.input.payload
        base = Signal(range(self._depth))   # where the message that is arriving begins
        length = Signal(range(self._max_bytes + 1))
        room, lost = Signal(), Signal()
        m.d.comb += [
            room.eq(used + length < self._depth),
            port.addr.eq(base + length),
            port.data.eq(token.data),
        ]
        with m.If(self.input.valid & ~token.end):
            with m.If(room & ~lost):
                m.d.comb += port.en.eq(1)
                m.d.sync += length.eq(length + 1)
            with m.Else():
                m.d.sync += lost.eq(1)
        with m.Elif(self.input.valid):
            m.d.sync += [length.eq(0), lost.eq(0)]
            with m.If(token.error):
                m.d.comb += [lengths.w_en.eq(lengths.w_rdy), lengths.w_data.eq(0)]
            with m.Elif(lengths.w_rdy & ~lost):
                m.d.comb += [lengths.w_en.eq(1), lengths.w_data.eq(length), added.eq(length)]
                m.d.sync += base.eq(base + length)

    def _elaborate_output(self, m, port, lengths, head, freed):
        position = Signal(range(self._depth))
        following = Signal(range(self._depth))
        current = Signal()     # `remaining` is that of the message at the head
        fetched = Signal()     # the memory has seen `position`
        taken = Signal()
        length = lengths.r_data
        m.d.comb += [
            self.present.eq(lengths.r_rdy & current),
            self.corrupt.eq(length == 0),
            self.output.payload.eq(port.data),
            self.output.valid.eq(self.present & fetched & (self.remaining != 0)),
            taken.eq(self.output.valid & self.output.ready),
            # The memory answers a cycle late: its address is that of the byte on offer in the next cycle.
            following.eq(position + taken),
            port.addr.eq(following),
        ]
        m.d.sync += [position.eq(following), fetched.eq(1)]
        with m.If(taken):
            m.d.sync += self.remaining.eq(self.remaining - 1)
        with m.If(lengths.r_rdy & ~current):
            m.d.sync += [current.eq(1), self.remaining.eq(length), position.eq(head), fetched.eq(0)]
        with m.If(self.rewind):
            m.d.sync += [
                self.remaining.eq(length - HEADER_BYTES),
                position.eq(head + HEADER_BYTES),
                fetched.eq(0),
            ]
        with m.If(self.release):
            m.d.comb += [lengths.r_en.eq(1), freed.eq(length)]
            m.d.sync += [head.eq(head + length), current.eq(0)]
