"""Engine scheduler: chooses whose request the engine port of the fabric sends next, by weighted share of engine time.

Contract: `grant` names a tenant of `ready` (it has a request) that `engine.eligible` shows; it comes one cycle after it
could be chosen and stands until it is taken. `engine.charged` takes `cost` from the credit of a tenant; who has credit
takes turns with the others who have, a request at a time. When no eligible tenant with a request has credit, each of
them gets its weight's worth: so tenants of different slots, which do not compete, do not take turns or credit from each
other either. A tenant without requests keeps what it has, which is at most that. After a grant a tenant waits for its
charge, `CHARGED_WITHIN` cycles at most, while others go on. Weights are those of the active bank; weight 0 (an earlier
table's requests) counts as `DRAIN_WEIGHT`. There are no errors.
"""

from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..manager.allocation import AllocationSignature
from .events import COST_WIDTH, EngineFeedbackSignature
from .rows import Rows

__all__ = ["CHARGED_WITHIN", "DRAIN_WEIGHT", "EngineScheduler"]

CREDIT_PER_CYCLE = 32  # weight 65535 is then worth 2,048 cycles
DRAIN_WEIGHT = 1024
LARGEST_SCALE = 16
CREDIT_LIMIT = CREDIT_PER_CYCLE << COST_WIDTH
CHARGED_WITHIN = 64
MANY_GRANTS = 16       # between two hand-outs of credit: then smaller ones do


class EngineScheduler(wiring.Component):
    """Credits of all tenants, and the choice."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "ready": In(config.tenants),
            "engine": In(EngineFeedbackSignature(config)),
            "grant": Out(stream.Signature(range(config.tenants))),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        positive, unbilled = Signal(tenants), Signal(tenants)
        served, candidates = Signal(tenants), Signal(tenants)
        granted = Signal()
        m.d.comb += [
            served.eq(self.ready & self.engine.eligible),
            candidates.eq(served & positive & ~unbilled),
        ]
        self._await_bills(m, unbilled, granted)
        # Credit is not handed out while somebody's charge is on its way: he may have some left.
        scale, pending = self._hand_out(m, served, positive | unbilled, granted)
        # Nor is anybody chosen while it is handed out: those who get it first would always be served first.
        self._choose(m, Mux(pending.any(), 0, candidates), granted)
        self._keep_credits(m, positive, scale, pending)
        return m

    def _choose(self, m, candidates, granted):
        """Tenants with credit in turn."""
        tenants = self._config.tenants
        above, chosen = Signal(tenants), Signal(range(tenants))
        m.d.comb += above.eq(candidates & ~((2 << self.grant.payload) - 1)[:tenants])
        for mask in (candidates, above):
            for tenant in reversed(range(tenants)):
                with m.If(mask[tenant]):
                    m.d.comb += chosen.eq(tenant)
        # The cycle after a grant was taken shows in `ready` and `unbilled`: one passes between two grants.
        with m.If(self.grant.valid):
            m.d.sync += self.grant.valid.eq(~self.grant.ready)
            m.d.comb += granted.eq(self.grant.ready)
        with m.Elif(candidates.any()):
            m.d.sync += [self.grant.valid.eq(1), self.grant.payload.eq(chosen)]

    def _await_bills(self, m, unbilled, granted):
        """A tenant is unbilled from its grant to its charge; one that does not come is given up at the second tick."""
        old, clock = Signal.like(unbilled), Signal(range(CHARGED_WITHIN // 2))
        tick = Signal()
        m.d.sync += clock.eq(clock + 1)
        m.d.comb += tick.eq(clock == CHARGED_WITHIN // 2 - 1)
        for tenant in range(len(unbilled)):
            with m.If(granted & (self.grant.payload == tenant)):
                m.d.sync += [unbilled[tenant].eq(1), old[tenant].eq(0)]
            with m.Elif((self.engine.charged & (self.engine.tenant == tenant)) | (tick & old[tenant])):
                m.d.sync += unbilled[tenant].eq(0)
            with m.Elif(tick):
                m.d.sync += old[tenant].eq(unbilled[tenant])

    def _hand_out(self, m, served, solvent, granted):
        """Who is to get credit, and the power of two that all weights are multiplied with.

        The scale changes the length of a round, not the shares: it grows when credit was handed out without bringing
        a grant, and shrinks when it brought many, for then one tenant runs far ahead of the others.
        """
        pending, scale = Signal.like(served), Signal(range(LARGEST_SCALE + 1))
        grants = Signal(range(MANY_GRANTS + 1))
        with m.If(granted & (grants != MANY_GRANTS)):
            m.d.sync += grants.eq(grants + 1)
        with m.If(pending.any()):
            with m.If(~self.engine.charged):
                m.d.sync += pending.eq(pending & (pending - 1))
        with m.Elif(served.any() & ~(served & solvent).any() & ~self.grant.valid):
            m.d.sync += [pending.eq(served), grants.eq(0)]
            with m.If((grants == 0) & (scale != LARGEST_SCALE)):
                m.d.sync += scale.eq(scale + 1)
            with m.Elif((grants == MANY_GRANTS) & (scale != 0)):
                m.d.sync += scale.eq(scale - 1)
        return scale, pending

    def _keep_credits(self, m, positive, scale, pending):
        """One change a cycle: a charge, else the next tenant that gets credit."""
        config = self._config
        m.submodules.rows = rows = Rows(config, ["weight"])
        wiring.connect(m, wiring.flipped(self.allocation), rows.allocation)
        shape = signed(CREDIT_LIMIT.bit_length() + 5)  # debts are of as many requests as are on their way
        m.submodules.credits = credits = memory.Memory(shape=shape, depth=config.tenants, init=[])
        read, write = credits.read_port(domain="comb"), credits.write_port()
        tenant = Signal(range(config.tenants))
        for index in reversed(range(config.tenants)):
            with m.If(pending[index]):
                m.d.comb += tenant.eq(index)
        with m.If(self.engine.charged):
            m.d.comb += tenant.eq(self.engine.tenant)

        weight, raised, changed = Signal(16), Signal(shape), Signal(shape)
        scaled = Signal(16 + LARGEST_SCALE)
        m.d.comb += [
            rows.tenants[0].eq(tenant),
            weight.eq(Mux(rows.rows[0].weight == 0, DRAIN_WEIGHT, rows.rows[0].weight)),
            read.addr.eq(tenant),
            write.addr.eq(tenant),
            scaled.eq(weight << scale),
            raised.eq(read.data + Mux(scaled > CREDIT_LIMIT, CREDIT_LIMIT, scaled)),
            changed.eq(Mux(raised > CREDIT_LIMIT, CREDIT_LIMIT, raised)),
            write.data.eq(changed),
            write.en.eq(self.engine.charged | pending.any()),
        ]
        with m.If(self.engine.charged):
            m.d.comb += changed.eq(read.data - self.engine.cost * CREDIT_PER_CYCLE)
        with m.If(write.en):
            for index in range(config.tenants):
                with m.If(tenant == index):
                    m.d.sync += positive[index].eq(changed > 0)
