"""`ResourceManager`: owns the allocation; checks a new table, commits it in one cycle, rolls it back.

Serves `rm`, `guarantee[]`, `staging[]` and `active[]` of the register map; every access is answered within 2
cycles. Bus errors: an address without a register, a write to what software only reads, a row beyond the
configuration; a staged row unless a table is staged (or being copied) and `token` equals `owner_token`; a write to a
staged row while a command is under way; a command while another one waits. Result and row of a command are in
`rm.status` when its `busy` is low. From the first cycle of the bus access that commits to the first cycle under the
new table it takes tenants + 7 cycles, 4 if the table was checked.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import DeviceConfig
from ..csr import regmap
from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from ..fabric.events import EgressEventSignature, IngressEventSignature
from .allocation import AllocationSignature
from .checker import WEIGHT_CAPACITY, TableChecker
from .guarantee import GuaranteeTable
from .inflight import InFlight
from .rows import RowAccess
from .table import AllocationTable
from .transaction import Transaction

__all__ = ["ResourceManager"]


class ResourceManager(wiring.Component):
    """The resource manager of one device.

    allocation: rows as they are staged, and the bank and epoch in force.
    ingress, egress: events of the fabric, to know which epochs still have packets.
    cycle: device cycle counter.
    stall_timeout, active_tag: as in the registers. changed: high in the first cycle under another table.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "bus": In(CsrSignature(regmap.WORD_ADDRESS_WIDTH)),
            "allocation": Out(AllocationSignature(config)),
            "ingress": In(IngressEventSignature(config)).array(config.ports),
            "egress": In(EgressEventSignature(config)).array(config.ports),
            "cycle": In(64),
            "stall_timeout": Out(32),
            "active_tag": Out(32),
            "changed": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        rows = self._config.tenants
        m.submodules.registers = registers = RegisterBlock(
            {"rm": None, "guarantee": rows, "staging": rows, "active": rows})
        m.submodules.access = access = RowAccess(self._config)
        m.submodules.table = table = AllocationTable(self._config)
        m.submodules.guarantee = guarantee = GuaranteeTable(self._config)
        m.submodules.checker = checker = TableChecker(self._config)
        m.submodules.transaction = transaction = Transaction(self._config)
        m.submodules.in_flight = in_flight = InFlight(self._config)

        for name in ("ingress", "egress"):
            for inner, outer in zip(getattr(in_flight, name), getattr(self, name), strict=True):
                connect(m, flipped(outer), inner)
        connect(m, registers.guarantee, guarantee.bus)
        connect(m, registers.staging, access.staging)
        connect(m, registers.active, access.active)
        self._elaborate_bus(m, registers, transaction)
        self._elaborate_commands(m, registers, transaction, in_flight)
        self._elaborate_staging(m, access, table, transaction)
        self._elaborate_check(m, table, guarantee, checker, transaction, access)
        self._elaborate_status(m, registers, transaction, table, in_flight)
        self._elaborate_allocation(m, table, transaction)
        m.d.comb += self.stall_timeout.eq(registers.rm_stall_timeout_cycles)
        return m

    def _elaborate_bus(self, m, registers, transaction):
        """A command that cannot wait is refused here, since a register takes every write."""
        connect(m, flipped(self.bus), registers.bus)
        block = regmap.node("rm")
        command = (block.address + block.register("command").offset) // 4
        answering = Signal()   # the access is in its second cycle: it is decided
        m.d.sync += answering.eq(self.bus.valid & ~self.bus.ready)
        with m.If((self.bus.address == command) & self.bus.write & transaction.full & ~answering):
            m.d.comb += [
                registers.bus.valid.eq(0),
                self.bus.ready.eq(self.bus.valid),
                self.bus.error.eq(1),
            ]

    def _elaborate_commands(self, m, registers, transaction, in_flight):
        m.d.comb += [
            transaction.command.eq(registers.rm_command_written),
            transaction.op.eq(registers.rm_command_op),
            transaction.owned.eq(registers.rm_token_value == registers.rm_owner_token_value),
            transaction.base_epoch.eq(registers.rm_base_epoch_epoch),
            transaction.confirm_within.eq(registers.rm_confirm_within_cycles),
            transaction.staged_tag.eq(registers.rm_staged_tag_value),
            transaction.draining.eq(in_flight.draining),
            transaction.cycle.eq(self.cycle),
            in_flight.epoch.eq(transaction.epoch),
        ]

    def _elaborate_staging(self, m, access, table, transaction):
        m.d.comb += [
            access.open.eq(transaction.staged & transaction.owned),
            access.locked.eq(transaction.locked),
            access.old.eq(table.old),
            table.tenant.eq(access.tenant),
            table.is_staging.eq(access.is_staging),
            table.store.eq(access.write),
            table.new.eq(access.new),
            table.active_bank.eq(transaction.active_bank),
            table.staging_bank.eq(transaction.staging_bank),
            table.staged.eq(transaction.staged),
            table.copy.eq(transaction.copy),
            transaction.copying.eq(table.copying),
        ]

    def _elaborate_check(self, m, table, guarantee, checker, transaction, access):
        m.d.comb += [
            table.scan_tenant.eq(checker.tenant),
            guarantee.scan_tenant.eq(checker.tenant),
            checker.start.eq(transaction.check),
            checker.staged.eq(table.scan_row),
            checker.guarantee.eq(guarantee.scan_row),
            checker.sum_weight.eq(table.sum_weight),
            checker.sum_pages.eq(table.sum_pages),
            transaction.check_done.eq(checker.done),
            transaction.check_result.eq(checker.result),
            transaction.check_row.eq(checker.row),
            transaction.invalidate.eq(guarantee.changed | access.write),
            transaction.staged_pages.eq(table.sum_pages),
        ]

    def _elaborate_status(self, m, registers, transaction, table, in_flight):
        m.d.comb += [
            registers.rm_status_state.eq(transaction.phase),
            registers.rm_status_busy.eq(transaction.busy),
            registers.rm_status_result.eq(transaction.result),
            registers.rm_status_row.eq(transaction.row),
            registers.rm_active_epoch.eq(transaction.epoch),
            registers.rm_active_bank.eq(transaction.active_bank),
            registers.rm_confirm_left_cycles.eq(transaction.confirm_left),
            registers.rm_weight_capacity_weight.eq(WEIGHT_CAPACITY),
            registers.rm_staged_weight_weight.eq(Mux(transaction.staged, table.sum_weight, 0)),
            registers.rm_staged_pages_pages.eq(Mux(transaction.staged, table.sum_pages, 0)),
            registers.rm_draining_packets.eq(in_flight.packets),
            registers.rm_cut_off_value.eq(in_flight.cut_off),
            registers.rm_changed_at_cycle.eq(transaction.changed_at),
            registers.rm_active_tag_value.eq(transaction.active_tag),
        ]
        for name in ("commits", "rollbacks", "refused", "expired"):
            m.d.comb += getattr(registers, f"rm_{name}_value").eq(getattr(transaction, name))

    def _elaborate_allocation(self, m, table, transaction):
        m.d.comb += [
            self.allocation.write.eq(table.write),
            self.allocation.bank.eq(table.write_bank),
            self.allocation.tenant.eq(table.write_tenant),
            self.allocation.row.eq(table.write_row),
            self.allocation.active_bank.eq(transaction.active_bank),
            self.allocation.epoch.eq(transaction.epoch),
            self.allocation.sum_pages.eq(transaction.sum_pages),
            self.active_tag.eq(transaction.active_tag),
            self.changed.eq(transaction.changed),
        ]
