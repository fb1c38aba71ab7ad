# Vivado: clock and pins of morphnic_top with the integrated block. Pins are the card's: fill them in.
create_clock -name refclk -period 10.000 [get_ports refclk_p]
# The block brings the constraints of its own clocks; user_clk, @CLOCK_MHZ@ MHz, is derived by the tool.

# The slot's reset, the serial line and the lamps have no timing relation to the clock; inputs pass synchronisers.
set_false_path -from [get_ports {perst_n uart_rx}]
set_false_path -to   [get_ports {uart_tx led[*]}]

# set_property PACKAGE_PIN ?? [get_ports {refclk_p refclk_n}]
# set_property -dict {PACKAGE_PIN ?? IOSTANDARD LVCMOS18 PULLUP true} [get_ports perst_n]
# set_property -dict {PACKAGE_PIN ?? IOSTANDARD LVCMOS18} [get_ports {uart_rx uart_tx led[*]}]
