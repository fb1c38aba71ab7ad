"""`AllocationTable`: the three banks of the allocation, the copy that prepares the staging bank, and the sums.

`refresh` copies the active bank into the staging bank, from the start if a copy is under way: one row a cycle, plus
one cycle to start and one for each row that is stored meanwhile. A copy is made after reset; others come after every
change of the table in force and when a staged table is dropped, so that the staging bank equals the active one
whenever a transaction begins.
Staged rows may be read and stored during the copy: they answer as if it were done. The sums are those of the rows
of the staging bank so far; they follow each store by two cycles. A row that is stored is broadcast one cycle later.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import DeviceConfig
from .allocation import BANKS, AllocationRow, reset_row

__all__ = ["SUM_WIDTH", "AllocationTable"]

#: Width of the sum of a column over a table.
SUM_WIDTH = 24


class AllocationTable(wiring.Component):
    """Banks of `config.tenants` rows.

    active_bank, staging_bank: roles of the banks; the staging bank is the one that is written.
    staged: there is a staged table, or its copy is under way.
    refresh: strobe. copying: high from the next cycle until the last row is stored.
    tenant, is_staging, old: row for the bus, from the staged or the active table, one cycle later.
    scan_tenant, scan_row: staged row, one cycle later; not while copying.
    store, store_tenant, new, replaced: strobe: the staged row of `store_tenant` becomes `new`; `replaced` is what the
        staging bank holds there (of no consequence before the copy came to it).
    sum_weight, sum_pages: over the rows of the staging bank.
    storing, storing_tenant: a row is stored in this cycle.
    write, write_bank, write_tenant, write_row: the broadcast; `replaced_slots`: of the row that was replaced by it.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "active_bank": In(range(BANKS)),
            "staging_bank": In(range(BANKS)),
            "staged": In(1),
            "refresh": In(1),
            "copying": Out(1, init=1),
            "tenant": In(range(config.tenants)),
            "is_staging": In(1),
            "old": Out(AllocationRow),
            "scan_tenant": In(range(config.tenants)),
            "scan_row": Out(AllocationRow),
            "store": In(1),
            "store_tenant": In(range(config.tenants)),
            "new": In(AllocationRow),
            "replaced": In(AllocationRow),
            "sum_weight": Out(SUM_WIDTH),
            "sum_pages": Out(SUM_WIDTH),
            "storing": Out(1),
            "storing_tenant": Out(range(config.tenants)),
            "replaced_slots": Out(config.slots),
            "write": Out(1),
            "write_bank": Out(range(BANKS)),
            "write_tenant": Out(range(config.tenants)),
            "write_row": Out(AllocationRow),
        })

    def elaborate(self, platform):
        m = Module()
        # Which rows of the staging bank are stored: a row that the bus wrote before the copy came to it is
        # newer than the copy, which then passes it by.
        self._stored = stored = Signal(self._config.tenants)
        self._row_memory(m)
        self._elaborate_copy(m, stored)
        m.d.comb += [
            self._bus_read.addr.eq(self._address(self.tenant, Mux(
                self.is_staging & self.staged & stored.bit_select(self.tenant, 1),
                self.staging_bank, self.active_bank))),
            self.storing.eq(self._write.en),
        ]
        self._replaces = Signal()   # the row that is broadcast came over another one
        before = Signal(self._config.slots)
        m.d.sync += [self._replaces.eq(stored.bit_select(self.storing_tenant, 1)), before.eq(self.replaced.slots)]
        m.d.comb += self.replaced_slots.eq(Mux(self._replaces, before, 0))
        with m.If(self.refresh):
            m.d.sync += stored.eq(0)
        with m.Elif(self._write.en):
            m.d.sync += stored.bit_select(self.storing_tenant, 1).eq(1)
        # What is broadcast in the cycle after `refresh` was stored before.
        refreshed = Signal()
        m.d.sync += refreshed.eq(self.refresh)
        self._elaborate_sum(m, self.sum_weight, "weight", refreshed)
        self._elaborate_sum(m, self.sum_pages, "pages", refreshed)
        m.d.sync += [
            self.write.eq(self._write.en),
            self.write_bank.eq(self.staging_bank),
            self.write_tenant.eq(self.storing_tenant),
            self.write_row.eq(self._write.data),
        ]
        return m

    def _address(self, tenant, bank):
        """Banks are a power of two of rows apart, so that an address is made without arithmetic."""
        return Cat(tenant, bank)

    def _row_memory(self, m):
        tenants = self._config.tenants
        pitch = 1 << ceil_log2(tenants)
        bank = [reset_row(tenant, self._config) for tenant in range(tenants)] + [{}] * (pitch - tenants)
        # No row is read in the cycle in which it is written, or nobody looks at it: what would come out need not be
        # defined, which spares a bypass around the block RAM. Synthesis believes that only of a register behind a port.
        m.submodules.rows = rows = memory.Memory(
            shape=AllocationRow, depth=4 * pitch, init=[AllocationRow.const(row) for row in bank * BANKS],
            attrs={"no_rw_check": 1})
        self._bus_read = rows.read_port(domain="comb")
        self._scan_read = rows.read_port(domain="comb")
        self._write = rows.write_port()
        for port, row in ((self._bus_read, self.old), (self._scan_read, self.scan_row)):
            fetched = Signal(AllocationRow, reset_less=True, name="fetched")   # so that it can be the block RAM's own
            m.d.sync += fetched.eq(port.data)
            m.d.comb += row.eq(fetched)

    def _elaborate_copy(self, m, stored):
        """The copy goes from row to row; a row that is stored takes the write port from it for a cycle."""
        target = self.storing_tenant
        current = Signal(range(self._config.tenants))  # row to be stored next; its data has been read
        following = Signal.like(current)
        primed = Signal()
        passed = stored.bit_select(current, 1)
        advance = self.copying & primed & ~self.store
        m.d.comb += [
            following.eq(current + advance),
            self._scan_read.addr.eq(Mux(
                self.copying, self._address(following, self.active_bank),
                self._address(self.scan_tenant, self.staging_bank))),
            target.eq(Mux(self.store, self.store_tenant, current)),
            self._write.en.eq(self.store | (advance & ~passed)),
            self._write.addr.eq(self._address(target, self.staging_bank)),
            self._write.data.eq(Mux(self.store, self.new, self.scan_row)),
        ]
        m.d.sync += primed.eq(self.copying & ~self.refresh)
        with m.If(self.refresh):
            m.d.sync += [self.copying.eq(1), current.eq(0)]
        with m.Elif(advance):
            m.d.sync += current.eq(following)
            with m.If(current == self._config.tenants - 1):
                m.d.sync += self.copying.eq(0)

    def _elaborate_sum(self, m, total, column, refreshed):
        """Add what is broadcast, less what it replaced; a row not stored before replaced nothing."""
        before = Signal.like(self.replaced[column], name=f"before_{column}")
        replaced = Signal.like(before, name=f"replaced_{column}")
        m.d.sync += before.eq(self.replaced[column])
        m.d.comb += replaced.eq(Mux(self._replaces, before, 0))
        with m.If(refreshed):
            m.d.sync += total.eq(0)
        with m.Elif(self.write):
            m.d.sync += total.eq(total + self.write_row[column] - replaced)
