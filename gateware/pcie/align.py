"""Byte alignment between packed data and TLP payloads: `Cutter` on the way out, `Packer` on the way in.

Packed data of a command are beats of a stream, byte 0 of the command in bits 7..0 of the first beat, every beat but the
last full. Both components sustain a beat a cycle whatever the alignments, and have no latency beyond the beats that
they must wait for.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Cutter", "Packer"]


class Cutter(wiring.Component):
    """Cuts packed data into pieces, each shifted up by `offset` (0 to 3) bytes: the payloads of writes.

    Contract: `size` (at least 1) and `offset` describe the piece and are held while `want` is high; then `payload`
    offers its beats, `last` with the final one. `end` with the last beat of a piece says that the command ends too:
    the rest of the beat that was taken last is dropped, and the next piece begins with a new beat.
    """

    def __init__(self, width: int, size_bits: int):
        self._width = width
        super().__init__({
            "packed": In(stream.Signature(width)),
            "want": In(1),
            "size": In(size_bits),
            "offset": In(2),
            "end": In(1),
            "payload": Out(stream.Signature(data.StructLayout({"data": width, "first": 1, "last": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        size = self._width // 8
        held = Signal(self._width)
        place = Signal(range(size + 1), init=size)  # of the next byte in `held`; all are used up: `size`
        done = Signal.like(self.size)               # bytes of the piece that went
        begins, left, room, taken = Signal(), Signal.like(self.size), Signal(range(size + 1)), Signal(range(size + 1))
        more, last, offset = Signal(), Signal(), Signal(2)
        down = place + 3 - offset
        m.d.comb += [
            begins.eq(done == 0),
            left.eq(self.size - done),
            offset.eq(Mux(begins, self.offset, 0)),
            room.eq(size - offset),
            last.eq(left <= room),
            taken.eq(Mux(last, left, room)),
            more.eq(place + taken > size),
            # What is not needed of the next beat is kept out: it may come or change while this one is offered.
            # Three zero bytes below let one shifter move data down by `place` and up by `offset`.
            self.payload.payload.data.eq(
                Cat(C(0, 24), held, Mux(more, self.packed.payload, 0)) >> (down.as_unsigned()[:8] << 3)),
            self.payload.payload.first.eq(begins),
            self.payload.payload.last.eq(last),
            self.payload.valid.eq(self.want & (~more | self.packed.valid)),
            self.packed.ready.eq(self.want & more & self.payload.ready),
        ]
        with m.If(self.payload.valid & self.payload.ready):
            m.d.sync += [done.eq(Mux(last, 0, done + taken)), place.eq(place + taken)]
            with m.If(more):
                m.d.sync += [held.eq(self.packed.payload), place.eq(place + taken - size)]
            with m.If(last & self.end):
                m.d.sync += place.eq(size)
        return m


class Packer(wiring.Component):
    """Joins pieces, each some bytes within a beat, into packed beats.

    pieces: `data`, of which `count` bytes from byte `offset` on are meant (0 to a whole beat), and `end`: the command
    ends with them. packed: `data` and `last`; the bytes above the end of a command are zero. A command without bytes is
    one beat of zeros with `last`.
    """

    def __init__(self, width: int):
        self._width = width
        size = width // 8
        super().__init__({
            "pieces": In(stream.Signature(data.StructLayout({
                "data": width, "offset": range(size), "count": range(size + 1), "end": 1}))),
            "packed": Out(stream.Signature(data.StructLayout({"data": width, "last": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        size = self._width // 8
        piece = self.pieces.payload
        kept, fill = Signal(self._width), Signal(range(size + 1))  # bytes that do not yet make a beat
        ends = Signal()                                            # ... and are the rest of a command
        joined, total = Signal(2 * self._width), Signal(range(2 * size + 1))
        meant = Signal(self._width)
        # A rest goes out alone; only then is the next command begun.
        full = Signal()
        bits = ((1 << self._width) - 1) >> ((size - piece.count).as_unsigned()[:7] << 3)
        m.d.comb += [
            meant.eq((piece.data >> (piece.offset << 3)) & bits),
            joined.eq(kept | (meant << (fill << 3))),
            total.eq(fill + piece.count),
            full.eq(total >= size),
            self.packed.payload.data.eq(Mux(ends, kept, joined)),
            self.packed.payload.last.eq(ends | (piece.end & (total <= size))),
            self.packed.valid.eq(ends | (self.pieces.valid & (full | piece.end))),
            self.pieces.ready.eq(~ends & (self.packed.ready | ~(full | piece.end))),
        ]
        with m.If(ends):
            with m.If(self.packed.ready):
                m.d.sync += [ends.eq(0), fill.eq(0), kept.eq(0)]
        with m.Elif(self.pieces.valid & self.pieces.ready):
            with m.If(full | piece.end):
                m.d.sync += [
                    kept.eq(joined[self._width:]),
                    fill.eq(total - size),
                    ends.eq(piece.end & (total > size)),
                ]
                with m.If(piece.end & (total <= size)):
                    m.d.sync += [kept.eq(0), fill.eq(0)]
            with m.Else():
                m.d.sync += [kept.eq(joined), fill.eq(total)]
        return m
