"""CRC-32C shard: answers each request packet with the CRC-32C (Castagnoli) of its payload.

Contract: a shard (see `shard.py`). It takes a word of `config.slot_bytes` payload bytes a cycle; the bytes of a last
word that is not whole cost a cycle each. Requests follow each other without a gap as long as the answers are taken.
`result` is the CRC; there are no errors.
"""

from functools import reduce
from operator import xor

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .shard import ShardId, ShardSignature, Status

__all__ = ["Crc32cCore", "Crc32cShard", "crc32c_tables"]

POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed


def crc32c_tables(count: int = 4) -> list[list[int]]:
    """Tables for slicing by `count`: table k advances a byte by k further zero bytes."""
    first = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)
        first.append(crc)
    tables = [first]
    for _ in range(1, count):
        tables.append([(entry >> 8) ^ first[entry & 0xFF] for entry in tables[-1]])
    return tables


class Crc32cCore(wiring.Component):
    """One step a cycle over a word of `word_bytes` (1 to 4) bytes or over one byte.

    step: carry out a step on `word`; `single` takes only its lowest byte; `first` begins a new checksum.
    crc: the checksum (final inversion done), valid from the cycle after a step until the next one.

    The state lives in the output registers of a ROM a byte (slicing by `word_bytes`): one block-RAM access closes the
    loop, and a simulator does few look-ups instead of a thousand exclusive-ors. Entry 0 of every table is 0, so a
    table that does not take part in a step is addressed with 0 and drops out of the sum.
    """

    def __init__(self, word_bytes: int):
        if not 1 <= word_bytes <= 4:
            raise ValueError(f"word_bytes must be in 1..4, not {word_bytes!r}")
        self._word_bytes = word_bytes
        super().__init__({
            "step": In(1),
            "first": In(1),
            "single": In(1),
            "word": In(8 * word_bytes),
            "crc": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        keep = Signal(32)  # what of the state the step shifts down without a look-up
        begun = Signal(32)
        mixed = Signal(32)
        outputs = []
        for index, table in enumerate(crc32c_tables(self._word_bytes)):
            m.submodules[f"table_{index}"] = rom = memory.Memory(shape=32, depth=256, init=table)
            port = rom.read_port()
            byte = mixed.word_select(self._word_bytes - 1 - index, 8)
            if index == 0:  # a single byte goes through the table without further advance
                byte = Mux(self.single, mixed[:8], byte)
            else:
                byte = Mux(self.single, 0, byte)
            m.d.comb += [port.addr.eq(byte), port.en.eq(self.step)]
            outputs.append(port.data)
        state = Signal(32)
        m.d.comb += [
            state.eq(reduce(xor, outputs, keep)),
            begun.eq(Mux(self.first, 0xFFFFFFFF, state)),
            mixed.eq(begun ^ self.word),
            self.crc.eq(~state),
        ]
        with m.If(self.step):
            m.d.sync += keep.eq(Mux(self.single, begun[8:], begun[8 * self._word_bytes:]))
        return m


class Crc32cShard(wiring.Component):
    """The shard: takes beats apart into words and runs the core."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        self._word_bytes = config.slot_bytes
        super().__init__({"slot": In(ShardSignature(config))})

    def _cut_beat(self, m, beat):
        """Drive the word at `index` of `beat`; return (word, bytes of it that exist, index, byte offset).

        `present` counts from the word's first byte to the end of the packet and is cut at a word.
        """
        size = self._word_bytes
        index = Signal(range(max(self._config.beat_bytes // size, 2)))
        offset = Signal(range(max(size, 2)))
        in_beat = Signal(range(self._config.beat_bytes + 1))
        left = Signal(range(self._config.beat_bytes + 1))
        present = Signal(range(size + 1))
        word = Signal(8 * size)
        m.d.comb += [
            in_beat.eq(self._config.beat_bytes - Mux(beat.last, beat.empty, 0)),
            left.eq(in_beat - index * size),
            present.eq(Mux(left > size, size, left)),
            word.eq(beat.data.word_select(index, 8 * size)),
        ]
        return word, present, left, index, offset

    def elaborate(self, platform):
        m = Module()
        size = self._word_bytes
        header, beats, answers = self.slot.request.header, self.slot.request.data, self.slot.answers
        m.submodules.core = core = Crc32cCore(size)
        word, present, left, index, offset = self._cut_beat(m, beats.payload)

        # The core may start over while the answer is offered only if the answer is taken in that cycle: else the
        # CRC, which is the core's state, would be overwritten.
        go, first, final = Signal(), Signal(init=1), Signal()
        whole_word, end_of_beat = Signal(), Signal()
        m.d.comb += [
            go.eq(header.valid & beats.valid & (~answers.valid | answers.ready)),
            whole_word.eq(present == size),
            core.step.eq(go),
            core.first.eq(first),
            core.single.eq(~whole_word),
            core.word.eq(Mux(whole_word, word, word >> (offset << 3))),
            end_of_beat.eq(Mux(whole_word, left == size, offset + 1 == present)),
            final.eq(end_of_beat & beats.payload.last),
            beats.ready.eq(go & end_of_beat),
            header.ready.eq(go & final),
        ]
        with m.If(go):
            m.d.sync += [
                first.eq(final),
                offset.eq(Mux(whole_word | end_of_beat, 0, offset + 1)),
                index.eq(Mux(end_of_beat, 0, Mux(whole_word, index + 1, index))),
            ]
        self._answer(m, core, go & final)
        return m

    def _answer(self, m, core, done):
        """Offers the CRC, which is valid from the cycle after the last step."""
        request, answers = self.slot.request.header.payload, self.slot.answers
        tenant, tag = Signal(6), Signal.like(request.tag)
        m.d.comb += [
            self.slot.kind.eq(ShardId.CRC32C),
            answers.payload.tenant.eq(tenant),
            answers.payload.tag.eq(tag),
            answers.payload.result.eq(core.crc),
            answers.payload.status.eq(Status.OK),
            answers.payload.shard.eq(ShardId.CRC32C),
        ]
        with m.If(done):
            m.d.sync += [answers.valid.eq(1), tenant.eq(request.packet.tenant), tag.eq(request.tag)]
        with m.Elif(answers.ready):
            m.d.sync += answers.valid.eq(0)
