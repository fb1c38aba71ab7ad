"""cocotb: the skid buffer passes everything on, in order, under random pauses on both sides."""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

COUNT = int(os.environ.get("COUNT", "500"))


async def start(dut):
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    dut.rst.value = 1
    dut.i__valid.value = dut.i__payload.value = dut.o__ready.value = 0
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test()
async def everything_passes_in_order(dut):
    await start(dut)
    rng = random.Random(cocotb.RANDOM_SEED)
    sent = [rng.getrandbits(16) for _ in range(COUNT)]
    waiting, received, offered = list(sent), [], False
    for _ in range(20 * COUNT):
        # Inputs change while the clock is low; handshakes are looked at just before it rises.
        if not offered and waiting and rng.random() < 0.6:
            offered = True
            dut.i__payload.value = waiting[0]
        dut.i__valid.value = int(offered)
        dut.o__ready.value = int(rng.random() < 0.5)
        await cocotb.triggers.ReadOnly()
        taken = offered and int(dut.i__ready.value)
        if int(dut.o__valid.value) and int(dut.o__ready.value):
            received.append(dut.o__payload.value.to_unsigned())
        await RisingEdge(dut.clk)
        if taken:
            waiting.pop(0)
            offered = False
        await FallingEdge(dut.clk)
        if len(received) == COUNT:
            break
    assert received == sent


@cocotb.test()
async def one_transfer_a_cycle(dut):
    await start(dut)
    dut.o__ready.value = 1
    dut.i__valid.value = 1
    moved = 0
    for cycle in range(100):
        dut.i__payload.value = cycle
        await cocotb.triggers.ReadOnly()
        moved += int(dut.o__valid.value)
        assert int(dut.i__ready.value) == 1
        await FallingEdge(dut.clk)
    assert moved == 99
