"""Objectives and host figures: what software tells the analyzer about each tenant.

Contract: the bus block `objective[t]`, two cycles an access, bytes enabled one by one; a tenant that does not
exist is answered with an error. `slo[i]` is the latency objective of `slo_tenant[i]` one cycle after it was
asked with `slo_ask[i]`; `cpu` and `memory` are those of `host_tenant`, one cycle later.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature

__all__ = ["Objectives"]


class Objectives(wiring.Component):
    """Two memories with one row a tenant."""

    def __init__(self, config: DeviceConfig, lookups: int):
        if lookups < 1:
            raise ValueError(f"lookups must be at least 1, not {lookups!r}")
        self._config = config
        super().__init__({
            "bus": In(CsrSignature(16)),
            "slo_ask": In(1).array(lookups),
            "slo_tenant": In(6).array(lookups),
            "slo": Out(32).array(lookups),
            "host_tenant": In(range(config.tenants)),
            "cpu": Out(8),
            "memory": Out(8),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        m.submodules.slo = slo = memory.Memory(shape=32, depth=tenants, init=[])
        m.submodules.host = host = memory.Memory(shape=16, depth=tenants, init=[])

        # Row t has two words: the objective, and the host's figures.
        bus = self.bus
        second_word, tenant = bus.address[0], bus.address[1:7]
        asked, exists, begin = Signal(), Signal(), Signal()
        m.d.sync += asked.eq(begin)
        m.d.comb += [
            exists.eq(tenant < tenants),
            begin.eq(bus.valid & ~asked),
            bus.ready.eq(bus.valid & asked),
            bus.error.eq(~exists),
        ]
        for store, lanes, mine in ((slo, 4, ~second_word), (host, 2, second_word)):
            write, shown = store.write_port(granularity=8), store.read_port()
            m.d.comb += [
                write.addr.eq(tenant),
                write.data.eq(bus.w_data),
                write.en.eq(Mux(begin & bus.write & exists & mine, bus.w_mask[:lanes], 0)),
                shown.addr.eq(tenant),
                shown.en.eq(begin),
            ]
            with m.If(mine):
                m.d.comb += bus.r_data.eq(shown.data)

        for ask, asking, answer in zip(self.slo_ask, self.slo_tenant, self.slo, strict=True):
            port = slo.read_port()
            m.d.comb += [port.addr.eq(asking), port.en.eq(ask), answer.eq(port.data)]
        port = host.read_port()
        m.d.comb += [
            port.addr.eq(self.host_tenant),
            Cat(self.cpu, self.memory).eq(port.data),
        ]
        return m
