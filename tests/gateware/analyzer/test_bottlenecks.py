"""Bottleneck flags on the real fabric: one resource is made narrow, and the flags must name that one.

The analyzer listens to a fabric as in the device; a sink on their port and their busy signals play the engines.
"""

import random

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gateware.analyzer.analyzer import Analyzer
from gateware.analyzer.figures import AnalyzerFigures, FigureId
from gateware.config import DeviceConfig
from gateware.csr.bus import CsrSignature
from gateware.engine.slot import SlotBusy
from gateware.fabric.events import EgressEventSignature, IngressEventSignature
from gateware.fabric.fabric import Fabric
from gateware.manager.allocation import AllocationSignature
from gateware.stream.packet import PacketSignature
from tests.gateware.analyzer.harness import address
from tests.gateware.csr.initiator import access
from tests.gateware.fabric.bench import Bench, Packet, row

pytestmark = pytest.mark.slow

CONFIG = DeviceConfig(ports=3, tenants=3, pages=32, slots=2)
WINDOW = 1056
BEATS = 4
SLOW_SINK = 3  # an engine takes a beat in so many cycles
ENGINE, BANDWIDTH, PAGES, HOST = 1 << 3, 1 << 4, 1 << 5, 1 << 6
LIMITS = ENGINE | BANDWIDTH | PAGES | HOST


class Watched(wiring.Component):
    """A fabric and the analyzer that listens to it."""

    def __init__(self):
        self.analyzer = Analyzer(CONFIG, shortest_window=WINDOW, reset_window=WINDOW)
        super().__init__({
            "inputs": In(PacketSignature(CONFIG)).array(CONFIG.ports),
            "outputs": Out(PacketSignature(CONFIG)).array(CONFIG.ports),
            "allocation": In(AllocationSignature(CONFIG)),
            "cycle": In(64),
            "stall_timeout": In(32),
            "credit": Out(CONFIG.tenants),
            "engine_busy": In(SlotBusy).array(CONFIG.slots),
            "ingress": Out(IngressEventSignature(CONFIG)).array(CONFIG.ports),
            "egress": Out(EgressEventSignature(CONFIG)).array(CONFIG.ports),
            "bus": In(CsrSignature(16)),
            "figures": Out(AnalyzerFigures(CONFIG)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.fabric = fabric = Fabric(CONFIG)
        m.submodules.analyzer = analyzer = self.analyzer
        for name in fabric.signature.members:
            if name == "allocation":
                continue
            if isinstance(getattr(self, name), (list, tuple)):
                for mine, its in zip(getattr(self, name), getattr(fabric, name), strict=True):
                    wiring.connect(m, wiring.flipped(mine), its)
            elif fabric.signature.members[name].flow == In:
                m.d.comb += getattr(fabric, name).eq(getattr(self, name))
            else:
                m.d.comb += getattr(self, name).eq(getattr(fabric, name))
        for listener in (fabric, analyzer):
            for name in self.allocation.signature.members:
                m.d.comb += getattr(listener.allocation, name).eq(getattr(self.allocation, name))
        for side in ("ingress", "egress"):
            for source, listening in zip(getattr(fabric, side), getattr(analyzer, side), strict=True):
                for name in source.signature.members:
                    m.d.comb += getattr(listening, name).eq(getattr(source, name))
        for busy, listening in zip(self.engine_busy, analyzer.engine_busy, strict=True):
            m.d.comb += listening.eq(busy)
        m.d.comb += [analyzer.cycle.eq(self.cycle), analyzer.credit.eq(fabric.credit)]
        wiring.connect(m, wiring.flipped(self.bus), analyzer.bus)
        wiring.connect(m, analyzer.figures, wiring.flipped(self.figures))
        return m


def limits(rows, sources, *, busy=(), slow=(), host=None, seed=0):
    """The limits flagged for each tenant in the second window.

    sources: (port, tenant, destination, share of the cycles in which it sends). busy: the tenant in each slot, all the
    time. slow: ports whose sink takes a beat in every third cycle. host: (tenant, pressures).
    """
    rng = random.Random(seed)
    dut = Watched()
    bench = Bench(dut, CONFIG)
    flags, windows = {}, []
    for port, tenant, destination, share in sources:
        packets = [Packet(tenant, destination, bytes(8 * BEATS))] * (3 * WINDOW // BEATS)
        bench.source(port, packets, lambda share=share: rng.random() >= share)
    clock = [0] * CONFIG.ports

    def busy_sink(port):
        clock[port] += 1
        return clock[port] // 2 % SLOW_SINK != 0

    for port in range(CONFIG.ports):
        bench.sink(port, (lambda port=port: busy_sink(port)) if port in slow else None)

    async def listen(ctx):
        figures = dut.figures
        async for _, _, valid, end, tenant, figure, value in ctx.tick().sample(
                figures.valid, figures.end, figures.tenant, figures.figure, figures.value):
            if valid and figure == FigureId.FLAGS:
                flags[tenant] = value & LIMITS
            if end:
                windows.append(dict(flags))

    async def script(ctx):
        for slot, tenant in enumerate(busy):
            ctx.set(dut.engine_busy[slot], {"busy": 1, "tenant": tenant})
        if host:
            await access(ctx, dut.bus, address("objective", host[0], "host"), host[1])
        while len(windows) < 2:
            await ctx.tick()

    bench.simulator.add_testbench(listen, background=True)
    bench.run(rows, script, cycles=0)
    return [windows[1][tenant] for tenant in range(CONFIG.tenants)]


def table(*changes):
    """One row a tenant; all ports, a third of the pages."""
    return [row(CONFIG, **{"weight": 256, "ports": 0b111, "pages": 10, **change}) for change in changes]


def test_tenants_that_share_a_full_output_are_limited_by_bandwidth():
    """Tenant 2 uses the same output a little, and gets what it asks for."""
    sources = [(0, 0, 1, 1.0), (1, 1, 1, 1.0), (2, 2, 1, 0.02)]
    assert limits(table({}, {}, {}), sources) == [BANDWIDTH, BANDWIDTH, 0]


def test_tenant_at_the_rate_of_its_shaper_is_limited_by_bandwidth():
    sources = [(0, 0, 1, 0.3), (1, 1, 1, 1.0)]
    assert limits(table({}, {"rate": 1 << 14, "burst": 256}, {}), sources) == [0, BANDWIDTH, 0]


def test_tenant_below_the_rate_of_its_shaper_is_not_limited():
    sources = [(1, 1, 1, 0.15)]
    assert limits(table({}, {"rate": 1 << 14, "burst": 256}, {}), sources) == [0, 0, 0]


def test_tenant_with_too_few_pages_for_what_is_in_flight_is_limited_by_pages():
    """One page and no pool: nothing is admitted before the packet before has left, and the output idles meanwhile."""
    rows = table({"pages": 16}, {"pages": 1}, {"pages": 15})
    assert limits(rows, [(0, 0, 2, 0.5), (1, 1, 1, 1.0)]) == [0, PAGES, 0]


def test_tenants_of_busy_engines_are_limited_by_them():
    """The engines' sink is slow, so that pages run out behind it: that is the engines' fault."""
    sources = [(0, 0, 2, 1.0), (1, 1, 2, 1.0)]
    assert limits(table({}, {}, {}), sources, busy=(0, 1), slow=(2,)) == [ENGINE, ENGINE, 0]


def test_tenant_behind_another_tenants_own_engine_is_not_limited_by_it():
    """Slot 0 belongs to tenant 1 and is busy; tenant 0 may use the other one, which idles."""
    rows = table({}, {"slots": 0b01}, {})
    assert limits(rows, [(0, 0, 1, 0.3), (1, 1, 2, 1.0)], busy=(1,), slow=(2,)) == [0, ENGINE, 0]


def test_idle_tenants_are_limited_by_nothing_but_their_host():
    assert limits(table({}, {}, {}), [], host=(2, 230)) == [0, 0, HOST]
