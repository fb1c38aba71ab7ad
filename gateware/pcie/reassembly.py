"""`Reassembly`: completions of several outstanding reads, in any order, into one slot of memory a tag.

A slot holds `slot_bytes`; the bytes of a request lie in it as in memory, at their bus address modulo the slot. There
is room for all that was asked for, so that completions are always taken.

Contract: `issue` says that the request `entry` was sent with `issue_tag`, which is neither pending nor retired. Its
completions, which may be split at any read completion boundary, are put into the slot. Then `done` has the tag's bit
until it is issued again, and `fault` of `fault_tag` tells how it went. A completion that does not fit its request
(byte count, lower address, length) ends it as malformed. `expire`, held while the tag is pending, gives it up. A tag
that was given up, or whose completions make no sense, is `retired`: completions of it may still come, and must never be
taken for those of another request. It is free again when the final one has come. `abandon` gives up all pending tags,
without a trace in `done`; completions wait for that cycle.

Latency: two cycles from the last beat of the final completion to `done`. Rows are read as from a memory: `row_data`
one cycle after `row` and `row_enable`.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .dma import SIZE_BITS, Outcome
from .tlp import CompletionStatus, check_width, completion_layout

__all__ = ["Entry", "Reassembly"]


class Entry(data.Struct):
    """A request: its bytes begin `start` bytes into the slot."""

    start: 12
    size: SIZE_BITS


class Reassembly(wiring.Component):
    """Slots for `tags` requests of up to `slot_bytes` bytes, with beats of `width` bits."""

    def __init__(self, width: int, tags: int, slot_bytes: int):
        if tags not in (2, 4, 8, 16, 32, 64, 128, 256):
            raise ValueError(f"tags must be a power of two from 2 to 256, not {tags!r}")
        if slot_bytes not in (128, 256, 512, 1024, 2048, 4096):
            raise ValueError(f"slot_bytes must be a maximum read request size, 128 to 4096, not {slot_bytes!r}")
        self._width, self._tags, self._slot_words = check_width(width), tags, slot_bytes // 4
        self._tag_bits, self._rows = exact_log2(tags), tags * slot_bytes * 8 // width
        super().__init__({
            "completions": In(stream.Signature(completion_layout(width))),
            "issue": In(1), "issue_tag": In(range(tags)), "entry": In(Entry),
            "expire": In(1), "expire_tag": In(range(tags)),
            "abandon": In(1),
            "pending": Out(tags), "done": Out(tags), "retired": Out(tags),
            "fault_tag": In(range(tags)), "fault": Out(Outcome),
            "row": In(range(self._rows)), "row_enable": In(1), "row_data": Out(width),
            "unexpected": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        header, flags, part = self.completions.payload.header, _Flags(self._tags), _Part()
        m.d.comb += self.retired.eq(flags.retired)
        read_entry, missing, fault = self._elaborate_memories(m, header)
        tag = header.tag[:self._tag_bits]
        self._elaborate_part(m, header, part, read_entry, Mux(flags.fresh.bit_select(tag, 1), read_entry.size,
                                                              missing.read.data))
        m.d.comb += [
            self.completions.ready.eq(~self.abandon),
            part.arrives.eq(self.completions.valid & ~self.abandon & self.completions.payload.first),
            part.ours.eq(header.tag < self._tags),
            missing.write.data.eq(part.left - part.carried),
            self.fault.eq(Mux(flags.faulty.bit_select(self.fault_tag, 1), fault.read.data, Outcome.DONE)),
        ]
        with m.If(self.issue):
            m.d.sync += [bits.bit_select(self.issue_tag, 1).eq(value) for bits, value in (
                (self.pending, 1), (self.done, 0), (flags.fresh, 1), (flags.faulty, 0))]
        with m.If(part.arrives):
            self._elaborate_arrival(m, header, part, flags, missing, fault, tag)
        with m.Elif(self.expire):
            self._elaborate_end(m, flags, fault, self.expire_tag, Outcome.TIMEOUT, retire=True)
        self._elaborate_store(m, header, part, tag)
        with m.If(self.abandon):
            m.d.sync += [self.pending.eq(0), self.done.eq(0), flags.retired.eq(flags.retired | self.pending)]
        return m

    def _elaborate_memories(self, m, header):
        """By tag: what was asked for, how many bytes are missing, what went wrong."""
        m.submodules.entries = entries = Memory(shape=Entry, depth=self._tags, init=[])
        m.submodules.missing = missing = Memory(shape=unsigned(SIZE_BITS), depth=self._tags, init=[])
        m.submodules.faults = faults = Memory(shape=Outcome, depth=self._tags, init=[])
        write, entry = entries.write_port(), entries.read_port(domain="comb")
        missing, fault = _Ports(missing), _Ports(faults)
        m.d.comb += [
            write.addr.eq(self.issue_tag), write.data.eq(self.entry), write.en.eq(self.issue),
            entry.addr.eq(header.tag), missing.read.addr.eq(header.tag), missing.write.addr.eq(header.tag),
            fault.read.addr.eq(self.fault_tag),
        ]
        return entry.data, missing, fault

    def _elaborate_part(self, m, header, part, entry, left):
        """What this completion is of its request. It must be the next part, and not longer than what is missing."""
        m.d.comb += [
            part.left.eq(left),
            part.carried.eq((header.length << 2) - header.lower_address[:2]),
            part.place.eq(entry.start + entry.size - part.left),
            part.final.eq(part.carried >= part.left),
            part.fits.eq((header.length != 0) & (header.byte_count == part.left)
                         & (header.lower_address == part.place[:7]) & (part.carried < part.left + 4)),
        ]

    def _elaborate_arrival(self, m, header, part, flags, missing, fault, tag):
        """The first beat of a completion decides what becomes of it."""
        with m.If(part.ours & self.pending.bit_select(tag, 1)):
            with m.If(header.status == CompletionStatus.UNSUPPORTED):
                self._elaborate_end(m, flags, fault, tag, Outcome.UNSUPPORTED)
            with m.Elif(header.status == CompletionStatus.ABORT):
                self._elaborate_end(m, flags, fault, tag, Outcome.ABORTED)
            with m.Elif((header.status != CompletionStatus.SUCCESS) | ~part.fits):
                self._elaborate_end(m, flags, fault, tag, Outcome.MALFORMED, retire=True)
            with m.Else():
                m.d.comb += [part.stored.eq(1), missing.write.en.eq(1)]
                m.d.sync += flags.fresh.bit_select(tag, 1).eq(0)
                with m.If(part.final):
                    m.d.sync += self.pending.bit_select(tag, 1).eq(0)
                with m.If(header.poisoned):
                    self._elaborate_fault(m, flags, fault, tag, Outcome.POISONED)
        with m.Elif(part.ours & flags.retired.bit_select(tag, 1)):
            with m.If((header.status != CompletionStatus.SUCCESS) | (header.byte_count <= part.carried)):
                m.d.sync += flags.retired.bit_select(tag, 1).eq(0)
        with m.Else():
            m.d.comb += self.unexpected.eq(1)

    def _elaborate_fault(self, m, flags, fault, tag, outcome):
        m.d.comb += [fault.write.en.eq(1), fault.write.addr.eq(tag), fault.write.data.eq(outcome)]
        m.d.sync += flags.faulty.bit_select(tag, 1).eq(1)

    def _elaborate_end(self, m, flags, fault, tag, outcome, retire=False):
        """The request is over, without the rest of its data."""
        self._elaborate_fault(m, flags, fault, tag, outcome)
        m.d.sync += [self.pending.bit_select(tag, 1).eq(0), self.done.bit_select(tag, 1).eq(1)]
        if retire:
            m.d.sync += flags.retired.bit_select(tag, 1).eq(1)

    def _elaborate_store(self, m, header, part, tag):
        """Two stages: where the beat goes; then its words, rotated, into a memory each."""
        lanes, beat = self._width // 32, self.completions.payload
        going, final, later = Signal(), Signal(), Signal(range(self._tags * self._slot_words))
        later_words = Signal(11)
        word, words = Signal.like(later), Signal(11)
        stored, store = Signal(), _Store(self._width, later.shape(), self._tags)
        m.d.comb += [
            word.eq(Mux(beat.first, Cat(part.place[2:2 + (self._slot_words - 1).bit_length()], tag), later)),
            words.eq(Mux(beat.first, header.length, later_words)),
            stored.eq(self.completions.valid & ~self.abandon & Mux(beat.first, part.stored, going)),
        ]
        m.d.sync += [
            store.valid.eq(stored), store.final.eq(stored & beat.last & Mux(beat.first, part.final, final)),
            store.tag.eq(tag), store.data.eq(beat.data), store.word.eq(word),
            store.words.eq(Mux(words > lanes, lanes, words)),
        ]
        with m.If(self.completions.valid):
            m.d.sync += [later.eq(word + lanes), later_words.eq(words - lanes), going.eq(stored)]
            with m.If(beat.first):
                m.d.sync += final.eq(part.final)
        with m.If(self.abandon):
            m.d.sync += going.eq(0)
        with m.If(store.final & ~self.abandon):
            m.d.sync += self.done.bit_select(store.tag, 1).eq(1)
        turned = Signal(self._width)
        turn = store.word[:exact_log2(lanes)]
        m.d.comb += turned.eq(store.data.replicate(2) >> ((lanes - turn).as_unsigned()[:exact_log2(lanes) + 1] << 5))
        for lane in range(lanes):
            m.submodules[f"words{lane}"] = bank = Memory(shape=unsigned(32), depth=self._rows, init=[])
            write, read = bank.write_port(), bank.read_port()
            m.d.comb += [
                write.addr.eq(store.word[exact_log2(lanes):] + (lane < turn)),
                write.data.eq(turned.word_select(lane, 32)),
                write.en.eq(store.valid & ((lane - turn).as_unsigned()[:exact_log2(lanes)] < store.words)),
                read.addr.eq(self.row), read.en.eq(self.row_enable),
                self.row_data.word_select(lane, 32).eq(read.data),
            ]


class _Flags:
    """A bit a tag: no completion has come yet; something went wrong; its completions are not to be believed, which a
    reset of the engine does not change, since they may come after it."""

    def __init__(self, tags):
        self.fresh, self.faulty = Signal(tags), Signal(tags)
        self.retired = Signal(tags, reset_less=True)


class _Ports:
    """A write port and an asynchronous read port of a memory."""

    def __init__(self, memory):
        self.write, self.read = memory.write_port(), memory.read_port(domain="comb")


class _Part:
    """The completion that arrives, as a part of its request."""

    def __init__(self):
        self.arrives, self.ours = Signal(), Signal()  # its first beat; its tag is one that we use
        self.left = Signal(SIZE_BITS)                 # bytes that were missing before it
        self.carried = Signal(SIZE_BITS)              # bytes that it brings, and up to 3 more at the end
        self.place = Signal(12)                       # of its first byte in the slot
        self.fits, self.final, self.stored = Signal(), Signal(), Signal()


class _Store:
    """A beat on its way into the memories: `words` words from `word` on."""

    def __init__(self, width, word_shape, tags):
        self.valid, self.final, self.tag = Signal(), Signal(), Signal(range(tags))
        self.data, self.word, self.words = Signal(width), Signal(word_shape), Signal(range(width // 32 + 1))
