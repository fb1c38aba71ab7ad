"""Frames of the link: a message, its CRC-32C little-endian, COBS.

`FrameDecoder` contract: bytes of a line in, at a byte a cycle, never held up by itself; messages out as tokens
without the CRC, four bytes late. The `end` of a message has `error` if it must not be used: its COBS or CRC is
wrong, or it has fewer than 3 or more than `max_bytes` bytes (bytes that came out before belong to nothing).
`framing_error` or `crc_error` is high for one cycle with such an end.

`FrameEncoder` contract: bytes of a message in, the frame with its ending zero byte out; see `CobsEncoder`.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .cobs import FRAME_BYTE, FRAME_TOKEN, CobsDecoder, CobsEncoder
from .crc32c import CRC32C_FINAL, CRC32C_INIT, CRC32C_RESIDUE, crc32c_step

__all__ = ["FrameDecoder", "FrameEncoder"]

_CRC_BYTES = 4
_MIN_MESSAGE = 3


class FrameDecoder(wiring.Component):
    """From the bytes of a line to checked messages. max_bytes: of the longest message."""

    def __init__(self, max_bytes: int):
        if not _MIN_MESSAGE <= max_bytes <= 4096:
            raise ValueError(f"max_bytes must be in {_MIN_MESSAGE}..4096, not {max_bytes!r}")
        self._max_bytes = max_bytes
        super().__init__({
            "input": In(stream.Signature(8)),
            "output": Out(stream.Signature(FRAME_TOKEN)),
            "framing_error": Out(1),
            "crc_error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.cobs = cobs = CobsDecoder()
        wiring.connect(m, wiring.flipped(self.input), cobs.input)

        longest = self._max_bytes + _CRC_BYTES
        count = Signal(range(longest + 2))  # stays at one above the longest
        crc = Signal(32, init=CRC32C_INIT)
        kept = Signal(8 * _CRC_BYTES)       # the last four bytes: they may be the CRC
        token, out = cobs.output.payload, self.output.payload
        malformed, passes = Signal(), Signal()
        m.d.comb += [
            malformed.eq(token.error | (count < _MIN_MESSAGE + _CRC_BYTES) | (count > longest)),
            # What is beyond the longest message does not come out: a memory behind need not check.
            passes.eq(token.end | (count >= _CRC_BYTES) & (count < longest)),
            self.output.valid.eq(cobs.output.valid & passes),
            cobs.output.ready.eq(self.output.ready | ~passes),
            out.data.eq(kept[:8]),
            out.end.eq(token.end),
            out.error.eq(token.end & (malformed | (crc != CRC32C_RESIDUE))),
        ]
        with m.If(cobs.output.valid & cobs.output.ready):
            with m.If(token.end):
                m.d.comb += [
                    self.framing_error.eq(malformed),
                    self.crc_error.eq(~malformed & (crc != CRC32C_RESIDUE)),
                ]
                m.d.sync += [count.eq(0), crc.eq(CRC32C_INIT)]
            with m.Else():
                m.d.sync += [crc.eq(crc32c_step(crc, token.data)), kept.eq(Cat(kept[8:], token.data))]
                with m.If(count <= longest):
                    m.d.sync += count.eq(count + 1)
        return m


class FrameEncoder(wiring.Component):
    """From messages to the bytes of a line. `sent` is high for one cycle with the last byte of a message."""

    input: In(stream.Signature(FRAME_BYTE))
    output: Out(stream.Signature(8))
    sent: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.cobs = cobs = CobsEncoder()
        wiring.connect(m, cobs.output, wiring.flipped(self.output))

        crc = Signal(32, init=CRC32C_INIT)
        left = Signal(range(_CRC_BYTES))
        moved = Signal()
        m.d.comb += moved.eq(cobs.input.valid & cobs.input.ready)
        with m.FSM():
            with m.State("message"):
                m.d.comb += [
                    cobs.input.payload.data.eq(self.input.payload.data),
                    cobs.input.valid.eq(self.input.valid),
                    self.input.ready.eq(cobs.input.ready),
                ]
                with m.If(moved):
                    m.d.sync += crc.eq(crc32c_step(crc, self.input.payload.data))
                    with m.If(self.input.payload.last):
                        m.d.sync += left.eq(_CRC_BYTES - 1)
                        m.d.comb += self.sent.eq(1)
                        m.next = "crc"
            with m.State("crc"):
                m.d.comb += [
                    cobs.input.payload.data.eq(crc[:8] ^ (CRC32C_FINAL & 0xFF)),
                    cobs.input.payload.last.eq(left == 0),
                    cobs.input.valid.eq(1),
                ]
                with m.If(moved):
                    m.d.sync += [crc.eq(Cat(crc[8:], C(0, 8))), left.eq(left - 1)]
                    with m.If(left == 0):
                        m.d.sync += crc.eq(CRC32C_INIT)
                        m.next = "message"
        return m
