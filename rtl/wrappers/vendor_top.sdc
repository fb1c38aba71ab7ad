# Quartus, Diamond, Radiant: clocks of morphnic_top. Pins belong into the tool's own assignments.
create_clock -name clk_in -period @INPUT_NS@ [get_ports {clk_in}]
# Quartus only: the PLL's output, @CLOCK_MHZ@ MHz.
derive_pll_clocks
derive_clock_uncertainty

# The serial line and the lamps have no timing relation to the clock; inputs pass synchronisers.
set_false_path -from [get_ports {uart_rx}]
set_false_path -to   [get_ports {uart_tx led[*]}]
