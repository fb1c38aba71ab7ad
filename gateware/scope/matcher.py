"""`Matcher`: which of four patterns each sample matches.

A pattern asks something of every bit and of the same bit in the cycle before, so that levels and edges are one thing.
Two bits of the sample share a table of 16 words (their values now and before are its address), and a word has one bit
a pattern; a pattern matches when all tables allow it. A table has 16 x 4 bits, which is one distributed memory of an
FPGA; comparators with value, mask and edges would be three registers for each bit and pattern.

A sample of cycle *t* leaves with its matches in cycle *t* + `LATENCY`.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LATENCY", "PATTERNS", "TABLE_WORDS", "Matcher"]

LATENCY = 3
PATTERNS = 4
TABLE_WORDS = 16


class Matcher(wiring.Component):
    """Matcher of samples of `width` bits.

    probes: what is sampled. write: strobe, stores `data` at word `address` (16 words a table) for samples from two
    cycles later on. sample: the probes, `LATENCY` cycles late; changed: it differs from the one before; matches: bit
    *p* says that it matches pattern *p*.
    """

    def __init__(self, width: int):
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width!r}")
        self._width = width
        super().__init__({
            "probes": In(width),
            "write": In(1),
            "address": In(range(self.tables * TABLE_WORDS)),
            "data": In(PATTERNS),
            "sample": Out(width),
            "changed": Out(1),
            "matches": Out(PATTERNS),
        })

    @property
    def tables(self) -> int:
        """How many tables there are: one for two bits of the sample."""
        return (self._width + 1) // 2

    def elaborate(self, platform):
        m = Module()
        # One bit more than an odd width: it is 0 now and before, which a pattern must allow.
        now, before = Signal(2 * self.tables), Signal(2 * self.tables)
        allowed = [Signal(PATTERNS, name=f"allowed_{index}") for index in range(self.tables)]
        differ = Signal(self.tables)
        delayed = Signal(self._width)
        m.d.sync += [
            now.eq(self.probes), before.eq(now),
            delayed.eq(now), self.sample.eq(delayed),
            self.changed.eq(differ.any()),
        ]
        for index, bits in enumerate(allowed):
            pair = slice(2 * index, 2 * index + 2)
            m.d.sync += [
                bits.eq(self._table(m, index, Cat(now[pair], before[pair]))),
                differ[index].eq(now[pair] != before[pair]),
            ]
        for pattern in range(PATTERNS):
            m.d.sync += self.matches[pattern].eq(Cat(bits[pattern] for bits in allowed).all())
        return m

    def _table(self, m, index, place):
        """What table `index` allows of the bits `place`, in the same cycle."""
        table = memory.Memory(shape=PATTERNS, depth=TABLE_WORDS, init=[])
        m.submodules[f"table_{index}"] = table
        write, read = table.write_port(), table.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.address[:4]),
            write.data.eq(self.data),
            write.en.eq(self.write & (self.address[4:] == index)),
            read.addr.eq(place),
        ]
        return read.data
