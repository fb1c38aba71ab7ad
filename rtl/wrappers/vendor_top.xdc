# Vivado: clocks and pins of morphnic_top. Pins are the board's: fill them in.
create_clock -name clk_in -period @INPUT_NS@ [get_ports clk_in]
# The MMCM's output, @CLOCK_MHZ@ MHz, is derived by the tool.

# The serial line and the lamps have no timing relation to the clock; inputs pass synchronisers.
set_false_path -from [get_ports {uart_rx}]
set_false_path -to   [get_ports {uart_tx led[*]}]

# set_property -dict {PACKAGE_PIN ?? IOSTANDARD LVCMOS33} [get_ports clk_in]
# set_property -dict {PACKAGE_PIN ?? IOSTANDARD LVCMOS33} [get_ports uart_rx]
# set_property -dict {PACKAGE_PIN ?? IOSTANDARD LVCMOS33} [get_ports uart_tx]
# set_property -dict {PACKAGE_PIN ?? IOSTANDARD LVCMOS33} [get_ports {led[0]}]
# set_property -dict {PACKAGE_PIN ?? IOSTANDARD LVCMOS33} [get_ports {led[1]}]
# set_property -dict {PACKAGE_PIN ?? IOSTANDARD LVCMOS33} [get_ports {led[2]}]
