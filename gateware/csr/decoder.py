"""`CsrDecoder`: routes the accesses of one initiator to the target whose address range they fall in.

Routing is combinational and adds no cycle; targets see the absolute address. An access outside every range is
answered with `error` in its first cycle.
"""

from collections.abc import Sequence
from itertools import pairwise

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bus import CsrSignature
from .regmap import WORD_ADDRESS_WIDTH

__all__ = ["CsrDecoder"]


class CsrDecoder(wiring.Component):
    """Decoder with one target an entry of `ranges`.

    ranges: for each target the word addresses that it answers: a `range` of step 1, or several
        (`regmap.word_ranges(("rm", "guarantee"))`). Targets must not overlap.

    Ports: `bus` from the initiator, `targets[i]` to target *i*.
    """

    def __init__(self, ranges: Sequence[range | Sequence[range]]):
        self._ranges = [[entry] if isinstance(entry, range) else list(entry) for entry in ranges]
        if not self._ranges:
            raise ValueError(f"ranges must be at least one target, not {ranges!r}")
        every = sorted((part for parts in self._ranges for part in parts), key=lambda part: part.start)
        for part in every:
            if part.step != 1 or not 0 <= part.start < part.stop <= 1 << WORD_ADDRESS_WIDTH:
                raise ValueError(f"range must be of word addresses, not empty, with step 1, not {part!r}")
        for before, after in pairwise(every):
            if before.stop > after.start:
                raise ValueError(f"ranges must be disjoint, not {before!r} and {after!r}")
        super().__init__({
            "bus": In(CsrSignature(WORD_ADDRESS_WIDTH)),
            "targets": Out(CsrSignature(WORD_ADDRESS_WIDTH)).array(len(self._ranges)),
        })

    def elaborate(self, platform):
        m = Module()
        address = self.bus.address
        m.d.comb += [self.bus.ready.eq(self.bus.valid), self.bus.error.eq(1)]
        for target, parts in zip(self.targets, self._ranges, strict=True):
            m.d.comb += [
                target.write.eq(self.bus.write),
                target.address.eq(address),
                target.w_data.eq(self.bus.w_data),
                target.w_mask.eq(self.bus.w_mask),
            ]
            selected = Cat((address >= part.start) & (address < part.stop) for part in parts).any()
            with m.If(selected):
                m.d.comb += [
                    target.valid.eq(self.bus.valid),
                    self.bus.ready.eq(target.ready),
                    self.bus.error.eq(target.error),
                    self.bus.r_data.eq(target.r_data),
                ]
        return m
