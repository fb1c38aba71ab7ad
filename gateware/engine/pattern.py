"""The generator's pattern: what the bytes of packet `sequence` of a tenant are.

Bytes 0..7 are a request word (read, the tenant's sequence number modulo 2**24, sectors one after the other), so
that a generated packet is a valid request; the word with index i >= 2 of 32 bits, little-endian, is
`mix(seed + i * GOLDEN)` with `seed = sequence << 8 | tenant`: any changed, lost or swapped byte is seen.
`pattern_bytes` is the same function for software.

Contract of `PatternSource`: `data` is the pattern of beat `beat`, combinational in `sequence`, `tenant` and the
running state, which `advance` steps to the next beat and `restart` takes back to the first.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import Opcode

__all__ = ["FLOW_HASH", "PatternSource", "pattern_bytes"]

#: Flow hash of every generated packet; the checker ignores packets with another one.
FLOW_HASH = 0x4D47

GOLDEN = 0x9E3779B9
SHIFTS = ((13, "left"), (17, "right"), (5, "left"))


def pattern_bytes(tenant: int, sequence: int, length: int) -> bytes:
    """The first `length` bytes of packet `sequence` (modulo 2**24) of `tenant`."""
    sequence &= 0xFFFFFF
    words = [(sequence | Opcode.READ.value << 36 | sequence << 40).to_bytes(8, "little")]
    for index in range(2, (length + 3) // 4):
        value = ((sequence << 8 | tenant) + index * GOLDEN) & 0xFFFFFFFF
        for amount, way in SHIFTS:
            value ^= (value << amount if way == "left" else value >> amount) & 0xFFFFFFFF
        words.append(value.to_bytes(4, "little"))
    return b"".join(words)[:length]


class PatternSource(wiring.Component):
    """One beat of the pattern at a time."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "tenant": In(6),
            "sequence": In(24),
            "restart": In(1),
            "advance": In(1),
            "data": Out(config.data_width),
        })

    def elaborate(self, platform):
        m = Module()
        lanes = self._config.data_width // 32
        offset = Signal(32)  # GOLDEN times the index of this beat's first word: a sum instead of a product
        beat = Signal(2)     # saturating: only the beats that hold the request word differ
        with m.If(self.restart):
            m.d.sync += [offset.eq(0), beat.eq(0)]
        with m.Elif(self.advance):
            m.d.sync += [offset.eq(offset + (lanes * GOLDEN & 0xFFFFFFFF)), beat.eq(Mux(beat == 2, 2, beat + 1))]

        seed = Cat(self.tenant, C(0, 2), self.sequence)
        request = Cat(self.sequence, C(0, 12), C(Opcode.READ.value, 4), self.sequence)
        for lane in range(lanes):
            value = Signal(32, name=f"sum_{lane}")
            m.d.comb += value.eq(seed + offset + (lane * GOLDEN & 0xFFFFFFFF))
            for step, (amount, way) in enumerate(SHIFTS):
                mixed = Signal(32, name=f"mix_{lane}_{step}")
                m.d.comb += mixed.eq(value ^ (value << amount if way == "left" else value >> amount))
                value = mixed
            for part in range(2):  # the request word is in words 0 and 1, whichever beat these are in
                if part % lanes == lane:
                    value = Mux(beat == part // lanes, request.word_select(part, 32), value)
            m.d.comb += self.data.word_select(lane, 32).eq(value)
        return m
