"""The simulated device: the generated Verilog in a C++ board, with everything that plugs into it."""
