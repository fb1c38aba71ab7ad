// Top level of a device for a vendor's tool: a template, to be edited for the board.
//
// `morphnic build --verilog` fills in the clocks (words between at signs) and puts the device beside it as
// morphnic_core.v. `morphnic_clock` is the one module that differs between vendors: clock_xilinx.v has it for 7-series
// parts; for others generate a PLL with the vendor's tool and give it these ports. Pins are in the constraint files.

`default_nettype none

module morphnic_top (
  input  wire       clk_in,     // @INPUT_MHZ@ MHz
  input  wire       uart_rx,    // device link, @BAUD@ baud
  output wire       uart_tx,
  output wire [2:0] led         // epoch changed, link active, heartbeat
);

  wire clk;                     // @CLOCK_MHZ@ MHz
  wire locked;
  morphnic_clock clock (.clk_in(clk_in), .clk(clk), .locked(locked));

  // Once the clock was lost the device stays in reset until the FPGA is configured again: a reset restores no memories.
  (* ASYNC_REG = "TRUE" *) reg [1:0] seen = 2'b00;
  reg started = 1'b0, lost = 1'b0;
  always @(posedge clk_in) begin
    seen <= {seen[0], locked};
    if (seen[1])            started <= 1'b1;
    if (started & ~seen[1]) lost    <= 1'b1;
  end

  // Reset is asserted at once and released with the clock.
  wire unready = lost | ~locked;
  (* ASYNC_REG = "TRUE" *) reg [1:0] held = 2'b11;
  always @(posedge clk or posedge unready)
    if (unready) held <= 2'b11;
    else         held <= {held[0], 1'b0};

  morphnic_core core (
    .clk(clk), .rst(held[1]),
    .uart_rx(uart_rx), .uart_tx(uart_tx),
    .heartbeat(led[0]), .link(led[1]), .epoch(led[2])
  );

endmodule

`default_nettype wire
