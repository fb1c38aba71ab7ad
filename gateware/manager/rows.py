"""`RowAccess`: bus accesses to the rows of the allocation, turned into reads and changes of whole rows.

An access takes two cycles: in the first the row is asked for, in the second `ready` is high and a write hands
the changed row back. A staged row is read and written while `open`, and written only while not `locked`; the
active table is only read. Everything else, and a write to a word without a writable field, is answered with
`error` and changes nothing. `RowWord` is one word of a row, combinationally.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import DeviceConfig
from ..csr import regmap
from ..csr.bus import CsrSignature
from .allocation import AllocationRow

__all__ = ["RowAccess", "RowWord"]


class RowWord(wiring.Component):
    """One word of a row as the register map lays it out, read and written.

    word: of the row, below `WORDS`. known: it has a register; writable: which has a field to write.
    old: the row. data: the word of it. new: the row with the enabled bytes of the word written.
    """

    WORDS = regmap.node("staging").stride // 4

    word: In(range(WORDS))
    w_data: In(32)
    w_mask: In(4)
    old: In(AllocationRow)
    known: Out(1)
    writable: Out(1)
    data: Out(32)
    new: Out(AllocationRow)

    def elaborate(self, platform):
        m = Module()
        mask = Cat(bit.replicate(8) for bit in self.w_mask)
        m.d.comb += self.new.eq(self.old)
        with m.Switch(self.word):
            for register in regmap.node("staging").registers:
                with m.Case(register.offset // 4):
                    m.d.comb += [self.known.eq(1), self.writable.eq(register.writable)]
                    for field in filter(lambda field: field.writable, register.fields):
                        place = slice(field.lsb, field.lsb + field.width)
                        column = self.old[field.name]
                        m.d.comb += [
                            self.data[place].eq(column),
                            self.new[field.name].eq((column & ~mask[place]) | (self.w_data[place] & mask[place])),
                        ]
        return m


class RowAccess(wiring.Component):
    """Bus front of the allocation table.

    staging, active: bus ports for `staging[]` and `active[]` of the register map, never both at once.
    tenant, is_staging: the row that the first cycle of an access asks for.
    old: that row, in the second cycle.
    write, new: strobe in the second cycle of a write, with the row as it becomes.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "staging": In(CsrSignature(regmap.WORD_ADDRESS_WIDTH)),
            "active": In(CsrSignature(regmap.WORD_ADDRESS_WIDTH)),
            "open": In(1),
            "locked": In(1),
            "tenant": Out(range(config.tenants)),
            "is_staging": Out(1),
            "old": In(AllocationRow),
            "write": Out(1),
            "new": Out(AllocationRow),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.word = word = RowWord()
        address = Signal.like(self.staging.address)
        second = Signal()
        refused = Signal()
        m.d.sync += second.eq((self.staging.valid | self.active.valid) & ~second)
        m.d.comb += [
            self.is_staging.eq(self.staging.valid),
            address.eq(Mux(self.is_staging, self.staging.address, self.active.address)),
            self.tenant.eq(address[ceil_log2(RowWord.WORDS):]),
            word.word.eq(address),
            word.w_data.eq(self.staging.w_data),
            word.w_mask.eq(self.staging.w_mask),
            word.old.eq(self.old),
            self.new.eq(word.new),
            refused.eq(~self.open | (self.staging.write & (self.locked | ~word.writable))),
            self.write.eq(second & self.staging.valid & self.staging.write & ~self.staging.error),
            self.staging.ready.eq(second & self.staging.valid),
            self.staging.error.eq(refused | ~word.known),
            self.staging.r_data.eq(word.data),
            self.active.ready.eq(second & self.active.valid),
            self.active.error.eq(self.active.write | ~word.known),
            self.active.r_data.eq(word.data),
        ]
        return m
