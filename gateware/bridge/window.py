"""`WindowPusher`: takes a window snapshot whole, then sends it as a message of the link.

Contract: `input` is always ready, so that the analyzer never waits for a line. A snapshot that begins while `push`
is set and the one before it has left is kept and sent; any other is dropped whole, and counted in `skipped` if
`push` is set. Word 6 of a snapshot that is sent holds its own value plus `skipped`. A snapshot longer than
`max_words` is dropped and counted too. The message begins once the snapshot is complete.
"""

from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.telemetry import TELEMETRY_WORD
from .cobs import FRAME_BYTE
from .executor import MessageType

__all__ = ["WindowPusher"]

_HEADER_BYTES = 3
_SKIPPED_WORD = 6


class WindowPusher(wiring.Component):
    """From snapshots to messages. max_words: of the longest snapshot."""

    def __init__(self, max_words: int):
        if max_words <= _SKIPPED_WORD:
            raise ValueError(f"max_words must be above {_SKIPPED_WORD}, not {max_words!r}")
        self._max_words = max_words
        super().__init__({
            "input": In(stream.Signature(TELEMETRY_WORD, always_ready=True)),
            "push": In(1),
            "skipped": Out(32),
            "output": Out(stream.Signature(FRAME_BYTE)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = memory.Memory(shape=32, depth=self._max_words, init=[])
        full = Signal()   # a complete snapshot waits or leaves
        count = Signal(range(self._max_words + 1))  # words of the snapshot that is kept
        sent = Signal()
        self._elaborate_input(m, words.write_port(), full, count)
        self._elaborate_output(m, words.read_port(), full, count, sent)
        with m.If(sent):
            m.d.sync += full.eq(0)
        return m

    def _elaborate_input(self, m, port, full, count):
        word = self.input.payload
        inside, keep = Signal(), Signal()    # a snapshot has begun; it is being kept
        taken, accepts = Signal(), Signal()
        position = Signal(range(self._max_words + 1))
        m.d.comb += [
            accepts.eq(Mux(inside, keep, self.push & ~full)),
            taken.eq(self.input.valid & accepts & (position != self._max_words)),
            port.addr.eq(position),
            port.data.eq(Mux(position == _SKIPPED_WORD, word.data + self.skipped, word.data)),
            port.en.eq(taken),
        ]
        with m.If(self.input.valid):
            m.d.sync += [inside.eq(~word.last), keep.eq(taken), position.eq(position + taken)]
            with m.If(word.last):
                m.d.sync += position.eq(0)
                with m.If(taken):
                    m.d.sync += [full.eq(1), count.eq(position + 1)]
                with m.Elif(self.push):
                    m.d.sync += self.skipped.eq(self.skipped + 1)

    def _elaborate_output(self, m, port, full, count, sent):
        head = Array([C(MessageType.WINDOW.value, 8), C(0, 8), C(0, 8)])
        place = Signal(range(_HEADER_BYTES))
        position, following = Signal(range(self._max_words + 1)), Signal(range(self._max_words + 1))
        lane = Signal(2)
        step = Signal()
        # The memory answers a cycle late: its address is already that of the word in the next cycle.
        m.d.comb += [following.eq(position + step), port.addr.eq(following)]
        m.d.sync += position.eq(following)
        with m.FSM():
            with m.State("header"):
                m.d.comb += [self.output.valid.eq(full), self.output.payload.data.eq(head[place])]
                with m.If(full & self.output.ready):
                    m.d.sync += place.eq(place + 1)
                    with m.If(place == _HEADER_BYTES - 1):
                        m.d.sync += place.eq(0)
                        m.next = "words"
            with m.State("words"):
                final = (lane == 3) & (position == count - 1)
                m.d.comb += [
                    self.output.valid.eq(1),
                    self.output.payload.data.eq(port.data.word_select(lane, 8)),
                    self.output.payload.last.eq(final),
                ]
                with m.If(self.output.ready):
                    m.d.sync += lane.eq(lane + 1)
                    m.d.comb += step.eq(lane == 3)
                    with m.If(final):
                        m.d.comb += sent.eq(1)
                        m.d.sync += position.eq(0)
                        m.next = "header"
