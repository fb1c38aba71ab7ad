"""Contract of admission at one input: what is admitted is granted by the table of its epoch, and is written there only.

The bus behaves as the resource manager is proven to: rows are written outside the bank in force, bank and epoch change
together. Headers, beats and the page accounts are free, whatever they say. The tenant is symbolic: any, but fixed.

An answer, which is class `RESPONSE` at the engines' input and nothing else, needs no grant and keeps its epoch: its
request had the grant of the way back. That is claimed of requests, as that whoever sends to the engines is granted its
own input port; that an answer goes back to where its request came from is for the engines to keep.
"""

from amaranth import *

from gateware.config import MAX_PACKET_BEATS
from gateware.fabric.waiting import SEVERAL
from gateware.manager.allocation import BANKS, AllocationRow, reset_row
from gateware.stream.packet import PROCESS, FlowClass, PacketHeader
from tests.formal.prover import AnyConst, Assert, Assume, free_inputs, internals

COUNT = 4  # bits of a header's number; below 16 headers are inside


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
        header = self.dut.ingress.header
        self.answer = Signal()
        if self.port == self.config.engine_port:
            m.d.comb += self.answer.eq(header.flow_class == FlowClass.RESPONSE)
            self._keeps_epochs(m, inside)
        self._grants(m, row, tenant)
        self._writes(m, inside)
        self._lengths(m, inside)
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
                m.d.comb += Assert((kept.admits == (now.weight != 0)) & (kept.ports == now.ports[:config.ports]))
        return in_force

    def _grants(self, m, row, tenant):
        """Each admission is one that the table in force grants, an answer left out."""
        event, bus, config = self.dut.ingress, self.dut.allocation, self.config
        header = event.header

        def claim(number):
            """The header is the tenant's only with the way there; to the engines also the way back."""
            back = row.ports[self.port] if number == config.engine_port else C(1)
            granted = (row.weight != 0) & row.ports[number] & back
            return Assert(self.answer | (header.tenant != tenant) | granted, src_loc_at=1)

        m.d.comb += Assert(~(event.admit & event.drop))
        with m.If(event.admit):
            m.d.comb += [
                Assert(header.tenant < config.tenants), Assert(header.destination < config.ports),
                Assert(header.destination != PROCESS), Assert(self.answer | (header.epoch == bus.epoch)),
                Assert(header.source == self.port),
            ]
            for number in range(config.ports):
                with m.If(header.destination == number):
                    m.d.comb += claim(number)
        for number, crosspoint in enumerate(self.dut.crosspoints):
            with m.If(crosspoint.put & crosspoint.first):   # also what does not count in the end
                m.d.comb += [Assert(header.tenant < config.tenants), Assert(header.destination == number),
                             claim(number)]

    def _keeps_epochs(self, m, inside):
        """An admitted answer has the epoch that it was offered with: that of any header, followed by its number."""
        offer, event = self.dut.packets.header, self.dut.ingress
        index, epoch = Signal(COUNT), Signal(8)
        taken, decided = Signal(COUNT), Signal(COUNT)
        m.d.comb += [index.eq(AnyConst(COUNT)), epoch.eq(AnyConst(8))]
        with m.If(offer.valid & offer.ready):
            m.d.sync += taken.eq(taken + 1)
            with m.If(taken == index):
                m.d.comb += Assume(offer.payload.epoch == epoch)
        with m.If(event.admit | event.drop):
            m.d.sync += decided.eq(decided + 1)
        with m.If(event.admit & self.answer & (decided == index)):
            m.d.comb += Assert(event.header.epoch == epoch)
        if self.invariant:
            queue = "decision.incoming."
            places = [("decision.valid", "decision.held"), ("decision.next_valid", "decision.next"),
                      (f"{queue}full", f"{queue}caught")]
            position = C(0, COUNT)
            for valid, header in places:
                followed = inside[valid] & ((decided + position)[:COUNT] == index)
                m.d.comb += Assert(~followed | (PacketHeader(inside[header]).epoch == epoch))
                position = (position + inside[valid])[:COUNT]
            m.d.comb += [Assert((taken - decided)[:COUNT] == position),
                         Assert(~inside[f"{queue}full"] | inside["decision.next_valid"])]

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
            m.d.comb += [Assert(~crosspoint.write | crosspoint.put),
                         Assert(~crosspoint.put | (crosspoint.first == ~busy))]
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

    def _lengths(self, m, inside):
        """A packet has as many beats as its header says, which is shown with each; `last` is on the final one."""
        shift = self.config.beat_bytes.bit_length() - 1

        def beats_of(length):
            return (length + self.config.beat_bytes - 1) >> shift

        to_come, length = Signal(range(MAX_PACKET_BEATS + 1)), Signal(12)   # behind the beat before; as announced
        for crosspoint in self.dut.crosspoints:
            header, first = crosspoint.header, crosspoint.first
            now = Mux(first, beats_of(header.length), to_come)
            with m.If(crosspoint.write):
                m.d.comb += [Assert((now != 0) & (now <= MAX_PACKET_BEATS)), Assert(crosspoint.end == (now == 1)),
                             Assert(crosspoint.beat.last == crosspoint.end), Assert(first | (header.length == length))]
                m.d.sync += [to_come.eq(now - 1), length.eq(header.length)]
            if self.invariant:
                state = inside["state"]
                with m.If((state == 1) | (state == 2)):
                    m.d.comb += [Assert((inside["left"] == to_come) & (to_come != 0)),
                                 Assert(inside["final"] == (to_come == 1)),
                                 Assert(to_come < MAX_PACKET_BEATS), Assert(header.length == length)]
        if self.invariant:
            for valid, header, size in (("valid", "held", "size"), ("next_valid", "next", "next_size")):
                announced = beats_of(PacketHeader(inside[f"decision.{header}"]).length)
                legal = (announced != 0) & (announced <= MAX_PACKET_BEATS)
                found = inside[f"decision.{size}"]
                m.d.comb += Assert(~inside[f"decision.{valid}"]
                                   | ((found[8] == legal) & (~legal | (found[:8] + 1 == announced))))
            with m.If(inside["decision.granted"]):
                announced = beats_of(PacketHeader(inside["decision.held"]).length)
                m.d.comb += Assert((announced != 0) & (self.dut.decision.behind + 1 == announced)
                                   & (self.dut.decision.single == (announced == 1)))


class WaitingContract(Elaboratable):
    """Who has packets to claim: as many as arrived and were not claimed, no more, no fewer, for any tenant; and who has
    several, as of the claim before.

    `dut` is a `Waiting(config)`, or a wrong one around it. The output claims only what is `ready`. At most `capacity`
    packets are in the crosspoint: every packet has a descriptor. inner: path of the part that counts.
    """

    def __init__(self, dut, config, capacity, inner=""):
        self.dut, self.config, self.capacity, self.inner = dut, config, capacity, inner

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        tenant, count = Signal.like(dut.arrived), Signal(range(self.capacity + 2))
        left, claims_before = Signal.like(count), Signal()   # by the last claim of the tenant; that was a cycle ago
        arrives, goes = Signal(), Signal()
        m.d.comb += [
            tenant.eq(AnyConst(len(tenant))), Assume(tenant < self.config.tenants),
            Assume((dut.arrived < self.config.tenants) & (dut.claimed < self.config.tenants)),
            arrives.eq(dut.arrive & (dut.arrived == tenant)), goes.eq(dut.claim & (dut.claimed == tenant)),
            Assume(~goes | dut.ready.bit_select(tenant, 1)), Assume(~arrives | (count < self.capacity)),
            Assert(dut.ready.bit_select(tenant, 1) == (count != 0)),
            Assert(claims_before | (dut.several.bit_select(tenant, 1) == (left >= SEVERAL))),
        ]
        m.d.sync += [count.eq(count + arrives - goes), claims_before.eq(goes)]
        with m.If(goes):
            m.d.sync += left.eq(count - 1)
        self._keep(m, inside, tenant, count, left, claims_before)
        return m

    def _keep(self, m, inside, tenant, count, left, claims_before):
        """What makes the induction close: both counts differ by what waits, and the claim under way is the last one."""
        arrived, claimed = (inside.word(m, self.inner + name, tenant) for name in ("arrivals", "claims"))
        under_way = inside[self.inner + "was_claim"] & (inside[self.inner + "was_claimed"] == tenant)
        m.d.comb += [
            Assert(((arrived - claimed) & (1 << len(arrived)) - 1) == count),
            Assert(under_way == claims_before),
            Assert(~claims_before | (inside[self.inner + "was_left"] == left + 1)),
            Assert(count <= self.capacity),
        ]
