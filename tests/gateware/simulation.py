"""Amaranth's simulator, as nearly every test of a block uses it: one clock, testbenches to their end."""

from amaranth.sim import Simulator

__all__ = ["simulate"]


def simulate(dut, *tests, background=()):
    """Run the testbenches `tests` to their end, beside those of `background`, in device cycles of 10 ns."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    for process in background:
        simulator.add_testbench(process, background=True)
    for process in tests:
        simulator.add_testbench(process)
    simulator.run()
