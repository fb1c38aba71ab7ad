"""Contract of the gate of a DMA engine: what leaves lies in a region that its tenant is granted at that moment.

The engine is free: it sends any request, at any time, and may ask and finish as it likes. The memory table is one of
`REGIONS` regions a tenant that changes at will; it is followed for one tenant, which is any. A request that begins to
be offered was, in the cycle before, within a region of the tenant whose access was granted last, with the right to do
what the request does and of the generation that the access named; and the table was not being changed for this tenant.
"""

from amaranth import *

from gateware.pcie.protection import Access, GrantStatus, Region
from gateware.pcie.tlp import RequestKind, byte_count, first_byte
from tests.formal.prover import AnyConst, AnySeq, Assert, internals

REGIONS = 2  # of the proof


class GateContract(Elaboratable):
    """`dut` has the ports of `Gate(width, REGIONS)`. Without `invariants`, only the claim on its ports is made."""

    def __init__(self, dut, invariants=True):
        self.dut, self.invariants = dut, invariants

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        fragment, inner = internals(dut)
        m.submodules.dut = fragment
        tenant = Signal(6)
        m.d.comb += tenant.eq(AnyConst(6))
        for port in (dut.access.valid, Value.cast(dut.access.payload), dut.grant.ready, dut.finish, dut.requests.valid,
                     Value.cast(dut.requests.payload), dut.passed.ready, dut.enable, dut.table.changed,
                     dut.table.changed_tenant):
            m.d.comb += port.eq(AnySeq(len(port)))
        regions = self._table(m, tenant)
        owner, open_ = self._owner(m)
        self._claim(m, tenant, regions, owner, open_)
        if self.invariants:
            self._invariants(m, tenant, regions, inner)
        return m

    def _table(self, m, tenant):
        """Regions of the tenant that is followed, changed at will; what others have is any."""
        table = self.dut.table
        regions = [Signal(Region, name=f"region{index}") for index in range(REGIONS)]
        after = [Signal(Region, name=f"after{index}") for index in range(REGIONS)]
        mine = (table.row >> 3) == tenant
        m.d.sync += table.region.as_value().eq(AnySeq(Region.as_shape().size))
        for index, (region, following) in enumerate(zip(regions, after, strict=True)):
            m.d.comb += following.eq(region)
            with m.If(table.changed & (table.changed_tenant == tenant)):
                m.d.comb += following.as_value().eq(AnySeq(Region.as_shape().size))
            m.d.sync += region.eq(following)
            with m.If(mine & (table.row[:3] == index)):
                m.d.sync += table.region.eq(following)
        return regions

    def _owner(self, m):
        """The access that was granted last, and whether it has not been finished; from the ports alone."""
        dut = self.dut
        asked, owner, open_ = Signal(Access), Signal(Access, name="owner"), Signal(name="owner_open")
        with m.If(dut.access.valid & dut.access.ready):
            m.d.sync += asked.eq(dut.access.payload)
        with m.If(dut.finish):
            m.d.sync += open_.eq(0)
        with m.If(dut.grant.valid & dut.grant.ready & (dut.grant.payload.status == GrantStatus.GRANTED)):
            m.d.sync += [owner.eq(asked), open_.eq(1)]
        self._asked, self._owner_access, self._open = asked, owner, open_
        return owner, open_

    def _claim(self, m, tenant, regions, owner, open_):
        dut = self.dut
        header = dut.requests.payload.header
        start, end = Signal(64), Signal(65)
        allowed, mine, came = Signal(), Signal(), Signal()
        m.d.comb += [start.eq((header.address << 2) + first_byte(header)), end.eq(start + byte_count(header))]
        within = [granted(region, owner, start, end) for region in regions]
        right = Mux(owner.write, header.kind == RequestKind.WRITE, header.kind == RequestKind.READ)
        changing = dut.table.changed & (dut.table.changed_tenant == tenant)
        m.d.sync += [
            allowed.eq(Cat(within).any() & right & open_ & ~changing & dut.enable),
            mine.eq(owner.tenant == tenant),
            came.eq(dut.requests.valid & dut.requests.ready),
        ]
        begins = came & dut.passed.valid & dut.passed.payload.first
        m.d.comb += Assert(~begins | ~mine | allowed)

    def _invariants(self, m, tenant, regions, inner):
        """What a window means; and that the gate and the contract speak of the same access."""
        following, window = inner["following_access"], inner["window_access"]
        state = inner["fsm_state"]
        status = GrantStatus(inner["grant__payload"][:3])
        # The same access, as the ports tell it and as the gate remembers it.
        m.d.comb += [
            Assert((state == 0) | (self._asked.as_value() == Value.cast(following))),
            Assert(~self._open | (self._owner_access.as_value() == Value.cast(window))),
            Assert(self._open == inner["window_opened"]),
        ]
        for access, low, high, holds in (
                (window, "window_low", "window_high", inner["window_opened"] & ~inner["window_void"]),
                (following, "following_low", "following_high",
                 (state >= 2) & (status == GrantStatus.GRANTED) & ~inner["following_void"])):
            access = Access(access)
            within = Cat(granted(region, access, inner[low], inner[high]) for region in regions).any()
            m.d.comb += Assert(~holds | (access.tenant != tenant) | within)


def granted(region, access, start, end):
    """The bytes from `start` on, below `end`, lie in `region`, which the access may use."""
    return (Mux(access.write, region.write, region.read) & (region.generation == access.generation)
            & (start >= region.bus) & (end <= region.bus + region.size))
