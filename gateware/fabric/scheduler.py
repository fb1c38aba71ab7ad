"""Scheduler: surplus round robin over the tenants of one output.

Contract: among the tenants in `ready` one is granted (`grant`) at a time, one cycle after it could be chosen. The
caller takes the grant, and then `charge`s it with the `beats` that the packet costs; only then is the next one
chosen. A tenant is served while its credit is positive and pays afterwards, so its debt is at most one packet;
each visit of the round adds its weight, and a tenant that has run dry keeps its debt but no surplus. Weights are
those of the bank that is active when the tenant is visited; weight 0 (it cannot be admitted any more, but has
packets of an earlier table) counts as 1024 until they are gone. A visit takes one cycle; tenants that are not
ready take none. There are no errors.
"""

from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..manager.allocation import AllocationSignature
from .rows import Rows

__all__ = ["CREDIT_PER_BEAT", "DRAIN_WEIGHT", "Scheduler"]

CREDIT_PER_BEAT = 256  # 65536 of weight make a round of 256 beats
DRAIN_WEIGHT = 1024
LARGEST_COST = MAX_PACKET_BEATS * CREDIT_PER_BEAT
LARGEST_SCALE = 16     # weight 1 then pays a largest packet in one visit
CREDIT_LIMIT = 2 * LARGEST_COST


class Scheduler(wiring.Component):
    """Chooses the tenant that one output serves next."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "ready": In(config.tenants),
            "grant": Out(stream.Signature(range(config.tenants))),
            "charge": In(1),
            "beats": In(range(MAX_PACKET_BEATS + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.rows = self.rows = Rows(config, ["weight"])
        wiring.connect(m, wiring.flipped(self.allocation), self.rows.allocation)

        shape = signed((2 * CREDIT_LIMIT).bit_length() + 1)
        m.submodules.credits = credits = memory.Memory(shape=shape, depth=config.tenants, init=[])
        current = Signal(range(config.tenants))
        following = Signal(range(config.tenants))
        wraps = Signal()
        self._rotate(m, current, following, wraps)

        own = credits.read_port(domain="comb")
        other = credits.read_port(domain="comb")
        write = credits.write_port()
        scale, quantum = self._quantum(m, following)
        stays = Signal()
        raised = Signal(shape)
        m.d.comb += [
            own.addr.eq(current),
            other.addr.eq(following),
            stays.eq(self.ready.bit_select(current, 1) & (own.data > 0)),
            raised.eq(Mux(other.data > 0, 0, other.data) + quantum),
            write.addr.eq(current),
            write.data.eq(own.data - self.beats * CREDIT_PER_BEAT),
            self.grant.payload.eq(current),
        ]

        visited, granted = Signal(), Signal()
        with m.FSM():
            # One visit a cycle until somebody has credit.
            with m.State("SEEK"):
                with m.If(stays):
                    m.d.comb += granted.eq(1)
                with m.Elif(self.ready.any()):
                    m.d.comb += [
                        visited.eq(1),
                        granted.eq(raised > 0),
                        write.en.eq(1),
                        write.addr.eq(following),
                        write.data.eq(raised),
                    ]
                    m.d.sync += current.eq(following)
                with m.If(granted):
                    m.next = "GRANT"
            # The grant stands until the output takes it.
            with m.State("GRANT"):
                m.d.comb += self.grant.valid.eq(1)
                with m.If(self.grant.ready):
                    m.next = "CHARGE"
            # The next choice waits for the bill, and sees `ready` without the packet that has started.
            with m.State("CHARGE"):
                m.d.comb += write.en.eq(self.charge)
                with m.If(self.charge):
                    m.next = "SEEK"

        self._adapt(m, scale, quantum, visited, granted, visited & wraps)
        return m

    def _rotate(self, m, current, following, wraps):
        """First ready tenant after `current`, and whether the round begins anew with it."""
        tenants = self._config.tenants
        above = Signal(tenants)
        m.d.comb += above.eq(self.ready & ~((2 << current) - 1)[:tenants])
        for candidates, wrap in ((self.ready, 1), (above, 0)):
            for number in reversed(range(tenants)):
                with m.If(candidates[number]):
                    m.d.comb += [following.eq(number), wraps.eq(wrap)]

    def _quantum(self, m, following):
        """What one visit is worth: weight times a power of two that is the same for everybody."""
        scale = Signal(range(LARGEST_SCALE + 1))
        weight = Signal(16)
        quantum = Signal(range(CREDIT_LIMIT + 1))
        scaled = Signal(16 + LARGEST_SCALE)
        m.d.comb += [
            self.rows.tenants[0].eq(following),
            weight.eq(Mux(self.rows.rows[0].weight == 0, DRAIN_WEIGHT, self.rows.rows[0].weight)),
            scaled.eq(weight << scale),
            quantum.eq(Mux(scaled > CREDIT_LIMIT, CREDIT_LIMIT, scaled)),
        ]
        return scale, quantum

    def _adapt(self, m, scale, quantum, visited, granted, wrapped):
        """Keeps rounds neither so fine that visits bring no packet nor so coarse that others wait long.

        Scaling all weights changes the length of a round, not the shares. Judged once a round: more visits in
        vain than packets: twice as coarse; more than four packets a visit: half. It never grows past the point
        where the heaviest tenant of the round earns a largest packet in each visit.
        """
        vain, packets, visits = (Signal(12, name=name) for name in ("vain", "packets", "visits"))
        largest = Signal.like(quantum)

        def count(counter, event):
            return counter.eq(Mux(wrapped, event, counter + (event & (counter != 4095))))

        m.d.sync += [
            count(vain, visited & ~granted),
            count(packets, granted),
            count(visits, visited),
        ]
        with m.If(visited & (wrapped | (quantum > largest))):
            m.d.sync += largest.eq(quantum)
        with m.If(wrapped):
            with m.If(largest >= CREDIT_LIMIT):
                with m.If(scale != 0):
                    m.d.sync += scale.eq(scale - 1)
            with m.Elif((vain > packets) & (largest < LARGEST_COST)):
                with m.If(scale != LARGEST_SCALE):
                    m.d.sync += scale.eq(scale + 1)
            with m.Elif((packets > (visits << 2)) & (scale != 0)):
                m.d.sync += scale.eq(scale - 1)
