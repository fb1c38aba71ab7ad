"""Rows: a consumer's own copy of the allocation, the columns it needs in a three-bank memory.

Contract: `rows[n]` is, combinationally, the row of `tenants[n]` in the bank that is active in this cycle, so that
a commit (which only changes `allocation.active_bank`) takes effect for every reader in the same cycle. A row
written on the bus is readable one cycle later. Columns are kept as wide as a legal table needs them: `ports` and
`slots` have a bit for each that exists, and `pages` above those of a crosspoint are read as those. `admits` is no
column of the allocation but whether `weight` is above 0. A tenant index that the configuration does not have reads an
unspecified row: range checks are the reader's.

When the FPGA has been configured every bank holds `reset_row`. The memory is initialised then and never again: a reset
of the domain later leaves in every bank what was written last, so that the bank in force after it (0) may hold any
table. The same is true of every memory of the device (free lists, page and packet counts, buckets), of which several
must agree with registers that a reset does bring back. Only configuring the FPGA again gives the table after reset.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..manager.allocation import BANKS, AllocationRow, AllocationSignature, reset_row

__all__ = ["Rows"]


class Rows(wiring.Component):
    """Memory of the allocation's `columns` with `readers` combinational read ports."""

    def __init__(self, config: DeviceConfig, columns, readers=1):
        members = {**data.Layout.cast(AllocationRow).members, "pages": range(config.pages + 1), "ports": config.ports,
                   "slots": config.slots, "admits": 1}
        for column in columns:
            if column not in members:
                raise ValueError(f"columns must be of {tuple(members)}, not {column!r}")
        if readers < 1:
            raise ValueError(f"readers must be at least 1, not {readers!r}")
        self._config = config
        self._columns = tuple(columns)
        self._layout = data.StructLayout({column: members[column] for column in self._columns})
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "tenants": In(range(config.tenants)).array(readers),
            "rows": Out(self._layout).array(readers),
        })

    @property
    def layout(self):
        """Layout of one row: the chosen columns."""
        return self._layout

    def elaborate(self, platform):
        m = Module()
        bits = (self._config.tenants - 1).bit_length()
        stride = 1 << bits
        reset = []
        for tenant in range(stride):
            row = reset_row(tenant, self._config)
            row["admits"] = int(row["weight"] != 0)
            reset.append({column: row[column] for column in self._columns})

        m.submodules.table = table = memory.Memory(shape=self._layout, depth=BANKS * stride, init=reset * BANKS)
        write = table.write_port()
        m.d.comb += [
            write.en.eq(self.allocation.write),
            write.addr.eq(Cat(self.allocation.tenant, self.allocation.bank)),
        ]
        written, most = self.allocation.row, self._config.pages
        for column in self._columns:
            value = written.weight != 0 if column == "admits" else written[column]
            m.d.comb += write.data[column].eq(Mux(value > most, most, value) if column == "pages" else value)
        for tenant, row in zip(self.tenants, self.rows, strict=True):
            read = table.read_port(domain="comb")
            m.d.comb += [
                read.addr.eq(Cat(tenant, self.allocation.active_bank)),
                row.eq(read.data),
            ]
        return m
