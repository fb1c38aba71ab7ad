"""Consistent overhead byte stuffing (COBS): frames without zero bytes, each ended by one.

`CobsDecoder` contract: combinational, a byte a cycle. Bytes of a frame come out one by one; the zero that ends a
frame comes out as an `end` transfer without data, with `error` if the frame broke off inside a group. Empty frames
give nothing. After anything at all, the next zero byte puts it in order again.

`CobsEncoder` contract: takes a frame of at least one byte, marked by `last`; a group of up to 254 bytes is kept until
its length is known, then goes out at a byte a cycle, and the zero byte behind the last group. Groups are taken
in while others go out, so that a slow line is never idle as long as bytes come. A frame of any length works.
"""

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

__all__ = ["FRAME_BYTE", "FRAME_TOKEN", "CobsDecoder", "CobsEncoder"]

#: One byte of a frame, or (`end`) the end behind its last byte, perhaps in `error`.
FRAME_TOKEN = data.StructLayout({"data": 8, "end": 1, "error": 1})
#: One byte of a frame, `last` on the final one.
FRAME_BYTE = data.StructLayout({"data": 8, "last": 1})

_GROUP_BYTES = 254
_RING_BYTES = 512  # a group that goes out and one that comes in
_RING_GROUPS = 16


class CobsDecoder(wiring.Component):
    """From the bytes of a line to the bytes of frames."""

    input: In(stream.Signature(8))
    output: Out(stream.Signature(FRAME_TOKEN))

    def elaborate(self, platform):
        m = Module()
        left = Signal(8)         # bytes of the group that are still to come
        implied = Signal()       # a zero stands between the group before and the next one
        started = Signal()       # the frame has begun
        emits = Signal()         # this byte makes something come out
        code = self.input.payload

        m.d.comb += [
            self.output.valid.eq(self.input.valid & emits),
            self.input.ready.eq(self.output.ready | ~emits),
        ]
        with m.If(code == 0):
            m.d.comb += [emits.eq(started), self.output.payload.end.eq(1), self.output.payload.error.eq(left != 0)]
        with m.Elif(left == 0):
            m.d.comb += emits.eq(implied)  # the zero itself
        with m.Else():
            m.d.comb += [emits.eq(1), self.output.payload.data.eq(code)]

        with m.If(self.input.valid & self.input.ready):
            with m.If(code == 0):
                m.d.sync += [left.eq(0), implied.eq(0), started.eq(0)]
            with m.Elif(left == 0):
                m.d.sync += [left.eq(code - 1), implied.eq(code != _GROUP_BYTES + 1), started.eq(1)]
            with m.Else():
                m.d.sync += left.eq(left - 1)
        return m


class CobsEncoder(wiring.Component):
    """From the bytes of frames to the bytes of a line."""

    input: In(stream.Signature(FRAME_BYTE))
    output: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        # Ring of group bytes, written here and read behind; codes say how much of it is one group.
        m.submodules.ring = ring = memory.Memory(shape=8, depth=_RING_BYTES, init=[])
        m.submodules.codes = codes = SyncFIFO(width=9, depth=_RING_GROUPS)
        held = Signal(range(_RING_BYTES + 1))
        wrote, freed = Signal(), Signal()
        m.d.sync += held.eq(held + wrote - freed)
        self._elaborate_groups(m, ring.write_port(), codes, held, wrote)
        self._elaborate_output(m, ring.read_port(), codes, freed)
        return m

    def _elaborate_groups(self, m, port, codes, held, wrote):
        """Take bytes in, and close a group at a zero, at 254 bytes and at the end of the frame."""
        byte = self.input.payload
        length = Signal(range(_GROUP_BYTES + 1))
        position = Signal(range(_RING_BYTES))
        tail = Signal()  # the frame ended with a zero: an empty group must still follow
        close = Signal()
        taken = Signal()
        filled = length + (byte.data != 0)
        m.d.comb += [
            self.input.ready.eq((held != _RING_BYTES) & codes.w_rdy & ~tail),
            taken.eq(self.input.valid & self.input.ready),
            wrote.eq(taken & (byte.data != 0)),
            close.eq((byte.data == 0) | byte.last | (filled == _GROUP_BYTES)),
            port.addr.eq(position),
            port.data.eq(byte.data),
            port.en.eq(wrote),
            # A code is the bytes of the group plus one; the ninth bit says that the frame ends behind it.
            codes.w_data.eq(Mux(tail, 0x101, Cat((filled + 1)[:8], byte.last & (byte.data != 0)))),
            codes.w_en.eq(taken & close | tail & codes.w_rdy),
        ]
        with m.If(wrote):
            m.d.sync += position.eq(position + 1)
        with m.If(taken):
            m.d.sync += [length.eq(Mux(close, 0, filled)), tail.eq(byte.last & (byte.data == 0))]
        with m.Elif(codes.w_rdy):
            m.d.sync += tail.eq(0)

    def _elaborate_output(self, m, port, codes, freed):
        position, following = Signal(range(_RING_BYTES)), Signal(range(_RING_BYTES))
        left = Signal(range(_GROUP_BYTES + 1))
        ends = Signal()
        # The memory answers a cycle late: its address is already that of the byte after the one on offer.
        m.d.comb += [following.eq(position + freed), port.addr.eq(following)]
        m.d.sync += position.eq(following)
        with m.FSM():
            # A code goes out as soon as its group is closed.
            with m.State("code"):
                m.d.comb += [
                    self.output.payload.eq(codes.r_data[:8]),
                    self.output.valid.eq(codes.r_rdy),
                    codes.r_en.eq(self.output.ready),
                ]
                with m.If(codes.r_rdy & self.output.ready):
                    m.d.sync += [left.eq(codes.r_data[:8] - 1), ends.eq(codes.r_data[8])]
                    with m.If(codes.r_data[:8] != 1):
                        m.next = "group"
                    with m.Elif(codes.r_data[8]):
                        m.next = "zero"
            with m.State("group"):
                m.d.comb += [
                    self.output.payload.eq(port.data),
                    self.output.valid.eq(1),
                    freed.eq(self.output.ready),
                ]
                with m.If(self.output.ready):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "code"
                        with m.If(ends):
                            m.next = "zero"
            with m.State("zero"):
                m.d.comb += self.output.valid.eq(1)
                with m.If(self.output.ready):
                    m.next = "code"
