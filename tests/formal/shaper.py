"""Contract of a shaper on its ports: a tenant never starts more than rate * cycles + burst beats, in any interval.

The table is written once, with any rate below full and any burst up to `LARGEST_BURST`; then the tenant starts packets
of any size whenever its `ok` is high. A reference bucket, filled every cycle and never above the burst, must never be
overdrawn: that is the same claim for every interval at once.
"""

from amaranth import *

from gateware.config import MAX_PACKET_BEATS
from gateware.manager.allocation import AllocationRow, reset_row
from tests.formal.prover import AnyConst, AnySeq, Assert, Assume

FRACTION = 16
LARGEST_BURST = 1024  # of the proof, so that a few packets empty the bucket
LEAST_RATE = 64       # what rate 0 counts as
SETTLED = 6           # cycles after which the new table is in force in every bucket (of two tenants)


class ShaperContract(Elaboratable):
    """`dut` has the ports of `Shaper(config)`; `tenant` is the one that is watched."""

    def __init__(self, dut, config, tenant):
        self.dut, self.config, self.tenant = dut, config, tenant

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = self.dut
        rate, burst = Signal(FRACTION), Signal(range(LARGEST_BURST + 1))
        m.d.comb += [rate.eq(AnyConst(FRACTION)), burst.eq(AnyConst(len(burst))), Assume(burst <= LARGEST_BURST)]
        now = Signal(range(SETTLED + 1))
        with m.If(now < SETTLED):
            m.d.sync += now.eq(now + 1)
        self._write_table(m, now, rate, burst)
        start = self._packets(m, now)
        self._bucket(m, rate, burst, start)
        return m

    def _write_table(self, m, now, rate, burst):
        """Row after row into bank 1, which then becomes the active one."""
        bus, tenants = self.dut.allocation, self.config.tenants
        with m.If(now < tenants):
            m.d.comb += [bus.write.eq(1), bus.bank.eq(1), bus.tenant.eq(now),
                         bus.row.eq(AllocationRow.const(reset_row(1, self.config))),
                         bus.row.rate.eq(rate), bus.row.burst.eq(burst)]
        m.d.comb += bus.active_bank.eq(now > tenants)

    def _packets(self, m, now):
        """The watched tenant starts a packet when it may; the others are charged at will."""
        dut = self.dut
        start, tenant, beats = Signal(), Signal.like(dut.tenant), Signal.like(dut.beats)
        m.d.comb += [
            start.eq(AnySeq(1)), tenant.eq(AnySeq(len(tenant))), beats.eq(AnySeq(len(beats))),
            Assume(~start | (now == SETTLED)), Assume(tenant < self.config.tenants),
            Assume((beats > 0) & (beats <= MAX_PACKET_BEATS)),
            Assume(~start | dut.ok.bit_select(tenant, 1)),
            dut.charge.eq(start), dut.tenant.eq(tenant), dut.beats.eq(beats),
        ]
        return Mux(start & (tenant == self.tenant), beats, 0)

    def _bucket(self, m, rate, burst, start):
        """The reference, in 1/65536 beat."""
        tenants = self.config.tenants
        each_cycle = Mux(rate == 0, LEAST_RATE, rate)
        least = (MAX_PACKET_BEATS << FRACTION) + each_cycle * tenants
        depth = Signal(32)
        m.d.comb += depth.eq(Mux((burst << FRACTION) < least, least, burst << FRACTION))
        spent = Signal(signed(40))  # below the brim; the bucket is full after reset
        after = Signal(signed(40))
        m.d.comb += after.eq(spent + (start << FRACTION) - each_cycle)
        m.d.sync += spent.eq(Mux(after < 0, 0, after))
        m.d.comb += Assert(spent + (start << FRACTION) <= depth)
