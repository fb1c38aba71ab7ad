"""`ResourceManager`: owns the allocation; checks a new table, commits it in one cycle, rolls it back.

Serves `rm`, `guarantee[]`, `staging[]`, `active[]`, `rules`, `rule[]` and `prepared[]` of the register map; every
access is answered within 6 cycles. Bus errors: an address without a register, a write to what software only reads, a
row beyond the configuration; a staged row unless a table is staged (or being copied) and `token` equals `owner_token`;
a write to a staged row while a command is under way; a command while another one waits; a write to the prepared row
of an enabled rule. Result and row of a command are in `rm.status` when its `busy` is low. From the first cycle of the
bus access that commits to the first cycle under the new table it takes 8 cycles, 5 if the table was checked,
tenants + 11 if a guarantee was written after the change before (see `standing.py`). Rules change the table by
themselves, by the same transaction: see `ruletable.py`.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..analyzer.figures import AnalyzerFigures
from ..config import DeviceConfig
from ..csr import regmap
from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from ..fabric.events import EgressEventSignature, IngressEventSignature
from .allocation import AllocationSignature
from .banks import BankRoles
from .checker import WEIGHT_CAPACITY, TableChecker
from .guarantee import GuaranteeTable
from .inflight import InFlight
from .rows import RowAccess
from .ruletable import RuleTable
from .standing import StandingVerdict
from .table import AllocationTable
from .transaction import Transaction

__all__ = ["ResourceManager"]


class ResourceManager(wiring.Component):
    """The resource manager of one device.

    allocation: rows as they are staged, and the bank and epoch in force.
    ingress, egress: events of the fabric, to know which epochs still have packets.
    figures: of the analyzer, for the rules. cycle: device cycle counter.
    stall_timeout, active_tag: as in the registers. changed: high in the first cycle under another table.
    fired: high for a cycle when rules fired.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "bus": In(CsrSignature(regmap.WORD_ADDRESS_WIDTH)),
            "allocation": Out(AllocationSignature(config)),
            "ingress": In(IngressEventSignature(config)).array(config.ports),
            "egress": In(EgressEventSignature(config)).array(config.ports),
            "figures": In(AnalyzerFigures(config)),
            "cycle": In(64),
            "stall_timeout": Out(32),
            "active_tag": Out(32),
            "changed": Out(1),
            "fired": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        rows = self._config.tenants
        m.submodules.registers = registers = RegisterBlock(
            {"rm": None, "guarantee": rows, "staging": rows, "active": rows,
             "rules": None, "rule": self._config.rules, "prepared": self._config.rules})
        m.submodules.access = access = RowAccess(self._config)
        m.submodules.table = table = AllocationTable(self._config)
        m.submodules.guarantee = guarantee = GuaranteeTable(self._config)
        m.submodules.checker = checker = TableChecker(self._config)
        m.submodules.standing = standing = StandingVerdict(self._config)
        m.submodules.transaction = transaction = Transaction()
        m.submodules.banks = banks = BankRoles(self._config)
        m.submodules.in_flight = in_flight = InFlight(self._config)
        m.submodules.rules = rules = RuleTable(self._config)

        for name in ("ingress", "egress"):
            for inner, outer in zip(getattr(in_flight, name), getattr(self, name), strict=True):
                connect(m, flipped(outer), inner)
        connect(m, registers.guarantee, guarantee.bus)
        connect(m, registers.staging, access.staging)
        connect(m, registers.active, access.active)
        self._elaborate_bus(m, registers, transaction)
        self._elaborate_commands(m, registers, transaction, banks, in_flight)
        self._elaborate_banks(m, registers, transaction, banks, table, rules)
        self._elaborate_staging(m, access, table, transaction, banks, rules)
        self._elaborate_standing(m, table, guarantee, standing, transaction)
        self._elaborate_check(m, table, guarantee, checker, standing, transaction, access, rules)
        self._elaborate_rules(m, registers, transaction, banks, rules)
        self._elaborate_status(m, registers, transaction, banks, table, in_flight)
        self._elaborate_allocation(m, table, banks)
        m.d.comb += self.stall_timeout.eq(registers.rm_stall_timeout_cycles)
        return m

    def _elaborate_bus(self, m, registers, transaction):
        """A command that cannot wait is refused: its write reaches the register without bytes, and changes nothing."""
        connect(m, flipped(self.bus), registers.bus)
        block = regmap.node("rm")
        address = (block.address + block.register("command").offset) // 4
        is_command = Signal()
        refuse, refused = Signal(), Signal()   # in the second cycle of an access, and in its third
        m.d.comb += refuse.eq(is_command & transaction.full)
        m.d.sync += [
            is_command.eq(self.bus.valid & self.bus.write & (self.bus.address == address)),
            refused.eq(refuse),
        ]
        with m.If(refuse):
            m.d.comb += registers.bus.w_mask.eq(0)
        with m.If(refused):
            m.d.comb += self.bus.error.eq(1)

    def _elaborate_commands(self, m, registers, transaction, banks, in_flight):
        m.d.comb += [
            transaction.op.eq(registers.rm_command_op),
            transaction.command.eq(registers.rm_command_written),
            transaction.settled.eq(~(registers.rm_token_written | registers.rm_owner_token_written
                                     | registers.rm_base_epoch_written | banks.changed)),
            transaction.confirm_within.eq(registers.rm_confirm_within_cycles),
            transaction.draining.eq(in_flight.draining),
            transaction.changed.eq(banks.changed),
            in_flight.epoch.eq(banks.epoch),
        ]
        m.d.sync += [
            transaction.owned.eq(registers.rm_token_value == registers.rm_owner_token_value),
            transaction.current.eq(registers.rm_base_epoch_epoch == banks.epoch),
        ]

    def _elaborate_banks(self, m, registers, transaction, banks, table, rules):
        m.d.comb += [
            banks.commit.eq(transaction.commit),
            banks.roll_back.eq(transaction.roll_back),
            banks.staged_pages.eq(table.sum_pages),
            banks.staged_tag.eq(Mux(transaction.for_rules, rules.tag, registers.rm_staged_tag_value)),
            banks.cycle.eq(self.cycle),
        ]

    def _elaborate_staging(self, m, access, table, transaction, banks, rules):
        """Rows are stored by the bus or by the rules, never by both: the rules act while nothing is staged."""
        m.d.comb += [
            access.open.eq(transaction.staged & transaction.owned),
            access.locked.eq(transaction.locked),
            access.row.eq(table.old),
            table.tenant.eq(access.tenant),
            table.is_staging.eq(access.is_staging),
            table.store.eq(access.write | rules.table.store),
            table.store_tenant.eq(Mux(rules.table.store, rules.table.store_tenant, access.tenant)),
            table.new.eq(Mux(rules.table.store, rules.table.new, access.new)),
            table.replaced.eq(Mux(rules.table.store, table.scan_row, access.old)),
            table.active_bank.eq(banks.active_bank),
            table.staging_bank.eq(banks.staging_bank),
            table.staged.eq(transaction.staged),
            table.refresh.eq(transaction.refresh),
            transaction.copying.eq(table.copying),
        ]

    def _elaborate_standing(self, m, table, guarantee, standing, transaction):
        """Rows are judged when they are broadcast, a cycle after they were stored."""
        m.d.comb += [
            standing.stored.eq(table.write),
            standing.tenant.eq(table.write_tenant),
            standing.row.eq(table.write_row),
            standing.guarantee.eq(guarantee.scan_row),
            standing.guarantee_changed.eq(guarantee.changed),
        ]
        refreshed = Signal(name="standing_refresh")
        m.d.sync += refreshed.eq(transaction.refresh)
        m.d.comb += [standing.refresh.eq(refreshed), standing.replaced.eq(table.replaced_slots)]

    def _elaborate_check(self, m, table, guarantee, checker, standing, transaction, access, rules):
        m.d.comb += [
            table.scan_tenant.eq(Mux(transaction.rules.storing, rules.table.scan_tenant, checker.tenant)),
            # The check begins when nothing is stored any more.
            guarantee.scan_tenant.eq(Mux(table.storing, table.storing_tenant, checker.tenant)),
            checker.legal.eq(standing.legal),
            checker.start.eq(transaction.check),
            checker.staged.eq(table.scan_row),
            checker.guarantee.eq(guarantee.scan_row),
            checker.sum_weight.eq(table.sum_weight),
            checker.sum_pages.eq(table.sum_pages),
            transaction.check_done.eq(checker.done),
            transaction.check_result.eq(checker.result),
            transaction.check_row.eq(checker.row),
            transaction.row_changed.eq(access.write),
            transaction.guarantee_changed.eq(guarantee.changed),
        ]

    def _elaborate_rules(self, m, registers, transaction, banks, rules):
        connect(m, registers.rule, rules.rule)
        connect(m, registers.prepared, rules.prepared)
        connect(m, flipped(self.figures), rules.figures)
        connect(m, rules.transaction, transaction.rules)
        m.d.comb += [
            rules.acknowledged.eq(registers.rules_acknowledge_written),
            rules.acknowledge.eq(registers.rules_acknowledge_rules),
            rules.epoch.eq(banks.epoch),
            rules.cycle.eq(self.cycle),
            transaction.rules_confirm_within.eq(registers.rules_confirm_within_cycles),
            registers.rules_count_rules.eq(self._config.rules),
            registers.rules_pending_rules.eq(rules.pending),
            registers.rules_waiting_rules.eq(rules.waiting),
            registers.rules_firings_value.eq(rules.firings),
            registers.rules_refused_value.eq(rules.refused),
            self.fired.eq(rules.fired),
        ]

    def _elaborate_status(self, m, registers, transaction, banks, table, in_flight):
        m.d.comb += [
            registers.rm_status_state.eq(transaction.phase),
            registers.rm_status_busy.eq(transaction.busy),
            registers.rm_status_result.eq(transaction.result),
            registers.rm_status_row.eq(transaction.row),
            registers.rm_active_epoch.eq(banks.epoch),
            registers.rm_active_bank.eq(banks.active_bank),
            registers.rm_confirm_left_cycles.eq(transaction.confirm_left),
            registers.rm_weight_capacity_weight.eq(WEIGHT_CAPACITY),
            registers.rm_staged_weight_weight.eq(Mux(transaction.staged, table.sum_weight, 0)),
            registers.rm_staged_pages_pages.eq(Mux(transaction.staged, table.sum_pages, 0)),
            registers.rm_draining_packets.eq(in_flight.packets),
            registers.rm_cut_off_value.eq(in_flight.cut_off),
            registers.rm_changed_at_cycle.eq(banks.changed_at),
            registers.rm_active_tag_value.eq(banks.active_tag),
        ]
        for name in ("commits", "rollbacks", "refused", "expired"):
            m.d.comb += getattr(registers, f"rm_{name}_value").eq(getattr(transaction, name))

    def _elaborate_allocation(self, m, table, banks):
        m.d.comb += [
            self.allocation.write.eq(table.write),
            self.allocation.bank.eq(table.write_bank),
            self.allocation.tenant.eq(table.write_tenant),
            self.allocation.row.eq(table.write_row),
            self.allocation.active_bank.eq(banks.active_bank),
            self.allocation.epoch.eq(banks.epoch),
            self.allocation.sum_pages.eq(banks.sum_pages),
            self.active_tag.eq(banks.active_tag),
            self.changed.eq(banks.changed),
        ]
