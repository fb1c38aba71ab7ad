"""`WindowPusher`: takes window snapshots whole, and sends them as messages of the link.

Contract: `input` is always ready, so that the analyzer never waits for a line. Two snapshots fit, one that leaves and
one that waits, in a ring of half as many words more than the longest has, rounded up to a power of two: a snapshot that
begins while `push` is set is kept if none waits and half of the one before it has left. Any other is dropped whole, and
counted in `skipped` if `push` is set; so is one longer than `max_words`. Word 6 of a snapshot that is sent holds its
own value plus `skipped`. The message begins once the snapshot is complete.
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
        self._ring_bits = (max_words + max_words // 2).bit_length()
        super().__init__({
            "input": In(stream.Signature(TELEMETRY_WORD, always_ready=True)),
            "push": In(1),
            "skipped": Out(32),
            "output": Out(stream.Signature(FRAME_BYTE)),
        })

    def elaborate(self, platform):
        m = Module()
        bits = self._ring_bits
        m.submodules.words = words = memory.Memory(shape=32, depth=1 << bits, init=[])
        # Places in the ring: of the word that leaves, and behind the last one of the snapshot that leaves, and of the
        # one that waits.
        leaving, end, following_end = Signal(bits), Signal(bits), Signal(bits)
        full, waits = Signal(), Signal()  # a complete snapshot leaves; one more waits
        kept, sent, behind = Signal(), Signal(), Signal(bits)  # one became complete, up to `behind`; one has left
        self._elaborate_input(m, words.write_port(), leaving, waits, kept, behind)
        self._elaborate_output(m, words.read_port(), leaving, full, end, sent)
        with m.If(kept & (~full | sent)):
            m.d.sync += [full.eq(1), end.eq(behind)]
        with m.Elif(kept):
            m.d.sync += [waits.eq(1), following_end.eq(behind)]
        with m.Elif(sent):
            m.d.sync += [full.eq(waits), end.eq(following_end), waits.eq(0)]
        return m

    def _elaborate_input(self, m, port, leaving, waits, kept, behind):
        word = self.input.payload
        inside, keep = Signal(), Signal()    # a snapshot has begun; it is being kept
        taken, accepts, room = Signal(), Signal(), Signal()
        position = Signal(range(self._max_words + 1))  # in the snapshot
        place, first = Signal(self._ring_bits), Signal(self._ring_bits)  # in the ring: of this word, of its snapshot
        # A cycle late, in which one word more may have come.
        m.d.sync += room.eq((place - leaving)[:self._ring_bits] < (1 << self._ring_bits) - self._max_words)
        m.d.comb += [
            accepts.eq(Mux(inside, keep, self.push & ~waits & room)),
            taken.eq(self.input.valid & accepts & (position != self._max_words)),
            kept.eq(taken & word.last),
            behind.eq(place + 1),
            port.addr.eq(place),
            port.data.eq(Mux(position == _SKIPPED_WORD, word.data + self.skipped, word.data)),
            port.en.eq(taken),
        ]
        with m.If(taken):
            m.d.sync += [position.eq(position + 1), place.eq(behind)]
        with m.If(self.input.valid):
            m.d.sync += [inside.eq(~word.last), keep.eq(taken)]
            with m.If(word.last):
                m.d.sync += position.eq(0)
                with m.If(taken):
                    m.d.sync += first.eq(behind)
                with m.Else():
                    m.d.sync += place.eq(first)
                    with m.If(self.push):
                        m.d.sync += self.skipped.eq(self.skipped + 1)

    def _elaborate_output(self, m, port, leaving, full, end, sent):
        head = Array([C(MessageType.WINDOW.value, 8), C(0, 8), C(0, 8)])
        place = Signal(range(_HEADER_BYTES))
        following, behind = Signal(self._ring_bits), Signal(self._ring_bits)
        lane = Signal(2)
        step = Signal()
        # The memory answers a cycle late: its address is already that of the word in the next cycle.
        m.d.comb += [behind.eq(leaving + 1), following.eq(Mux(step, behind, leaving)), port.addr.eq(following)]
        m.d.sync += leaving.eq(following)
        with m.FSM():
            with m.State("header"):
                m.d.comb += [self.output.valid.eq(full), self.output.payload.data.eq(head[place])]
                with m.If(full & self.output.ready):
                    m.d.sync += place.eq(place + 1)
                    with m.If(place == _HEADER_BYTES - 1):
                        m.d.sync += place.eq(0)
                        m.next = "words"
            with m.State("words"):
                final = (lane == 3) & (behind == end)
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
                        m.next = "header"
