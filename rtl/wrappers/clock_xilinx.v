// The device's clock on a Xilinx 7-series part: @INPUT_MHZ@ MHz x @MULTIPLY@ / @DIVIDE@ = @CLOCK_MHZ@ MHz.

`default_nettype none

module morphnic_clock (
  input  wire clk_in,
  output wire clk,
  output wire locked
);

  wire feedback, made;
  MMCME2_BASE #(
    .CLKIN1_PERIOD(@INPUT_NS@), .CLKFBOUT_MULT_F(@MULTIPLY@), .DIVCLK_DIVIDE(1), .CLKOUT0_DIVIDE_F(@DIVIDE@)
  ) mmcm (
    .CLKIN1(clk_in), .CLKFBIN(feedback), .CLKFBOUT(feedback), .CLKOUT0(made), .LOCKED(locked),
    .PWRDWN(1'b0), .RST(1'b0)
  );
  BUFG buffer (.I(made), .O(clk));

endmodule

`default_nettype wire
