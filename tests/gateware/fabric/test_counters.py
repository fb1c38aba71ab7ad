"""Port counters against a plain count of the events, on all ports at once."""

import random

import pytest

from gateware.config import DeviceConfig
from gateware.csr import regmap
from gateware.fabric.counters import PortCounters
from tests.gateware.simulation import simulate

CONFIG = DeviceConfig(ports=3, tenants=4, pages=32)


async def read(ctx, bus, address):
    ctx.set(bus.address, address)
    ctx.set(bus.valid, 1)
    value, error = await ctx.tick().sample(bus.r_data, bus.error).until(bus.ready)
    ctx.set(bus.valid, 0)
    return value, error


@pytest.mark.parametrize("seed", range(2))
def test_counters_equal_the_events_of_their_port(seed):
    rng = random.Random(seed)
    dut = PortCounters(CONFIG)
    expected = {(port, name): 0 for port in range(CONFIG.ports) for name in ("admitted", "dropped", "left", "cut")}

    async def bench(ctx):
        for _ in range(200):
            for port in range(CONFIG.ports):
                for name, signal in (("admitted", dut.ingress[port].admit), ("dropped", dut.ingress[port].drop),
                                     ("left", dut.egress[port].leave), ("cut", dut.egress[port].cut)):
                    high = rng.random() < 0.1 * (port + 1)
                    ctx.set(signal, high)
                    expected[port, name] += high
            await ctx.tick()
        for port in range(CONFIG.ports):
            for signal in (dut.ingress[port].admit, dut.ingress[port].drop, dut.egress[port].leave,
                           dut.egress[port].cut):
                ctx.set(signal, 0)
        block = regmap.node("port")
        for (port, name), count in expected.items():
            address = (block.address + port * block.stride + block.register(name).offset) // 4
            assert await read(ctx, dut.bus, address) == (count, 0), f"{name} of port {port}"
        _, error = await read(ctx, dut.bus, (block.address + CONFIG.ports * block.stride) // 4)
        assert error, "a port beyond the configuration answered"

    simulate(dut, bench)
