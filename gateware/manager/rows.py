"""`RowAccess`: bus accesses to the rows of the allocation, turned into reads and changes of whole rows.

An access takes five cycles: the row is asked for, arrives, is changed, is handed back by a write, and in the last, when
all that follows from it is known, `ready` is high. A staged row is read and written while `open`, and written only
while not `locked`; the active table is only read. Everything else, and a write to a word without a writable field, is
answered with `error` and changes nothing. `RowWord` is one word of a row, combinationally.
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
    row: that row, in the second cycle.
    write, new, old: strobe in the fourth cycle of a write, with the row as it becomes and as it was.
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
            "row": In(AllocationRow),
            "write": Out(1),
            "new": Out(AllocationRow),
            "old": Out(AllocationRow),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.word = word = RowWord()
        address = Signal.like(self.staging.address)
        step = Signal(range(5))
        refused, error, data = Signal(), Signal(), Signal(32)
        opened = Signal()   # when the row arrived: else it may be one that was in force before a change
        with m.If((self.staging.valid | self.active.valid) & (step != 4)):
            m.d.sync += step.eq(step + 1)
        with m.Else():
            m.d.sync += step.eq(0)
        with m.If(step == 1):
            m.d.sync += [self.old.eq(self.row), opened.eq(self.open)]
        staging_refused = ~self.open | ~opened | (self.staging.write & (self.locked | ~word.writable))
        # Nothing comes between the decision and the write: commands come by the same bus, and rules wait meanwhile.
        with m.If(step == 2):
            m.d.sync += [self.new.eq(word.new), data.eq(word.data), error.eq(refused)]
        m.d.sync += self.write.eq((step == 2) & self.is_staging & self.staging.write & ~refused)
        m.d.comb += [
            self.is_staging.eq(self.staging.valid),
            address.eq(Mux(self.is_staging, self.staging.address, self.active.address)),
            self.tenant.eq(address[ceil_log2(RowWord.WORDS):]),
            word.word.eq(address),
            word.w_data.eq(self.staging.w_data),
            word.w_mask.eq(self.staging.w_mask),
            word.old.eq(self.old),
            refused.eq(~word.known | Mux(self.is_staging, staging_refused, self.active.write)),
        ]
        for bus in (self.staging, self.active):
            m.d.comb += [bus.ready.eq((step == 4) & bus.valid), bus.error.eq(error), bus.r_data.eq(data)]
        return m
