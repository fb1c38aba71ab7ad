"""Contract of admission at one input: what is admitted is granted by the table of its epoch, and is written there only.

The bus behaves as the resource manager is proven to: rows are written outside the bank in force, bank and epoch change
together. Headers, beats and the page accounts are free, whatever they say. The tenant is symbolic: any, but fixed.
"""

from amaranth import *

from gateware.manager.allocation import BANKS, AllocationRow, reset_row
from gateware.stream.packet import PROCESS
from tests.formal.prover import AnyConst, Assert, Assume, free_inputs, internals


class AdmissionContract(Elaboratable):
    """`dut` has the ports of `Admission(config, port)`.

    invariant: also assert where it keeps the table, which makes the induction close; of an admission itself.
    """

    def __init__(self, dut, config, port, invariant=False):
        self.dut, self.config, self.port, self.invariant = dut, config, port, invariant

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut, inside = internals(self.dut)
        free_inputs(m, self.dut)
        tenant = Signal(range(self.config.tenants))
        m.d.comb += [tenant.eq(AnyConst(len(tenant))), Assume(tenant < self.config.tenants)]
        row = self._table(m, inside, tenant)
        self._grants(m, row, tenant)
        self._writes(m, inside)
        return m

    def _table(self, m, inside, tenant):
        """The row of the tenant that is in force, as it was broadcast."""
        bus, config = self.dut.allocation, self.config
        bank, epoch, begun = Signal.like(bus.active_bank), Signal.like(bus.epoch), Signal()
        m.d.sync += [bank.eq(bus.active_bank), epoch.eq(bus.epoch), begun.eq(1)]
        m.d.comb += [
            Assume(bus.active_bank < BANKS), Assume(bus.tenant < config.tenants),
            Assume(begun | ((bus.active_bank == 0) & (bus.epoch == 0))),
            Assume(~begun | (bus.epoch == (epoch + (bus.active_bank != bank))[:8])),
            Assume(~bus.write | ((bus.bank < BANKS) & (bus.bank != bus.active_bank))),
            Assume(~(begun & bus.write & (bus.active_bank != bank)) | (bus.bank != bus.active_bank)),
        ]
        in_force = Signal(AllocationRow)
        bits = (config.tenants - 1).bit_length()
        for number in range(BANKS):
            row = Signal(AllocationRow, init=reset_row(0, config), name=f"row_{number}")
            fresh = Signal(init=1, name=f"fresh_{number}")   # not written since the beginning
            now = Signal(AllocationRow, name=f"now_{number}")
            m.d.comb += now.eq(row)
            for other in range(1, config.tenants):
                with m.If(fresh & (tenant == other)):
                    m.d.comb += now.eq(AllocationRow.const(reset_row(other, config)))
            with m.If(bus.write & (bus.bank == number) & (bus.tenant == tenant)):
                m.d.sync += [row.eq(bus.row), fresh.eq(0)]
            with m.If(bus.active_bank == number):
                m.d.comb += in_force.eq(now)
            if self.invariant:
                kept = inside.word(m, "decision.rows.table", Cat(tenant, C(number, 2)) if bits else C(number, 2))
                m.d.comb += Assert((kept.weight == now.weight) & (kept.ports == now.ports))
        return in_force

    def _grants(self, m, row, tenant):
        """Each admission is one that the table in force grants."""
        event, bus, config = self.dut.ingress, self.dut.allocation, self.config
        header = event.header
        m.d.comb += Assert(~(event.admit & event.drop))
        with m.If(event.admit):
            m.d.comb += [
                Assert(header.tenant < config.tenants), Assert(header.destination < config.ports),
                Assert(header.destination != PROCESS), Assert(header.epoch == bus.epoch),
                Assert(header.source == self.port),
            ]
            with m.If(header.tenant == tenant):
                m.d.comb += [Assert(row.weight != 0), Assert(row.ports.bit_select(header.destination, 1))]

        for number, crosspoint in enumerate(self.dut.crosspoints):
            with m.If(crosspoint.put & crosspoint.first):   # also what does not count in the end
                m.d.comb += [Assert(header.tenant < config.tenants), Assert(header.destination == number)]
                with m.If(header.tenant == tenant):
                    m.d.comb += [Assert(row.weight != 0), Assert(row.ports.bit_select(number, 1))]

    def _writes(self, m, inside):
        """Where beats go: first the admitted one, then those of the same packet, to the same place, up to its end."""
        event = self.dut.ingress
        busy, output, tenant = Signal(), Signal(range(self.config.ports)), Signal(6)
        placed = Signal.like(self.dut.crosspoints[0].placed)
        written = Cat(crosspoint.write for crosspoint in self.dut.crosspoints)
        m.d.comb += Assert((written & (written - 1)[:len(written)]) == 0)
        m.d.comb += Assert(~event.admit | (written.any() & ~busy))
        for number, (crosspoint, booking) in enumerate(zip(self.dut.crosspoints, self.dut.bookings, strict=True)):
            mine = event.header.destination == number
            m.d.comb += Assert(booking.reserve == (event.admit & mine))
            m.d.comb += [Assert(~crosspoint.write | crosspoint.put), Assert(~crosspoint.put | crosspoint.first | busy)]
            with m.If(crosspoint.write):
                m.d.comb += [Assert(crosspoint.first == ~busy), Assert(crosspoint.first == event.admit)]
                m.d.sync += busy.eq(~crosspoint.end)
                with m.If(crosspoint.first):
                    m.d.comb += [Assert(mine & (crosspoint.tenant == event.header.tenant)),
                                 Assert(crosspoint.placed.after == booking.after)]
                    m.d.sync += [output.eq(number), tenant.eq(crosspoint.tenant), placed.eq(crosspoint.placed)]
                with m.Else():
                    m.d.comb += [Assert(output == number), Assert(crosspoint.tenant == tenant),
                                 Assert(crosspoint.placed == placed)]
            with m.If(crosspoint.put & ~crosspoint.first):
                m.d.comb += Assert(output == number)
            if self.invariant:
                state = inside["state"]
                under_way = (state == 1) | (state == 2)
                m.d.comb += Assert((busy == under_way) & (output < self.config.ports))
                with m.If(busy):
                    m.d.comb += [Assert(crosspoint.put == (output == number)), Assert(crosspoint.tenant == tenant),
                                 Assert(crosspoint.placed == placed)]


class WaitingContract(Elaboratable):
    """Who has packets to claim: as many as arrived and were not claimed, no more, no fewer, for any tenant.

    `dut` has the ports of `Waiting(config)`. The output claims only what is `ready`, and at most `capacity` packets are
    in the crosspoint: every packet has a descriptor.
    """

    def __init__(self, dut, config, capacity, invariant=False):
        self.dut, self.config, self.capacity, self.invariant = dut, config, capacity, invariant

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        tenant = Signal.like(dut.claimed)
        count, claimed = Signal(range(self.capacity + 2)), Signal.like(dut.asked_claimed)
        arrives, goes = Signal(), Signal()
        m.d.comb += [
            tenant.eq(AnyConst(len(tenant))), Assume(tenant < self.config.tenants),
            Assume((dut.arrived < self.config.tenants) & (dut.claimed < self.config.tenants)),
            arrives.eq(dut.arrive & (dut.arrived == tenant)), goes.eq(dut.claim & (dut.claimed == tenant)),
            Assume(~goes | dut.ready.bit_select(tenant, 1)), Assume(~arrives | (count < self.capacity)),
            Assert(dut.ready.bit_select(tenant, 1) == (count != 0)),
            Assert(dut.several.bit_select(tenant, 1) == (count >= 3)),
            Assert((dut.asked != tenant) | (dut.asked_claimed == claimed)),
        ]
        m.d.sync += [count.eq(count + arrives - goes), claimed.eq(claimed + goes)]
        if self.invariant:
            came, gone = inside.word(m, "arrivals", tenant), inside.word(m, "claims", tenant)
            m.d.comb += [Assert((came - gone)[:len(came)] == count), Assert(gone == claimed),
                         Assert(count <= self.capacity)]
        return m
