"""`RowAccess`: bus accesses to the rows of the allocation, turned into reads and changes of whole rows.

An access takes two cycles: in the first the row is asked for, in the second `ready` is high and a write hands
the changed row back. A staged row is read and written while `open`, and written only while not `locked`; the
active table is only read. Everything else, and a write to a word without a writable field, is answered with
`error` and changes nothing.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import DeviceConfig
from ..csr import regmap
from ..csr.bus import CsrSignature
from .allocation import AllocationRow

__all__ = ["RowAccess"]


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
        block = regmap.node("staging")
        words = block.stride // 4
        address = Signal.like(self.staging.address)
        second = Signal()
        known = Signal()      # the word has a register
        writable = Signal()   # ... which has a writable field
        read = Signal(32)
        refused = Signal()
        m.d.sync += second.eq((self.staging.valid | self.active.valid) & ~second)
        m.d.comb += [
            self.is_staging.eq(self.staging.valid),
            address.eq(Mux(self.is_staging, self.staging.address, self.active.address)),
            self.tenant.eq(address[ceil_log2(words):]),
            refused.eq(~self.open | (self.staging.write & (self.locked | ~writable))),
            self.write.eq(second & self.staging.valid & self.staging.write & ~self.staging.error),
            self.staging.ready.eq(second & self.staging.valid),
            self.staging.error.eq(refused | ~known),
            self.staging.r_data.eq(read),
            self.active.ready.eq(second & self.active.valid),
            self.active.error.eq(self.active.write | ~known),
            self.active.r_data.eq(read),
            self.new.eq(self.old),
        ]
        with m.Switch(address[:ceil_log2(words)]):
            for register in block.registers:
                with m.Case(register.offset // 4):
                    m.d.comb += [known.eq(1), writable.eq(register.writable)]
                    self._elaborate_word(m, register, read)
        return m

    def _elaborate_word(self, m, register, read):
        """One word of the row, inside the `Case` of its offset. Fields are named as those of the row."""
        mask = Cat(bit.replicate(8) for bit in self.staging.w_mask)
        for field in register.fields:
            if field.writable:
                place = slice(field.lsb, field.lsb + field.width)
                column = self.old[field.name]
                m.d.comb += [
                    read[place].eq(column),
                    self.new[field.name].eq((column & ~mask[place]) | (self.staging.w_data[place] & mask[place])),
                ]
