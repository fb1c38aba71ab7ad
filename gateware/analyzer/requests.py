"""Request classifier: queues the requests of all ports for the one stream detector, which a tenant's streams share.

Contract: one request a port and cycle, `bank` with it, is queued, or passed over and counted in `passed_over` when
`QUEUE` requests of its port are waiting already. The detector takes one every second cycle, from the ports in turn.
So up to half a request a cycle over all ports, in bursts of `QUEUE` a port, none is passed over. `sequential` and
`strided` are counted in the slice of the window that the request belongs to, at most `settle(config)` cycles later.

A queue, and not a detector a port: 64 bytes a tenant are enough for one table only, and a stream is found whichever
port its requests come by.
"""

from amaranth import *
from amaranth.lib import data, fifo
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .pattern import Access, StreamDetector
from .slices import Figure
from .taps import Tap

__all__ = ["QUEUE", "PortRequest", "RequestTap", "settle"]

QUEUE = 4


def settle(config: DeviceConfig) -> int:
    """Cycles from a request to its place in the slice when all queues are full."""
    return 2 * QUEUE * (config.ports - 1) + 6


class PortRequest(data.Struct):
    """A request arrived at one port."""

    valid: 1
    tenant: 6
    sector: 36


class RequestTap(Tap):
    """All ports but the engines' (what arrives there are responses)."""

    def __init__(self, config: DeviceConfig, events: int):
        super().__init__(config, {
            "requests": In(PortRequest).array(config.ports - 1),
            "passed_over": Out(32),
        }, dict.fromkeys(("sequential", "strided"), Figure()), events)

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.detector = detector = StreamDetector(config)
        entry = data.StructLayout({"bank": 1, "tenant": detector.tenant.shape(), "sector": 36})
        queues = []
        for port, request in enumerate(self.requests):
            m.submodules[f"queue_{port}"] = queue = fifo.SyncFIFOBuffered(width=entry.size, depth=QUEUE)
            put = Signal(entry, name=f"put_{port}")
            m.d.comb += [
                put.bank.eq(self.bank),
                put.tenant.eq(request.tenant),
                put.sector.eq(request.sector),
                queue.w_data.eq(put),
                queue.w_en.eq(request.valid & (request.tenant < config.tenants)),
            ]
            queues.append(queue)
        m.d.sync += self.passed_over.eq(
            self.passed_over + sum((queue.w_en & ~queue.w_rdy for queue in queues), Const(0)))

        turn = Signal(range(len(queues)))
        chosen = Signal(entry)
        with m.Switch(turn):
            for last in range(len(queues)):
                with m.Case(last):
                    self._take_next(m, detector, queues, last, turn, chosen)
        m.d.comb += [detector.tenant.eq(chosen.tenant), detector.sector.eq(chosen.sector)]
        self._count(m, detector, chosen)
        return m

    def _take_next(self, m, detector, queues, last, turn, chosen):
        """The first port after `last` that has a request; ports without one are passed by."""
        found = Const(0)
        for offset in range(1, len(queues) + 1):
            port = (last + offset) % len(queues)
            queue = queues[port]
            with m.If(~found & queue.r_rdy):
                m.d.comb += [
                    chosen.eq(queue.r_data),
                    detector.valid.eq(1),
                    queue.r_en.eq(detector.ready),
                ]
                with m.If(detector.ready):
                    m.d.sync += turn.eq(port)
            found = found | queue.r_rdy

    def _count(self, m, detector, chosen):
        """The detector answers two cycles later and has one request at a time: what it needs is held."""
        part = self._slice(m, "classified", *self.figures)
        bank, tenant = Signal(), Signal.like(chosen.tenant)
        with m.If(detector.valid & detector.ready):
            m.d.sync += [bank.eq(chosen.bank), tenant.eq(chosen.tenant)]
        m.d.comb += [
            part.valid.eq(detector.done),
            part.bank.eq(bank),
            part.tenant.eq(tenant),
            part.amount_sequential.eq(detector.kind == Access.SEQUENTIAL),
            part.amount_strided.eq(detector.kind == Access.STRIDED),
        ]
