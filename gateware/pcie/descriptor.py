"""Descriptors and payloads as one run of double words, as hard IP with AXI streams wants them, and back.

`DescriptorInserter` puts the `words` DWs of a TLP's descriptor before its payload; `DescriptorRemover` takes them off.
The shift is fixed by the width, so it costs wires, not a shifter. Both move a beat a cycle; a TLP takes
ceil((words + payload words) / lanes) cycles on the side of the descriptor.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DescriptorInserter", "DescriptorRemover", "axis_layout"]


def axis_layout(width: int, side) -> data.StructLayout:
    """A beat of an AXI stream: data, a `keep` bit a DW, `last`, `first`, and what goes beside it (`side`)."""
    return data.StructLayout({"data": width, "keep": width // 32, "last": 1, "first": 1, "side": side})


class DescriptorInserter(wiring.Component):
    """input: payload beats with `descriptor`, `carried` (DWs of the TLP's payload), `side`; output: the AXI stream."""

    def __init__(self, width: int, words: int, side):
        self._width, self._words = width, words
        super().__init__({
            "input": In(stream.Signature(data.StructLayout({
                "descriptor": 32 * words, "carried": 11, "side": side, "data": width, "last": 1}))),
            "output": Out(stream.Signature(axis_layout(width, side))),
        })

    def elaborate(self, platform):
        m = Module()
        lanes = self._width // 32
        whole, rest = divmod(self._words, lanes)  # beats of nothing but descriptor, and its DWs in the one after them
        room = lanes - rest
        given, out = self.input.payload, self.output.payload
        place, begun = Signal(range(whole + 1)), Signal()    # beats of descriptor, and one of payload, have gone
        left, to_go, fits = Signal(11), Signal(11), Signal()  # DWs of payload that have not
        held, valid = Signal(32 * rest), Signal(range(lanes + 1))
        m.d.comb += [
            to_go.eq(Mux(begun, left, given.carried)),
            fits.eq(to_go <= Mux(begun, lanes, room)),
            out.side.eq(given.side),
            out.first.eq((place == 0) & ~begun),
            out.keep.eq(~(Const((1 << lanes) - 1, lanes) << valid)),
            self.output.valid.eq(self.input.valid),
            # The last beat stays while a part of it is held for one more beat.
            self.input.ready.eq(self.output.ready & (out.last | (begun | (place == whole)) & ~given.last)),
        ]
        with m.If(place != whole):
            m.d.comb += [
                out.data.eq(given.descriptor.word_select(place, self._width)),
                out.last.eq((given.carried == 0) & (place == whole - 1) & (rest == 0)),
                valid.eq(lanes),
            ]
        with m.Else():
            tail = given.descriptor[self._width * whole:]
            m.d.comb += [
                out.data.eq(Cat(Mux(begun, held, tail), given.data) if rest else given.data),
                out.last.eq(fits),
                valid.eq(Mux(fits, to_go + Mux(begun, 0, rest), lanes)),
            ]
        with m.If(self.output.valid & self.output.ready):
            with m.If(out.last):
                m.d.sync += [place.eq(0), begun.eq(0)]
            with m.Elif(place != whole):
                m.d.sync += place.eq(place + 1)
            with m.Else():
                m.d.sync += [begun.eq(1), left.eq(to_go - Mux(begun, lanes, room)), held.eq(given.data[32 * room:])]
        return m


class DescriptorRemover(wiring.Component):
    """input: an AXI stream; output: payload beats with the `descriptor`, the `side` of the first beat, `first`, `last`.

    `carried` is to be driven with the DWs of payload that `output.payload.descriptor` tells of (0: none).
    """

    def __init__(self, width: int, words: int, side):
        self._width, self._words = width, words
        super().__init__({
            "input": In(stream.Signature(axis_layout(width, side))),
            "output": Out(stream.Signature(data.StructLayout({
                "descriptor": 32 * words, "side": side, "data": width, "first": 1, "last": 1}))),
            "carried": In(11),
        })

    def elaborate(self, platform):
        m = Module()
        lanes = self._width // 32
        whole, rest = divmod(self._words, lanes)
        before = whole if rest else whole - 1  # beats before the one that completes the descriptor
        given, out = self.input.payload, self.output.payload
        place, sent = Signal(range(before + 1)), Signal()
        descriptor, side, got = Signal(32 * self._words), Signal.like(given.side), Signal(32 * self._words)
        held, left = Signal(32 * (lanes - rest)), Signal(11)
        moves_in, moves_out = Signal(), Signal()
        m.d.comb += [
            moves_in.eq(self.input.valid & self.input.ready),
            moves_out.eq(self.output.valid & self.output.ready),
            got.eq(Cat(descriptor[:self._width * before], given.data)),
            out.descriptor.eq(descriptor),
            out.side.eq(side),
            out.first.eq(~sent),
        ]
        with m.If(moves_out):
            m.d.sync += sent.eq(~out.last)
        with m.If(moves_in & given.first):
            m.d.sync += side.eq(given.side)
        with m.FSM():
            with m.State("descriptor"):
                whole_tlp = (place == before) & given.last
                m.d.comb += [
                    out.descriptor.eq(got),
                    out.side.eq(Mux(given.first, given.side, side)),
                    out.data.eq(given.data[32 * rest:] if rest else 0),
                    out.last.eq(1),
                    self.output.valid.eq(self.input.valid & whole_tlp),
                    self.input.ready.eq(~whole_tlp | self.output.ready),
                ]
                with m.If(moves_in):
                    for index in range(before):
                        with m.If(place == index):
                            m.d.sync += descriptor.word_select(index, self._width).eq(given.data)
                    m.d.sync += place.eq(place + 1)
                    with m.If(place == before):
                        m.d.sync += [place.eq(0), descriptor.eq(got), left.eq(self.carried)]
                        m.d.sync += held.eq(given.data[32 * rest:])
                        with m.If(~given.last):
                            m.next = "payload"
            # What is held, and the lowest DWs of the beat that is there.
            with m.State("payload"):
                m.d.comb += [
                    out.data.eq(Cat(held, given.data[:32 * rest]) if rest else given.data),
                    out.last.eq((left <= lanes) if rest else given.last),
                    self.output.valid.eq(self.input.valid),
                    self.input.ready.eq(self.output.ready),
                ]
                with m.If(moves_in):
                    m.d.sync += [left.eq(left - lanes), held.eq(given.data[32 * rest:])]
                    with m.If(out.last):
                        m.next = "descriptor"
                    with m.Elif(given.last):
                        m.next = "rest"
            with m.State("rest"):
                m.d.comb += [out.data.eq(held), out.last.eq(1), self.output.valid.eq(1)]
                with m.If(self.output.ready):
                    m.next = "descriptor"
        return m
