"""cocotb: one test that fails and one that passes, to see that the harness tells them apart."""

import cocotb
from cocotb.triggers import Timer


@cocotb.test()
async def fails_on_purpose(dut):
    await Timer(1, "ns")
    raise AssertionError("on purpose")


@cocotb.test()
async def passes(dut):
    await Timer(1, "ns")
