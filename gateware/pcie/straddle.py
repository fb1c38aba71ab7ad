"""TLPs on a 512-bit AXI stream that begin in either half of a beat, as the UltraScale+ block straddles them, and back.

Without, a TLP of 256 bytes and its descriptor take 5 beats, and the link is faster than that; with, two of them take 9.
A beat has room for the end of one TLP in its lower half and the beginning of another in the upper one. Its TLPs are
described by `Marks`: up to two begin (`sop`, in which half) and up to two end (`eop`, at which DW), in their order.

Throughput: `StraddlingInserter` begins a TLP in the beat with the rest of the one before if that rest fits the lower
half and the next TLP is there; else it begins with the next beat. `StraddlingRemover` takes a beat a cycle, and one
more for each TLP that ends in the beat in which it began, or that leaves a rest beside another's beginning. Latency: as
of `DescriptorInserter` and `DescriptorRemover`.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Marks", "StraddlingInserter", "StraddlingRemover", "straddled_layout"]

WIDTH, LANES, HALF = 512, 16, 8


class Marks(data.Struct):
    """Where TLPs begin and end in a beat. `upper`: the TLP begins in the upper half; `eop_at`: its last DW."""

    sop: 2
    upper: 2
    eop: 2
    eop_at: data.ArrayLayout(4, 2)


def straddled_layout(side) -> data.StructLayout:
    """A beat, its marks, and what goes beside the one TLP that begins in it (the inserter begins no more)."""
    return data.StructLayout({"data": WIDTH, "marks": Marks, "side": side})


class StraddlingInserter(wiring.Component):
    """input: payload beats with `descriptor`, `carried` (DWs of the TLP's payload), `side`; output: straddled beats."""

    def __init__(self, words: int, side):
        if not 1 <= words < HALF:
            raise ValueError(f"words must be in 1..{HALF - 1}, not {words!r}")
        self._words = words
        super().__init__({
            "input": In(stream.Signature(data.StructLayout({
                "descriptor": 32 * words, "carried": 11, "side": side, "data": WIDTH, "last": 1}))),
            "output": Out(stream.Signature(straddled_layout(side))),
        })

    def elaborate(self, platform):
        m = Module()
        given, out, marks = self.input.payload, self.output.payload, self.output.payload.marks
        high = Signal()                      # the TLP in progress began in the upper half
        left, rest = Signal(11), Signal(5)   # DWs of its payload that have not gone, those in `held` included
        held = Signal(32 * LANES)
        low, up = self._words, self._words + HALF  # DWs that are held of a TLP that began low, and high
        begin, tail = Signal(), Signal()
        takes, begins_high, alone = Signal(), Signal(), Signal()
        m.d.comb += [
            self.output.valid.eq(tail | self.input.valid), self.input.ready.eq(takes & self.output.ready),
            takes.eq(~tail | begins_high), out.side.eq(given.side),
            begins_high.eq(tail & self.input.valid & (rest <= HALF) & ~alone),
        ]
        # What is offered does not change: a rest that was offered alone stays so.
        m.d.sync += alone.eq(tail & ~begins_high & ~self.output.ready)
        after = Signal(12)  # DWs of the TLP at the input that this beat leaves over
        with m.If(begins_high):
            m.d.comb += after.eq(Mux(given.carried > LANES - up, given.carried - (LANES - up), 0))
        with m.Elif(begin):
            m.d.comb += after.eq(Mux(given.carried > LANES - low, given.carried - (LANES - low), 0))
        with m.Else():
            m.d.comb += after.eq(Mux(left > LANES, left - LANES, 0))
        self._elaborate_beat(m, given, out, marks, high, held, left, rest, after, begin, tail, begins_high)
        starts_high = Mux(begins_high, 1, Mux(begin, 0, high))
        moves = self.output.valid & self.output.ready
        with m.If(moves & takes & self.input.valid):
            m.d.sync += [left.eq(after), rest.eq(after), high.eq(starts_high),
                         held.eq(Mux(starts_high, given.data[32 * (LANES - up):], given.data[32 * (LANES - low):]))]
        with m.FSM():
            with m.State("begin"):
                m.d.comb += begin.eq(1)
                with m.If(moves & (after != 0)):
                    m.next = "body"
                    with m.If(given.last):
                        m.next = "tail"
            with m.State("body"):
                with m.If(moves & given.last):
                    m.next = "begin"
                    with m.If(after != 0):
                        m.next = "tail"
            # What is held is the end of a TLP whose beats were all taken.
            with m.State("tail"):
                m.d.comb += tail.eq(1)
                with m.If(moves):
                    m.next = "begin"
                    with m.If(begins_high & (after != 0)):
                        m.next = "body"
                        with m.If(given.last):
                            m.next = "tail"
        return m

    def _elaborate_beat(self, m, given, out, marks, high, held, left, rest, after, begin, tail, begins_high):
        low, up, size = self._words, self._words + HALF, 32
        ends = after == 0
        with m.If(begin):
            m.d.comb += [out.data.eq(Cat(given.descriptor, given.data)), marks.sop.eq(1),
                         marks.eop.eq(ends), marks.eop_at[0].eq(low - 1 + given.carried)]
        with m.Elif(~tail):
            m.d.comb += [out.data.eq(Mux(high, Cat(held[:size * up], given.data), Cat(held[:size * low], given.data))),
                         marks.eop.eq(ends), marks.eop_at[0].eq(left - 1)]
        with m.Else():
            m.d.comb += [out.data.eq(held), marks.eop.eq(1), marks.eop_at[0].eq(rest - 1)]
            with m.If(begins_high):
                m.d.comb += [out.data[size * HALF:].eq(Cat(given.descriptor, given.data)), marks.sop.eq(1),
                             marks.upper.eq(1), marks.eop.eq(Cat(1, ends)),
                             marks.eop_at[1].eq(up - 1 + given.carried)]


class StraddlingRemover(wiring.Component):
    """input: straddled beats; output: payload beats with the `descriptor`, `first`, `last`.

    `announced` is to be driven with the DWs of payload (0: none) that `beginning`, the descriptor of a TLP that begins
    in the beat at the input, tells of.
    """

    def __init__(self, words: int):
        if not 1 <= words < HALF:
            raise ValueError(f"words must be in 1..{HALF - 1}, not {words!r}")
        self._words = words
        super().__init__({
            "input": In(stream.Signature(straddled_layout(0))),
            "output": Out(stream.Signature(data.StructLayout({
                "descriptor": 32 * words, "data": WIDTH, "first": 1, "last": 1}))),
            "beginning": Out(32 * words), "announced": In(11),
        })

    def elaborate(self, platform):
        m = Module()
        size, words, given, out = 32, self._words, self.input.payload, self.output.payload
        low, up = LANES - words, HALF - words            # DWs of payload beside a descriptor
        marks = given.marks
        high, sent, left = Signal(), Signal(), Signal(11)  # of the TLP in progress
        descriptor, held = Signal(size * words), Signal(size * LANES)
        upper = (marks.sop[0] & marks.upper[0]) | (marks.sop[1] & marks.upper[1])
        begins = marks.sop[0] & ~marks.upper[0]
        at = Signal()                                    # where the TLP that is looked at begins: the upper half
        room, short = Signal(5), Signal()                # ... its DWs of payload in this beat; it ends here
        done, taken, goes = Signal(), Signal(), Signal()
        m.d.comb += [
            self.beginning.eq(Mux(at, given.data[size * HALF:], given.data)[:size * words]),
            room.eq(Mux(at, up, low)), short.eq(self.announced <= room),
            self.input.ready.eq(done), goes.eq(self.output.valid & self.output.ready),
        ]
        payload = Mux(at, given.data[size * (HALF + words):], given.data[size * words:])
        with m.If(taken):
            m.d.sync += [descriptor.eq(self.beginning), held.eq(payload), high.eq(at), sent.eq(0),
                         left.eq(self.announced)]
        with m.Elif(goes):
            m.d.sync += [sent.eq(1), left.eq(left - LANES),
                         held.eq(Mux(high, given.data[size * (LANES - up):], given.data[size * (LANES - low):]))]

        def whole():
            """The TLP that begins is all here."""
            m.d.comb += [out.data.eq(payload), out.descriptor.eq(self.beginning), out.first.eq(1), out.last.eq(1),
                         self.output.valid.eq(self.input.valid)]

        m.d.comb += [out.descriptor.eq(descriptor), out.first.eq(~sent), out.last.eq(left <= LANES),
                     out.data.eq(Mux(high, Cat(held[:size * up], given.data), Cat(held[:size * low], given.data)))]
        with m.FSM():
            # No TLP is in progress, and nothing of this beat was used.
            with m.State("begin"):
                with m.If(self.input.valid & ~begins):
                    m.d.comb += [at.eq(1)]
                with m.If(short):
                    whole()
                    m.d.comb += done.eq(self.output.ready & (at | ~upper))
                    with m.If(goes & upper & ~at):
                        m.next = "upper"
                with m.Else():
                    m.d.comb += [done.eq(1), taken.eq(self.input.valid)]
                    with m.If(self.input.valid):
                        m.next = "body"
            with m.State("body"):
                m.d.comb += [self.output.valid.eq(self.input.valid), at.eq(1)]
                ends, more = marks.eop[0], left > LANES
                with m.If(ends & more):
                    with m.If(goes):
                        m.next = "rest"
                with m.Elif(ends & upper):
                    m.d.comb += [done.eq(self.output.ready & ~short), taken.eq(goes & ~short)]
                    with m.If(goes & short):
                        m.next = "upper"
                with m.Else():
                    m.d.comb += done.eq(self.output.ready)
                    with m.If(goes & ends):
                        m.next = "begin"
            # The last of a TLP lies behind what completed the beat before.
            with m.State("rest"):
                m.d.comb += [out.data.eq(held), self.output.valid.eq(1), done.eq(self.output.ready & ~upper)]
                with m.If(goes):
                    m.next = "begin"
                    with m.If(upper):
                        m.next = "upper"
            # The lower half was used.
            with m.State("upper"):
                m.d.comb += at.eq(1)
                with m.If(short):
                    whole()
                    m.d.comb += done.eq(self.output.ready)
                    with m.If(goes):
                        m.next = "begin"
                with m.Else():
                    m.d.comb += [done.eq(1), taken.eq(self.input.valid)]
                    m.next = "body"
        return m
