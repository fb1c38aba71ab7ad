"""Blocks of the analyzer in Amaranth's simulator, fed as fast as they take it, for `bench/analyzer.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.sim import Simulator

from device_link.window import Window
from gateware.analyzer.analyzer import Analyzer
from gateware.analyzer.latency import BINS, LatencyHistogram
from gateware.analyzer.pattern import StreamDetector
from gateware.analyzer.trend import Trend
from gateware.config import DeviceConfig

__all__ = ["classified", "histogram", "predicted", "windows"]


def _simulator(dut: Any) -> Simulator:
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    return simulator


def classified(requests: Sequence[tuple[int, int]], tenants: int) -> list[int]:
    """The detector's answer for each (tenant, sector), a request every second cycle."""
    dut, answers = StreamDetector(DeviceConfig(tenants=tenants)), []
    simulator = _simulator(dut)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.valid, 1)
        for tenant, sector in requests:
            ctx.set(dut.tenant, tenant)
            ctx.set(dut.sector, sector)
            await ctx.tick()
            if ctx.get(dut.done):
                raise RuntimeError("the detector answered early")
            await ctx.tick()
            answers.append(int(ctx.get(dut.kind).value))

    simulator.add_testbench(bench)
    simulator.run()
    return answers


def predicted(series: Sequence[Sequence[int]]) -> list[list[int]]:
    """What the trend predicts after each value of each tenant's series; all have the same length."""
    dut = Trend(DeviceConfig(tenants=max(2, len(series))))
    simulator = _simulator(dut)
    answers: list[list[int]] = [[] for _ in series]

    async def bench(ctx: Any) -> None:
        for values in zip(*series, strict=True):
            for tenant, value in enumerate(values):
                ctx.set(dut.tenant, tenant)
                ctx.set(dut.value, int(value))
                ctx.set(dut.update, 1)
                await ctx.tick()
                ctx.set(dut.update, 0)
                await ctx.tick().until(dut.done)
                answers[tenant].append(ctx.get(dut.predicted))

    simulator.add_testbench(bench)
    simulator.run()
    return answers


def histogram(config: DeviceConfig, latencies: Sequence[int]) -> list[int]:
    """Tenant 1's counters after one packet a port and cycle of these latencies."""
    dut, counts = LatencyHistogram(config), []
    simulator = _simulator(dut)

    async def bench(ctx: Any) -> None:
        for start in range(0, len(latencies), config.ports):
            now = latencies[start:start + config.ports]
            for port, leave in enumerate(dut.leave):
                ctx.set(leave, {"valid": port < len(now), "tenant": 1, "latency": now[port] if port < len(now) else 0})
            await ctx.tick()
        for leave in dut.leave:
            ctx.set(leave.valid, 0)
        await ctx.tick().repeat(6)
        for number in range(BINS):
            ctx.set(dut.bus.address, BINS + number)
            ctx.set(dut.bus.valid, 1)
            (count,) = await ctx.tick().sample(dut.bus.r_data).until(dut.bus.ready)
            counts.append(count)

    simulator.add_testbench(bench)
    simulator.run()
    return counts


def windows(config: DeviceConfig, length: int, packets: Sequence[Sequence[tuple[int, int, int] | None]],
            count: int) -> list[Window]:
    """What the analyzer pushes in `count` windows while (tenant, bytes, latency) or nothing enters and leaves each
    port, a list a cycle, from the first cycle on."""
    dut = Analyzer(config, shortest_window=length, reset_window=length)
    simulator = _simulator(dut)
    found: list[Window] = []

    async def drive(ctx: Any) -> None:
        ctx.set(dut.credit, (1 << config.tenants) - 1)
        ctx.set(dut.telemetry.ready, 1)
        for number, events in enumerate(packets):
            ctx.set(dut.cycle, number)
            for port, event in enumerate(events):
                tenant, size, latency = event or (0, 0, 0)
                for pins, strobe in ((dut.ingress[port], "admit"), (dut.egress[port], "leave")):
                    ctx.set(getattr(pins, strobe), event is not None)
                    ctx.set(pins.header, {"tenant": tenant, "length": size})
                ctx.set(dut.egress[port].latency, latency)
            await ctx.tick()
        for port in range(config.ports):
            ctx.set(dut.ingress[port].admit, 0)
            ctx.set(dut.egress[port].leave, 0)
        number = len(packets)
        while len(found) < count:
            ctx.set(dut.cycle, number)
            await ctx.tick()
            number += 1

    async def push(ctx: Any) -> None:
        words: list[int] = []
        ctx.set(dut.bus.w_mask, 0xF)
        ctx.set(dut.bus.write, 1)
        for address, value in ((0x4000, length), (0x4004, 1)):  # window, control.push
            ctx.set(dut.bus.address, address // 4)
            ctx.set(dut.bus.w_data, value)
            ctx.set(dut.bus.valid, 1)
            await ctx.tick().until(dut.bus.ready)
            ctx.set(dut.bus.valid, 0)
            await ctx.tick()
        async for _, _, valid, word in ctx.tick().sample(dut.telemetry.valid, dut.telemetry.payload):
            if valid:
                words.append(word.data)
                if word.last:
                    found.append(Window.from_words(words))
                    words = []

    simulator.add_testbench(drive)
    simulator.add_testbench(push, background=True)
    simulator.run()
    return found
