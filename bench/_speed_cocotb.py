"""cocotb's side of the speed bench: steps the device under the same traffic and writes how long it took."""

import json
import os
import time
from pathlib import Path

import cocotb
from _speed_traffic import WARM_UP, Source, beat, header
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly


@cocotb.test()
async def step_the_device(dut):
    """Drive and sample the host port in every cycle, as a test bench does."""
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    for name in ("mmio__valid", "link_rx__valid", "uart_pins", "net_rx__0__valid", "net_rx__1__valid"):
        getattr(dut, name).value = 0
    for name in ("telemetry__ready", "link_tx__ready", "host_tx__header__ready", "host_tx__data__ready",
                 "net_tx__0__header__ready", "net_tx__0__data__ready", "net_tx__1__header__ready",
                 "net_tx__1__data__ready", "uart_rx"):
        getattr(dut, name).value = 1
    dut.rst.value = 1
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    cycles, received = int(os.environ["CYCLES"]), 0
    source, started = Source(), 0.0
    dut.host_rx__header__payload.value = header()
    dut.host_rx__data__valid.value = 1
    for cycle in range(cycles + WARM_UP):
        if cycle == WARM_UP:
            started = time.perf_counter()
        dut.host_rx__header__valid.value = int(source.header_offered)
        dut.host_rx__data__payload.value = beat(source.index)
        await ReadOnly()  # what the coming edge sees
        if source.header_offered and int(dut.host_rx__header__ready.value):
            source.header_taken()
        if int(dut.host_rx__data__ready.value):
            source.beat_taken()
        if cycle >= WARM_UP:
            received += int(dut.host_tx__data__valid.value)
        await FallingEdge(dut.clk)
    seconds = time.perf_counter() - started
    Path(os.environ["RESULT"]).write_text(json.dumps({"seconds": seconds, "received": received}))
