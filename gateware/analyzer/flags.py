"""Flags of one tenant and window: how it accesses, whether it waits, and which resource limits it.

Contract: every input is of the same tenant and window of `cycles` cycles, and `flags` follows four cycles later.
Comparisons are exact (no rounding). How many of a tenant's packets were on their way on average is what was sampled in
the fabric or, since they were posted, by Little's law the sum of latencies over the window. A tenant waits for
admission when it was stalled in more than 1/8 of the window; or was without credit in more than 1/8 of it and had a
packet on its way on average (one that has nothing to send misses no credit); or when more than 1/8 of its packets were
dropped (and some were not: a tenant without a grant waits for nothing). It is backlogged when it waits, or had two
packets on their way on average.

- engine: the slots that it may use were busy in more than 7/8 of the window, for it in more than 1/16.
- bandwidth: what left by its busiest output is more than 7/8 of its shaper's rate; or it is backlogged, and in at
  least half of the window it sent by an input or an output that was full.
- pages: it waits, and neither of the two explains it: its pages do not hold what it needs in flight. (An output whose
  sink is slow looks so too: it is never full.)
- host: a pressure of more than 4/5, as the agent wrote it.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..manager.allocation import FULL_RATE
from .aggregation import Rule
from .depth import Samples
from .window import PARTS

__all__ = ["HOST_PRESSED", "FlagBits", "Flags"]

#: A pressure above this is the host's limit: 4/5 of 255.
HOST_PRESSED = 204
_RATE_BITS = FULL_RATE.bit_length() - 1


class FlagBits(data.Struct):
    """As the word `flags` of the snapshot has them, from bit 0."""

    backpressured: 1
    is_sequential: 1
    missing_slo: 1
    engine_bound: 1
    bandwidth_bound: 1
    pages_bound: 1
    host_bound: 1
    is_strided: 1


class Flags(wiring.Component):
    """Comparisons of products with small constants; the two wide products have a register of their own."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "cycles": In(32),
            **{name: In(Rule.SATURATE.width if name == "latency_sum" else 32) for name in self.totals},
            "sampled": In(Samples),
            "eligible": In(config.slots),
            "busy_cycles": In(32).array(config.slots),
            "rate": In(range(FULL_RATE + 1)),
            "cpu": In(8),
            "memory": In(8),
            "flags": Out(FlagBits),
        })

    @property
    def totals(self) -> tuple[str, ...]:
        """Names of the inputs that are totals of the window."""
        return ("backpressure_cycles", "requests", "sequential", "strided", "packets_in", "packets_out", "drops",
                "slo_misses", "engine_cycles", "latency_sum", "beats_out", "contended")

    def elaborate(self, platform):
        m = Module()
        waits, stalled, backlogged = Signal(), Signal(), Signal()
        sampled = self.sampled
        m.d.sync += [
            stalled.eq(((self.backpressure_cycles << 3) > self.cycles)
                       | (((sampled.held << 3) > sampled.count)
                          & ((sampled.depth >= sampled.count) | (self.latency_sum >= self.cycles)))),
            waits.eq(stalled | ((self.packets_in != 0) & (self.drops * 7 > self.packets_in))),
            backlogged.eq(waits | (sampled.depth >= (sampled.count << 1)) | (self.latency_sum >= (self.cycles << 1))),
        ]
        engine, bandwidth = self._engine(m), self._bandwidth(m, backlogged)
        m.d.sync += [
            self.flags.backpressured.eq(stalled),
            self.flags.is_sequential.eq((self.sequential << 1) > self.requests),
            self.flags.is_strided.eq((self.strided << 1) > self.requests),
            self.flags.missing_slo.eq((self.slo_misses << 4) > self.packets_out),
            self.flags.engine_bound.eq(engine),
            self.flags.bandwidth_bound.eq(bandwidth),
            self.flags.pages_bound.eq(waits & ~engine & ~bandwidth),
            self.flags.host_bound.eq((self.cpu > HOST_PRESSED) | (self.memory > HOST_PRESSED)),
        ]
        return m

    def _engine(self, m):
        busy, available = Signal(32 + self._config.slots.bit_length()), Signal(32 + self._config.slots.bit_length())
        m.d.sync += [
            busy.eq(sum((Mux(bit, cycles, 0) for bit, cycles in zip(self.eligible, self.busy_cycles, strict=True)),
                        Const(0))),
            available.eq(self.cycles * sum(self.eligible, Const(0))),
        ]
        return ((busy << 3) > available * 7) & ((self.engine_cycles << 4) > available)

    def _bandwidth(self, m, backlogged):
        allowed = Signal(32 + _RATE_BITS + 1)
        m.d.sync += allowed.eq(self.cycles * self.rate)
        shaped = (self.rate < FULL_RATE) & ((self.beats_out << (_RATE_BITS + 3)) > allowed * 7)
        return shaped | (backlogged & (self.contended >= PARTS // 2))
