"""`GuaranteeTable`: the least that a table may give each tenant, written by the operator at any time.

A bus access takes three cycles. Every word of a row has a register, so no access is answered with `error`; a bit
that belongs to no field reads 0. `scan_row` is the row of `scan_tenant`, one cycle later. `changed` is high in the
cycle in which a row is written: what was checked against the old row must be checked again, from the next cycle on.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr import regmap
from ..csr.bus import CsrSignature

__all__ = ["GuaranteeRow", "GuaranteeTable"]


class GuaranteeRow(data.Struct):
    """Least weight and fewest pages of one tenant."""

    weight: 16
    pages: 16


class GuaranteeTable(wiring.Component):
    """One row a tenant. `bus` serves `guarantee[]` of the register map."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "bus": In(CsrSignature(regmap.WORD_ADDRESS_WIDTH)),
            "scan_tenant": In(range(config.tenants)),
            "scan_row": Out(GuaranteeRow),
            "changed": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        # A plain memory of bytes with enables; a word of the bus is half a row.
        m.submodules.rows = rows = memory.Memory(shape=unsigned(32), depth=self._config.tenants, init=[])
        read = rows.read_port()
        scan = rows.read_port()
        write = rows.write_port(granularity=8)
        third, lanes = Signal(), Signal(4)
        step = Signal(range(3))
        is_pages = self.bus.address[0]
        tenant = Signal(range(self._config.tenants))
        with m.If(self.bus.valid & (step != 2)):
            m.d.sync += step.eq(step + 1)
        with m.Else():
            m.d.sync += step.eq(0)
        # The write and its strobe come from registers: what must be checked again depends on them at once.
        m.d.sync += [
            third.eq(self.bus.valid & (step == 1)),
            self.changed.eq(self.bus.valid & (step == 1) & self.bus.write),
            lanes.eq(Mux(is_pages, self.bus.w_mask[:2] << 2, self.bus.w_mask[:2])),
        ]
        m.d.comb += [
            tenant.eq(self.bus.address[1:]),
            read.addr.eq(tenant),
            write.addr.eq(tenant),
            write.data.eq(self.bus.w_data[:16].replicate(2)),
            write.en.eq(Mux(self.changed, lanes, 0)),
            self.bus.ready.eq(third),
            self.bus.r_data.eq(Mux(is_pages, read.data[16:], read.data[:16])),
            scan.addr.eq(self.scan_tenant),
            self.scan_row.eq(scan.data),
        ]
        return m
