"""`board_top`: the Verilog module between a device and the C++ board, made for the speed of the simulation.

Verilator evaluates all logic that depends on an input pin every time inputs change. The reset pin reaches every
register, and the register bus nearly everything else, so:

- `rst` is tied low: the model starts with the registers' initial values, which are their reset values;
- the register bus, the byte streams of the link and slow pins pass a register stage (an access takes two cycles more;
  a byte of the link takes two);
- the telemetry sink is always ready.

The packet ports are connected straight: what is measured on them is the device.
"""

from __future__ import annotations

import re

from morphnic.errors import BuildError

TOP = "board_top"
#: Where a waveform of `board_top` has the device: Verilator puts a scope of its own around it all.
WAVE_SCOPE = ("top", TOP, "dut")
_SLOW_PINS = ("uart_rx", "uart_pins", "boot_nonce", "uid")
_BUS = """
  reg bus_valid = 0, bus_write = 0, bus_done = 0, bus_error = 0;
  reg [15:0] bus_address = 0;
  reg [31:0] bus_w_data = 0, bus_r_data = 0;
  reg [3:0] bus_w_mask = 0;
  wire dut_ready, dut_error;
  wire [31:0] dut_r_data;
  assign mmio__ready = bus_done;
  assign mmio__error = bus_error;
  assign mmio__r_data = bus_r_data;
  always @(posedge clk) begin
    bus_done <= 0;
    if (bus_valid & dut_ready) begin
      bus_valid <= 0;
      bus_done <= 1;
      bus_error <= dut_error;
      bus_r_data <= dut_r_data;
    end else if (mmio__valid & ~bus_done & ~bus_valid) begin
      bus_valid <= 1;
      bus_write <= mmio__write;
      bus_address <= mmio__address;
      bus_w_data <= mmio__w_data;
      bus_w_mask <= mmio__w_mask;
    end
    if (~mmio__valid) bus_valid <= 0;  // given up by the board: the device never answered
  end
"""
_LINK = """
  reg rx_full = 0, tx_full = 0;
  reg [7:0] rx_byte = 0, tx_byte = 0;
  wire dut_rx_ready, dut_tx_valid;
  wire [7:0] dut_tx_payload;
  assign link_rx__ready = ~rx_full;
  assign link_tx__valid = tx_full;
  assign link_tx__payload = tx_byte;
  always @(posedge clk) begin
    if (rx_full & dut_rx_ready) rx_full <= 0;
    if (~rx_full & link_rx__valid) begin
      rx_full <= 1;
      rx_byte <= link_rx__payload;
    end
    if (tx_full & link_tx__ready) tx_full <= 0;
    if (~tx_full & dut_tx_valid) begin
      tx_full <= 1;
      tx_byte <= dut_tx_payload;
    end
  end
"""
_CONNECTED = {
    "mmio__valid": "bus_valid", "mmio__write": "bus_write", "mmio__address": "bus_address",
    "mmio__w_data": "bus_w_data", "mmio__w_mask": "bus_w_mask", "mmio__ready": "dut_ready",
    "mmio__error": "dut_error", "mmio__r_data": "dut_r_data", "link_rx__valid": "rx_full",
    "link_rx__payload": "rx_byte", "link_rx__ready": "dut_rx_ready", "link_tx__valid": "dut_tx_valid",
    "link_tx__payload": "dut_tx_payload", "link_tx__ready": "~tx_full", "telemetry__ready": "1'b1", "rst": "1'b0",
}


def wrap(verilog: str, top: str = "top") -> str:
    """`verilog` with the module `board_top` around `top`."""
    found = re.search(rf"^module {top}\((.*?)^endmodule", verilog, re.DOTALL | re.MULTILINE)
    if found is None:
        raise BuildError(f"the Verilog has no module {top}")
    ports = re.findall(r"^  (input|output) (\[\d+:\d+\] )?([A-Za-z_]\w*);", found.group(1), re.MULTILINE)
    widths = {name: width for _, width, name in ports}
    slow = [name for name in _SLOW_PINS if name in widths]
    connections = {name: name for name in widths} | {name: f"{name}_q" for name in slow} | _CONNECTED
    outer = [f"{direction} {width}{name}" for direction, width, name in ports if name != "rst"]
    lines = [f"module {TOP}({', '.join(outer)});", _BUS, _LINK]
    for name in slow:
        # Idle level of the serial line, until the first edge.
        lines.append(f"  reg {widths[name]}{name}_q = {int(name == 'uart_rx')};")
        lines.append(f"  always @(posedge clk) {name}_q <= {name};")
    wiring = ", ".join(f".{name}({connections[name]})" for name in widths)
    return verilog + "\n" + "\n".join([*lines, f"  {top} dut({wiring});", "endmodule"]) + "\n"
