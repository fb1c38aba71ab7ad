"""Packets in flight, with every port busy at once."""

import random

import pytest

from gateware.config import DeviceConfig
from gateware.manager.inflight import InFlight
from tests.gateware.simulation import simulate


@pytest.mark.parametrize("seed", range(2))
def test_counts_follow_events_of_all_ports(seed):
    config = DeviceConfig(ports=4, pages=32)
    dut = InFlight(config)
    rng = random.Random(seed)

    async def test(ctx):
        live, epoch, cut_off = [], 254, 0
        history = [(0, 0)] * 3
        for cycle in range(600):
            if rng.random() < 0.02 and not any(old % 4 == (epoch + 1) % 4 for old in live):
                epoch = (epoch + 1) % 256
            if cycle > 200:   # everybody leaves now and then
                crowd = 4 if cycle // 50 % 2 else 1
            else:
                crowd = 2
            for port in range(config.ports):
                admit, leave = rng.random() < 0.5, live and rng.randrange(4) < crowd
                cut = rng.random() < 0.3
                ctx.set(dut.ingress[port].admit, admit)
                ctx.set(dut.ingress[port].header.epoch, epoch if admit else rng.randrange(256))
                ctx.set(dut.egress[port].leave, bool(leave))
                ctx.set(dut.egress[port].cut, cut)
                left = live.pop(rng.randrange(len(live))) if leave else rng.randrange(256)
                ctx.set(dut.egress[port].header.epoch, left)
                cut_off += bool(leave and cut)
                if admit:
                    live.append(epoch)
            ctx.set(dut.epoch, epoch)
            await ctx.tick()
            history.append((list(live), cut_off))
            if cycle > 2:   # two cycles after an event it is counted, and `draining` says so in the third
                others = sum(old != epoch for old in history[-3][0])
                assert ctx.get(dut.draining) == (others > 0), cycle
                assert ctx.get(dut.cut_off) == history[-2][1]
        for port in range(config.ports):
            ctx.set(dut.ingress[port].admit, 0)
            ctx.set(dut.egress[port].leave, 0)
        await ctx.tick().repeat(4)
        assert ctx.get(dut.packets) == sum(old != epoch for old in live)

    simulate(dut, test)


def test_number_of_draining_packets_saturates():
    config = DeviceConfig(ports=8, pages=1024)
    dut = InFlight(config)

    async def test(ctx):
        for port in dut.ingress:
            ctx.set(port.admit, 1)
        await ctx.tick().repeat(65536 // 8)
        for port in dut.ingress:
            ctx.set(port.admit, 0)
        ctx.set(dut.epoch, 1)
        await ctx.tick().repeat(4)
        assert ctx.get(dut.packets) == 0xFFFF
        ctx.set(dut.egress[0].leave, 1)
        await ctx.tick().repeat(2)
        ctx.set(dut.egress[0].leave, 0)
        await ctx.tick().repeat(4)
        assert ctx.get(dut.packets) == 0xFFFE

    simulate(dut, test)
