"""Stream detector: is a request sequential to one of its tenant's recent streams?

Contract: one request a cycle; `sequential` answers for it in the next cycle. For each tenant the last sectors
of up to four streams are kept, the most recent first. A request is sequential when its sector lies 1 to 256
beyond that of a stream (a request is at most 128 KiB; its own length is not in the request word); the most
recent such stream is continued. Else it begins a new one, in place of the stream that was continued longest
ago. State: 4 x 37 bits a tenant.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig

__all__ = ["REACH", "STREAMS", "StreamDetector"]

STREAMS = 4
REACH = 256


class Stream(data.Struct):
    """Where one stream was last."""

    used: 1
    sector: 36


class StreamDetector(wiring.Component):
    """The tables of one port. A stream arrives through one port, so that ports need not share tables."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "valid": In(1),
            "tenant": In(range(config.tenants)),
            "sector": In(36),
            "sequential": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        event, tenant, sector = Signal(), Signal.like(self.tenant), Signal(36)
        m.d.sync += event.eq(self.valid)
        with m.If(self.valid):
            m.d.sync += [tenant.eq(self.tenant), sector.eq(self.sector)]

        # One memory a place, most recent stream first: what is at a place moves one down unless it is behind
        # the stream that was continued.
        before, writes = [], []
        for place in range(STREAMS):
            m.submodules[f"place_{place}"] = store = memory.Memory(
                shape=Stream, depth=self._config.tenants, init=[])
            write = store.write_port()
            read = store.read_port(transparent_for=(write,))
            m.d.comb += [
                read.addr.eq(self.tenant),
                read.en.eq(self.valid),
                write.addr.eq(tenant),
            ]
            before.append(read.data)
            writes.append(write)

        found = Const(0)  # a more recent place matched
        for place, write in enumerate(writes):
            distance, hit = Signal(37, name=f"distance_{place}"), Signal(name=f"hit_{place}")
            moves = Signal(name=f"moves_{place}")
            m.d.comb += [
                distance.eq(sector - before[place].sector),
                hit.eq(before[place].used & (distance >= 1) & (distance <= REACH)),
                moves.eq(event & ~found),
                write.en.eq(moves),
            ]
            if place == 0:
                m.d.comb += [write.data.used.eq(1), write.data.sector.eq(sector)]
            else:
                m.d.comb += write.data.eq(before[place - 1])
            found = found | hit
        m.d.comb += self.sequential.eq(event & found)
        return m
