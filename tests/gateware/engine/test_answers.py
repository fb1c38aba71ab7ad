"""Fabric and engines together: what a commit in mid-traffic does to answers of requests that were admitted before."""

import random

import google_crc32c
import pytest
from amaranth import Cat, Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.engine.array import EngineArray
from gateware.fabric.fabric import Fabric
from gateware.manager.allocation import AllocationSignature
from tests.gateware.fabric.bench import commit, row
from tests.gateware.packets import Packet, Sink, add_source, run_until

pytestmark = pytest.mark.slow

CONFIG = DeviceConfig(ports=2, tenants=2, pages=32, slots=1, slot_bytes=1)
HOST, ENGINE = CONFIG.host_port, CONFIG.engine_port


class Column:
    """A fabric of two ports with engines on one of them. `admitted` are the headers of requests, by arrival."""

    def __init__(self, requests):
        self.fabric, engines = Fabric(CONFIG), EngineArray(CONFIG)
        self.allocation = AllocationSignature(CONFIG).create()
        self.admitted, self.dropped, self.epochs = [], [], []
        m = Module()
        m.submodules.fabric, m.submodules.engines = self.fabric, engines
        wiring.connect(m, self.fabric.outputs[ENGINE], engines.requests)
        wiring.connect(m, engines.responses, self.fabric.inputs[ENGINE])
        wiring.connect(m, engines.feedback, self.fabric.engine)
        for part in (self.fabric, engines):
            for name in self.allocation.signature.members:
                m.d.comb += getattr(part.allocation, name).eq(getattr(self.allocation, name))
        self.simulator = Simulator(m)
        self.simulator.add_clock(1e-8)
        self.simulator.add_process(self._watch)
        add_source(self.simulator, self.fabric.inputs[HOST], requests, CONFIG, after=20)
        self.sink = Sink(self.simulator, self.fabric.outputs[HOST], CONFIG)

    async def _watch(self, ctx):
        events = [self.fabric.ingress[port] for port in (HOST, ENGINE)]
        async for sample in ctx.tick().sample(*(Cat(one.admit, one.drop) for one in events),
                                              *(one.header for one in events)):
            for port, strobes, header in zip((HOST, ENGINE), sample[2:4], sample[4:], strict=True):
                if strobes & 1 and port == HOST:
                    self.admitted.append(int(header.flow_hash))
                    self.epochs.append(int(header.epoch))
                if strobes & 2:
                    self.dropped.append((port, int(header.flow_hash)))


def table(**changes):
    """Tenant 0 keeps all its rights; tenant 1's are `changes`."""
    everything = {"weight": 1000, "pages": 8, "ports": 0b11}
    return [row(CONFIG, **everything), row(CONFIG, **{**everything, **changes})]


@pytest.mark.long
@pytest.mark.parametrize("moment", [60, 200])
@pytest.mark.parametrize("changes", [{"ports": 0b10}, {"ports": 0b00}, {"weight": 0, "ports": 0}], ids=str)
def test_a_table_that_takes_a_tenants_rights_drops_no_answer_to_a_request_that_was_admitted(changes, moment):
    rng = random.Random(moment)
    requests = [Packet(rng.randbytes(40), {"tenant": number % 2, "destination": ENGINE, "flow_hash": number})
                for number in range(60)]
    column = Column(requests)

    async def course(ctx):
        state = await commit(ctx, column.allocation, table())
        await ctx.tick().repeat(moment)
        await commit(ctx, column.allocation, table(**changes), *state)

    column.simulator.add_testbench(course, background=True)
    run_until(column.simulator, lambda: len(column.admitted) + len(column.dropped) == len(requests)
              and len(column.sink.packets) == len(column.admitted), limit=9000)
    assert all(port == HOST for port, _ in column.dropped), "an answer was dropped"
    late = [number for number in column.admitted if number % 2 and column.epochs[column.admitted.index(number)] == 1]
    assert late, "nothing was under way at the commit"
    assert column.dropped, "the table took nothing away"
    answers = {packet.fields["flow_hash"]: packet for packet in column.sink.packets}
    for number, epoch in zip(column.admitted, column.epochs, strict=True):
        crc = google_crc32c.value(requests[number].payload)
        assert answers[number].payload[8:12] == crc.to_bytes(4, "little")
        assert answers[number].fields["epoch"] == epoch, "the answer left under another epoch than its request"
