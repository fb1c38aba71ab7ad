"""cocotb: one test that fails and one that passes, to see that the harness tells them apart."""

import cocotb
import cocotb.utils
from cocotb.triggers import Timer

from tests.hdl.bench import Bench


def build(width):
    from gateware.stream.skid import SkidBuffer

    return SkidBuffer(width)


# Not called BENCH: no regression runs it.
FAILING = Bench(__name__, build, model={"width": (16,)})
MISSING = Bench("tests.hdl.nowhere_cocotb", build, model={"width": (16,)})


@cocotb.test()
async def fails_on_purpose(dut):
    await Timer(1, "ns")
    raise AssertionError("on purpose")


@cocotb.test()
async def passes(dut):
    await Timer(1, "ns")


@cocotb.test()
async def fails_unless_it_runs_alone(dut):
    await Timer(2, "ns")
    # Simulated time goes on from one test to the next.
    assert cocotb.utils.get_sim_time("ns") < 3
