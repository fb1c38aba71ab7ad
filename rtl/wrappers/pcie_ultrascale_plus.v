// Top level of a card with the UltraScale+ integrated block for PCI Express: a template, to be edited for the board.
//
// `morphnic build --verilog --pcie ultrascale-plus` fills in widths and lanes (words between at signs) and puts the
// device beside it as morphnic_core.v, and morphnic_pcie.tcl, which makes the block with the settings that the device
// wants. Names of its ports are those of PG213. No vendor's tool has been run on any of these.

`default_nettype none

module morphnic_top (
  input  wire refclk_p, refclk_n,            // 100 MHz of the slot
  input  wire perst_n,
  input  wire [@LANES@-1:0] pcie_rx_p, pcie_rx_n,
  output wire [@LANES@-1:0] pcie_tx_p, pcie_tx_n,
  input  wire uart_rx,                       // device link, @BAUD@ baud; tie high where there is none
  output wire uart_tx,
  output wire [2:0] led                      // epoch changed, link active, heartbeat
);

  wire sys_clk, sys_clk_gt;
  IBUFDS_GTE4 #(.REFCLK_HROW_CK_SEL(2'b00)) refclk (
    .I(refclk_p), .IB(refclk_n), .CEB(1'b0), .O(sys_clk_gt), .ODIV2(sys_clk)
  );

  // The device runs on the block's clock. Once the link was reset the device stays in reset until the FPGA is
  // configured again: a reset restores no memories.
  wire user_clk, user_reset;                 // @CLOCK_MHZ@ MHz
  reg started = 1'b0, lost = 1'b0, rst = 1'b1;
  always @(posedge user_clk) begin
    if (~user_reset)           started <= 1'b1;
    if (started & user_reset)  lost    <= 1'b1;
    rst <= user_reset | lost;
  end

  wire [@WIDTH@-1:0] s_axis_rq_tdata;
  wire [@WIDTH@/32-1:0] s_axis_rq_tkeep;
  wire [@RQ_USER@-1:0] s_axis_rq_tuser;
  wire s_axis_rq_tlast, s_axis_rq_tvalid;
  wire [3:0] s_axis_rq_tready;   // the block repeats one bit
  wire [@WIDTH@-1:0] m_axis_rc_tdata;
  wire [@WIDTH@/32-1:0] m_axis_rc_tkeep;
  wire [@RC_USER@-1:0] m_axis_rc_tuser;
  wire m_axis_rc_tlast, m_axis_rc_tvalid;
  wire m_axis_rc_tready;
  wire [@WIDTH@-1:0] m_axis_cq_tdata;
  wire [@WIDTH@/32-1:0] m_axis_cq_tkeep;
  wire [@CQ_USER@-1:0] m_axis_cq_tuser;
  wire m_axis_cq_tlast, m_axis_cq_tvalid;
  wire m_axis_cq_tready;
  wire [@WIDTH@-1:0] s_axis_cc_tdata;
  wire [@WIDTH@/32-1:0] s_axis_cc_tkeep;
  wire [@CC_USER@-1:0] s_axis_cc_tuser;
  wire s_axis_cc_tlast, s_axis_cc_tvalid;
  wire [3:0] s_axis_cc_tready;   // the block repeats one bit
  wire [1:0] pcie_cq_np_req, cfg_max_payload;
  wire [2:0] cfg_max_read_req, cfg_fc_sel;
  wire [15:0] cfg_function_status;
  wire [3:0] cfg_interrupt_msix_enable, cfg_interrupt_msix_mask, cfg_flr_in_process, cfg_flr_done;
  wire [7:0] cfg_fc_ph, cfg_fc_nph;
  wire [11:0] cfg_fc_pd;

  morphnic_core core (
    .clk(user_clk), .rst(rst),
    .rq__tdata(s_axis_rq_tdata), .rq__tkeep(s_axis_rq_tkeep), .rq__tuser(s_axis_rq_tuser),
    .rq__tlast(s_axis_rq_tlast), .rq__tvalid(s_axis_rq_tvalid), .rq__tready(s_axis_rq_tready[0]),
    .rc__tdata(m_axis_rc_tdata), .rc__tkeep(m_axis_rc_tkeep), .rc__tuser(m_axis_rc_tuser),
    .rc__tlast(m_axis_rc_tlast), .rc__tvalid(m_axis_rc_tvalid), .rc__tready(m_axis_rc_tready),
    .cq__tdata(m_axis_cq_tdata), .cq__tkeep(m_axis_cq_tkeep), .cq__tuser(m_axis_cq_tuser),
    .cq__tlast(m_axis_cq_tlast), .cq__tvalid(m_axis_cq_tvalid), .cq__tready(m_axis_cq_tready),
    .cc__tdata(s_axis_cc_tdata), .cc__tkeep(s_axis_cc_tkeep), .cc__tuser(s_axis_cc_tuser),
    .cc__tlast(s_axis_cc_tlast), .cc__tvalid(s_axis_cc_tvalid), .cc__tready(s_axis_cc_tready[0]),
    .pcie_cq_np_req(pcie_cq_np_req),
    .cfg_max_payload(cfg_max_payload), .cfg_max_read_req(cfg_max_read_req), .cfg_function_status(cfg_function_status),
    .cfg_interrupt_msix_enable(cfg_interrupt_msix_enable), .cfg_interrupt_msix_mask(cfg_interrupt_msix_mask),
    .cfg_fc_sel(cfg_fc_sel), .cfg_fc_ph(cfg_fc_ph), .cfg_fc_pd(cfg_fc_pd), .cfg_fc_nph(cfg_fc_nph),
    .cfg_flr_in_process(cfg_flr_in_process), .cfg_flr_done(cfg_flr_done),
    .discontinued(),                         // an uncorrectable error within the block: for a lamp, or an analyzer
    .uart_rx(uart_rx), .uart_tx(uart_tx),
    .heartbeat(led[0]), .link(led[1]), .epoch(led[2])
  );

  morphnic_pcie pcie (
    .sys_clk(sys_clk), .sys_clk_gt(sys_clk_gt), .sys_reset(perst_n), .phy_rdy_out(),
    .pci_exp_rxp(pcie_rx_p), .pci_exp_rxn(pcie_rx_n), .pci_exp_txp(pcie_tx_p), .pci_exp_txn(pcie_tx_n),
    .user_clk(user_clk), .user_reset(user_reset), .user_lnk_up(),
    .s_axis_rq_tdata(s_axis_rq_tdata), .s_axis_rq_tkeep(s_axis_rq_tkeep), .s_axis_rq_tuser(s_axis_rq_tuser),
    .s_axis_rq_tlast(s_axis_rq_tlast), .s_axis_rq_tvalid(s_axis_rq_tvalid), .s_axis_rq_tready(s_axis_rq_tready),
    .m_axis_rc_tdata(m_axis_rc_tdata), .m_axis_rc_tkeep(m_axis_rc_tkeep), .m_axis_rc_tuser(m_axis_rc_tuser),
    .m_axis_rc_tlast(m_axis_rc_tlast), .m_axis_rc_tvalid(m_axis_rc_tvalid), .m_axis_rc_tready(m_axis_rc_tready),
    .m_axis_cq_tdata(m_axis_cq_tdata), .m_axis_cq_tkeep(m_axis_cq_tkeep), .m_axis_cq_tuser(m_axis_cq_tuser),
    .m_axis_cq_tlast(m_axis_cq_tlast), .m_axis_cq_tvalid(m_axis_cq_tvalid), .m_axis_cq_tready(m_axis_cq_tready),
    .s_axis_cc_tdata(s_axis_cc_tdata), .s_axis_cc_tkeep(s_axis_cc_tkeep), .s_axis_cc_tuser(s_axis_cc_tuser),
    .s_axis_cc_tlast(s_axis_cc_tlast), .s_axis_cc_tvalid(s_axis_cc_tvalid), .s_axis_cc_tready(s_axis_cc_tready),
    // What the device uses of configuration, flow control and reset
    .pcie_cq_np_req(pcie_cq_np_req), .pcie_cq_np_req_count(),
    .cfg_max_payload(cfg_max_payload), .cfg_max_read_req(cfg_max_read_req), .cfg_function_status(cfg_function_status),
    .cfg_interrupt_msix_enable(cfg_interrupt_msix_enable), .cfg_interrupt_msix_mask(cfg_interrupt_msix_mask),
    .cfg_fc_sel(cfg_fc_sel), .cfg_fc_ph(cfg_fc_ph), .cfg_fc_pd(cfg_fc_pd), .cfg_fc_nph(cfg_fc_nph),
    .cfg_fc_npd(), .cfg_fc_cplh(), .cfg_fc_cpld(),
    .cfg_flr_in_process(cfg_flr_in_process), .cfg_flr_done(cfg_flr_done),
    // The rest: what is to be given, and what nobody looks at
    .cfg_config_space_enable(1'b1), .cfg_link_training_enable(1'b1), .cfg_power_state_change_ack(1'b1),
    .cfg_power_state_change_interrupt(), .cfg_dsn(64'd0), .cfg_bus_number(),
    .cfg_err_cor_in(1'b0), .cfg_err_uncor_in(1'b0), .cfg_hot_reset_in(1'b0), .cfg_hot_reset_out(),
    .cfg_req_pm_transition_l23_ready(1'b0), .cfg_pm_aspm_l1_entry_reject(1'b0),
    .cfg_pm_aspm_tx_l0s_entry_disable(1'b0),
    .cfg_ds_port_number(8'd0), .cfg_ds_bus_number(8'd0), .cfg_ds_device_number(5'd0),
    .cfg_mgmt_addr(10'd0), .cfg_mgmt_function_number(8'd0), .cfg_mgmt_write(1'b0), .cfg_mgmt_write_data(32'd0),
    .cfg_mgmt_byte_enable(4'd0), .cfg_mgmt_read(1'b0), .cfg_mgmt_read_data(), .cfg_mgmt_read_write_done(),
    .cfg_mgmt_debug_access(1'b0),
    .cfg_msg_transmit(1'b0), .cfg_msg_transmit_type(3'd0), .cfg_msg_transmit_data(32'd0), .cfg_msg_transmit_done(),
    .cfg_msg_received(), .cfg_msg_received_data(), .cfg_msg_received_type(),
    // Interrupts are writes of the device: neither INTx nor the block's own MSI-X
    .cfg_interrupt_int(4'd0), .cfg_interrupt_pending(4'd0), .cfg_interrupt_sent(),
    .cfg_interrupt_msi_sent(), .cfg_interrupt_msi_fail(), .cfg_interrupt_msi_function_number(8'd0),
    .cfg_interrupt_msix_address(64'd0), .cfg_interrupt_msix_data(32'd0), .cfg_interrupt_msix_int(1'b0),
    .cfg_interrupt_msix_vec_pending(2'd0), .cfg_interrupt_msix_vec_pending_status(),
    .cfg_interrupt_msix_vf_enable(), .cfg_interrupt_msix_vf_mask(),
    .cfg_vf_flr_in_process(), .cfg_vf_flr_func_num(8'd0), .cfg_vf_flr_done(1'b0), .cfg_vf_status(),
    .cfg_vf_power_state(), .cfg_vf_tph_requester_enable(), .cfg_vf_tph_st_mode(),
    .pcie_rq_seq_num0(), .pcie_rq_seq_num_vld0(), .pcie_rq_seq_num1(), .pcie_rq_seq_num_vld1(),
    .pcie_rq_tag0(), .pcie_rq_tag1(), .pcie_rq_tag_av(), .pcie_rq_tag_vld0(), .pcie_rq_tag_vld1(),
    .pcie_tfc_nph_av(), .pcie_tfc_npd_av(),
    .cfg_phy_link_down(), .cfg_phy_link_status(), .cfg_negotiated_width(), .cfg_current_speed(),
    .cfg_function_power_state(), .cfg_link_power_state(), .cfg_err_cor_out(), .cfg_err_nonfatal_out(),
    .cfg_err_fatal_out(), .cfg_local_error_valid(), .cfg_local_error_out(), .cfg_ltssm_state(), .cfg_rx_pm_state(),
    .cfg_tx_pm_state(), .cfg_rcb_status(), .cfg_obff_enable(), .cfg_pl_status_change(), .cfg_tph_requester_enable(),
    .cfg_tph_st_mode()
  );

endmodule

`default_nettype wire
