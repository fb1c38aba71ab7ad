"""Contract of the resource manager on its ports: the table in force satisfies the rules and changes only as a whole.

Nothing of how it works is used: the tables are rebuilt from what the allocation bus broadcasts, which is all that the
rest of the device ever sees of them. The register bus is free within its contract, or (`writes`) carries out one
transaction: begin, so many writes of any value to any word of the staged rows, commit, roll back.
"""

from functools import reduce
from operator import add

from amaranth import *

from gateware.csr import regmap
from gateware.manager.allocation import BANKS, FULL_RATE, AllocationRow, reset_row
from tests.formal.csr import obeys
from tests.formal.prover import Assert, Assume, free_inputs

BEGIN, COMMIT, ROLL_BACK = 1, 3, 5
WEIGHT_CAPACITY = 1 << 16
LARGEST_PACKET = 256
FULL_HOST_SHARE = 256


class ManagerContract(Elaboratable):
    """`dut` has the ports of `ResourceManager(config)`. writes: of the transaction; None: the bus is free."""

    def __init__(self, dut, config, writes=None):
        self.dut, self.config, self.writes = dut, config, writes

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        free_inputs(m, dut)
        m.d.comb += Assume(obeys(m, dut.bus, "bus"))
        if self.writes is not None:
            self._transaction(m, dut.bus)
        bus, tables = dut.allocation, self._tables()
        with m.If(bus.write):
            m.d.comb += [Assert(bus.bank != bus.active_bank), Assert(bus.bank < BANKS),
                         Assert(bus.tenant < self.config.tenants)]
            for bank in range(BANKS):
                for tenant in range(self.config.tenants):
                    with m.If((bus.bank == bank) & (bus.tenant == tenant)):
                        m.d.sync += tables[bank][tenant].eq(bus.row)
        self._as_a_whole(m, bus)
        for bank in range(BANKS):
            with m.If(bus.active_bank == bank):
                m.d.comb += [Assert(claim) for claim in self._legal(tables[bank])]
                m.d.comb += Assert(bus.sum_pages == reduce(add, (row.pages for row in tables[bank])))
        return m

    def _transaction(self, m, bus):
        """Accesses one after another without a pause; the staged words and what is written to them are free."""
        rm, staging = regmap.node("rm"), regmap.node("staging")
        command = (rm.address + rm.register("command").offset) // 4
        steps = [BEGIN, *[None] * self.writes, COMMIT, ROLL_BACK]
        step = Signal(range(len(steps) + 1))
        m.d.comb += [Assume(bus.valid == (step != len(steps))), Assume(bus.write), Assume(bus.w_mask == 0xF)]
        with m.If(bus.valid & bus.ready):
            m.d.sync += step.eq(step + 1)
        with m.Switch(step):
            for number, op in enumerate(steps):
                with m.Case(number):
                    if op is None:
                        first, words = staging.address // 4, self.config.tenants * staging.stride // 4
                        m.d.comb += Assume((bus.address >= first) & (bus.address < first + words))
                    else:
                        m.d.comb += [Assume(bus.address == command), Assume(bus.w_data == op)]

    def _tables(self):
        return [[Signal(AllocationRow, init=reset_row(tenant, self.config), name=f"bank_{bank}_row_{tenant}")
                 for tenant in range(self.config.tenants)] for bank in range(BANKS)]

    def _as_a_whole(self, m, bus):
        """Bank and epoch change in the same cycle, which `changed` marks, and the epoch by one."""
        bank = Signal.like(bus.active_bank)
        epoch = Signal(8)
        m.d.sync += [bank.eq(bus.active_bank), epoch.eq(bus.epoch)]
        m.d.comb += [
            Assert(bus.active_bank < BANKS),
            Assert(self.dut.changed == (bus.active_bank != bank)),
            Assert(bus.epoch == (epoch + self.dut.changed)[:8]),
        ]

    def _legal(self, rows):
        config = self.config
        yield reduce(add, (row.weight for row in rows)) <= WEIGHT_CAPACITY
        yield reduce(add, (row.pages for row in rows)) <= config.pages
        for number, row in enumerate(rows):
            yield row.rate <= FULL_RATE
            yield row.burst >= LARGEST_PACKET
            yield row.ports >> config.ports == 0
            yield row.slots >> config.slots == 0
            yield row.host_share <= FULL_HOST_SHARE
            for other in rows[:number]:
                yield (row.slots & other.slots) == 0
