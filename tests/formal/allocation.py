"""Contract of the resource manager: the table in force satisfies the rules, and changes only as a whole.

The tables are rebuilt from what the allocation bus broadcasts, which is all that the rest of the device ever sees of
them. The register bus is free within its contract, or (`writes`) carries out one transaction: begin, writes of any
value to any word of the rows that they name, commit, roll back.

`ManagerInvariant` is what makes the induction close; it speaks about the inside. The guaranteed minimum is compared
with the guarantees in the cycle that decides.
"""

from functools import partial, reduce
from operator import add

from amaranth import *

from gateware.csr import regmap
from gateware.manager.allocation import BANKS, AllocationRow, reset_row
from tests.formal.csr import obeys
from tests.formal.manager_invariant import ManagerInvariant
from tests.formal.prover import Assume, Claims, free_inputs, internals
from tests.formal.rules import legal

BEGIN, CHECK, COMMIT, ROLL_BACK = 1, 2, 3, 5


class ManagerContract(Elaboratable):
    """`dut` has the ports of `ResourceManager(config)`.

    writes: of the transaction, "staging" or "guarantee" each, or another command; None: the bus is free.
    invariant: also claim `ManagerInvariant`, of a resource manager itself; part: of the claims, see `PARTS`. The others
    are assumed if the bus is free, else left out.
    """

    def __init__(self, dut, config, writes=None, invariant=False, part=None):
        self.dut, self.config, self.writes, self.invariant = dut, config, writes, invariant
        self.claims = Claims(part, assume=writes is None)

    def elaborate(self, platform):
        m = Module()
        dut, claim = self.dut, partial(self.claims, "bus")
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        m.d.comb += Assume(obeys(m, dut.bus, "bus"))
        waited = Signal()   # the access on the bus is in its second cycle or later
        m.d.sync += waited.eq(dut.bus.valid & ~dut.bus.ready)
        if self.writes is not None:
            self._transaction(m, dut.bus)
        bus, tables = dut.allocation, self._tables()
        with m.If(bus.write):
            m.d.comb += [claim(bus.bank != bus.active_bank), claim(bus.bank < BANKS),
                         claim(bus.tenant < self.config.tenants)]
            for bank in range(BANKS):
                for tenant in range(self.config.tenants):
                    with m.If((bus.bank == bank) & (bus.tenant == tenant)):
                        m.d.sync += tables[bank][tenant].eq(bus.row)
        kept = self._as_a_whole(m, bus)
        for bank in range(BANKS):
            with m.If(bus.active_bank == bank):
                m.d.comb += [claim(rule) for rule in legal(tables[bank], self.config)]
                m.d.comb += claim(bus.sum_pages == reduce(add, (row.pages for row in tables[bank])))
        if self.invariant:
            ManagerInvariant(m, inside, self.config, tables, self.claims).claim_all(bus, kept, waited, dut.bus)
        self.claims.finish(m)
        return m

    def _transaction(self, m, bus):
        """Accesses one after another without a pause; the words and what is written to them are free."""
        rm = regmap.node("rm")
        command = (rm.address + rm.register("command").offset) // 4
        steps = [BEGIN, *self.writes, COMMIT, ROLL_BACK]
        step = Signal(range(len(steps) + 1))
        m.d.comb += [Assume(bus.valid == (step != len(steps))), Assume(bus.write), Assume(bus.w_mask == 0xF)]
        with m.If(bus.valid & bus.ready):
            m.d.sync += step.eq(step + 1)
        with m.Switch(step):
            for number, op in enumerate(steps):
                with m.Case(number):
                    if op in ("staging", "guarantee"):
                        rows = regmap.node(op)
                        first, words = rows.address // 4, self.config.tenants * rows.stride // 4
                        m.d.comb += Assume((bus.address >= first) & (bus.address < first + words))
                    else:
                        m.d.comb += [Assume(bus.address == command), Assume(bus.w_data == op)]

    def _tables(self):
        return [[Signal(AllocationRow, init=reset_row(tenant, self.config), name=f"bank_{bank}_row_{tenant}")
                 for tenant in range(self.config.tenants)] for bank in range(BANKS)]

    def _as_a_whole(self, m, bus):
        """Bank and epoch change in the same cycle, which `changed` marks, and the epoch by one.

        No row of the table that was in force before the last change is written: a rollback finds it as it was. Returns
        its bank.
        """
        claim = partial(self.claims, "bus")
        bank, before = Signal.like(bus.active_bank), Signal.like(bus.active_bank, init=1)
        epoch = Signal(8)
        m.d.sync += [bank.eq(bus.active_bank), epoch.eq(bus.epoch)]
        kept = Signal.like(before)
        m.d.comb += kept.eq(Mux(self.dut.changed, bank, before))
        m.d.sync += before.eq(kept)
        m.d.comb += [
            claim(bus.active_bank < BANKS),
            claim(self.dut.changed == (bus.active_bank != bank)),
            claim(bus.epoch == (epoch + self.dut.changed)[:8]),
            claim(~bus.write | (bus.bank != kept)),
        ]
        return kept
