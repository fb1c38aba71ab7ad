"""Response writer: a record's bytes at every beat width, under back-pressure."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.config import DeviceConfig
from gateware.engine.response import ResponseWriter
from gateware.engine.shard import ShardId, Status
from gateware.stream.packet import FlowClass
from tests.gateware.packets import Pace, Sink, run_until


@pytest.mark.parametrize("data_width", [32, 64, 128, 256])
@pytest.mark.parametrize("stall", [0, 0.5])
def test_record_becomes_a_packet_of_sixteen_bytes(data_width, stall):
    config = DeviceConfig(data_width=data_width)
    dut, rng = ResponseWriter(config), random.Random(data_width)
    records = [{"tenant": rng.randrange(16), "destination": rng.randrange(4), "flow_hash": rng.getrandbits(16),
                "request_word": rng.getrandbits(64), "result": rng.getrandbits(32),
                "status": rng.choice(list(Status)), "shard": rng.choice(list(ShardId))} for _ in range(30)]
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)

    async def source(ctx):
        for record in records:
            ctx.set(dut.records.payload, record)
            ctx.set(dut.records.valid, 1)
            await ctx.tick().until(dut.records.ready)
            ctx.set(dut.records.valid, 0)

    simulator.add_testbench(source, background=True)
    sink = Sink(simulator, dut.response, config, Pace(stall, 1))
    run_until(simulator, lambda: len(sink.packets) == len(records))
    for record, packet in zip(records, sink.packets, strict=True):
        assert packet.payload == (record["request_word"].to_bytes(8, "little") + record["result"].to_bytes(4, "little")
                                  + bytes([record["status"].value, record["shard"].value, 0, 0]))
        for name in ("tenant", "destination", "flow_hash"):
            assert packet.fields[name] == record[name]
        assert (packet.fields["length"], packet.fields["flow_class"]) == (16, FlowClass.RESPONSE.value)
