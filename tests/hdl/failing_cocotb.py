"""cocotb: a test that fails, to see that the harness says so."""

import cocotb
from cocotb.triggers import Timer


@cocotb.test()
async def fails_on_purpose(dut):
    await Timer(1, "ns")
    raise AssertionError("on purpose")
