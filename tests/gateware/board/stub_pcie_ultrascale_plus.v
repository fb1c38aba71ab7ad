// A stub for lint, and nothing else: names, directions and widths of the ports of the UltraScale+ integrated block
// (PG213, with the configuration interfaces that Vivado enables by default and external MSI-X), and of the buffer of its
// reference clock. It does nothing. Verilator is told the widths: WIDTH, LANES, RQ_USER, ...

`default_nettype none
// verilator lint_off UNDRIVEN
// verilator lint_off DECLFILENAME
// verilator lint_off UNUSEDPARAM

module morphnic_pcie (
  output wire [`LANES-1:0] pci_exp_txn, pci_exp_txp,
  input  wire [`LANES-1:0] pci_exp_rxn, pci_exp_rxp,
  input  wire [`WIDTH-1:0] s_axis_rq_tdata, s_axis_cc_tdata,
  output wire [`WIDTH-1:0] m_axis_rc_tdata, m_axis_cq_tdata,
  input  wire [`WIDTH/32-1:0] s_axis_rq_tkeep, s_axis_cc_tkeep,
  output wire [`WIDTH/32-1:0] m_axis_rc_tkeep, m_axis_cq_tkeep,
  input  wire [`RQ_USER-1:0] s_axis_rq_tuser,
  input  wire [`CC_USER-1:0] s_axis_cc_tuser,
  output wire [`RC_USER-1:0] m_axis_rc_tuser,
  output wire [`CQ_USER-1:0] m_axis_cq_tuser,
  input  wire s_axis_rq_tlast, s_axis_rq_tvalid, s_axis_cc_tlast, s_axis_cc_tvalid, m_axis_rc_tready,
               m_axis_cq_tready, cfg_mgmt_write, cfg_mgmt_read, cfg_mgmt_debug_access, cfg_msg_transmit,
               cfg_power_state_change_ack, cfg_err_cor_in, cfg_err_uncor_in, cfg_vf_flr_done,
               cfg_link_training_enable, cfg_pm_aspm_l1_entry_reject, cfg_pm_aspm_tx_l0s_entry_disable,
               cfg_interrupt_msix_int, cfg_config_space_enable, cfg_req_pm_transition_l23_ready,
               cfg_hot_reset_in, sys_clk, sys_clk_gt, sys_reset,
  output wire user_clk, user_reset, user_lnk_up, m_axis_rc_tlast, m_axis_rc_tvalid, m_axis_cq_tlast,
               m_axis_cq_tvalid, pcie_rq_seq_num_vld0, pcie_rq_seq_num_vld1, pcie_rq_tag_vld0, pcie_rq_tag_vld1,
               cfg_phy_link_down, cfg_mgmt_read_write_done, cfg_err_cor_out, cfg_err_nonfatal_out,
               cfg_err_fatal_out, cfg_local_error_valid, cfg_pl_status_change, cfg_msg_received,
               cfg_msg_transmit_done, cfg_power_state_change_interrupt, cfg_interrupt_sent,
               cfg_interrupt_msi_sent, cfg_interrupt_msi_fail, cfg_interrupt_msix_vec_pending_status,
               cfg_hot_reset_out, phy_rdy_out,
  input  wire [2-1:0] pcie_cq_np_req, cfg_interrupt_msix_vec_pending,
  output wire [2-1:0] cfg_phy_link_status, cfg_current_speed, cfg_max_payload, cfg_link_power_state,
               cfg_rx_pm_state, cfg_tx_pm_state, cfg_obff_enable,
  input  wire [3-1:0] cfg_msg_transmit_type, cfg_fc_sel,
  output wire [3-1:0] cfg_negotiated_width, cfg_max_read_req,
  input  wire [4-1:0] cfg_mgmt_byte_enable, cfg_flr_done, cfg_interrupt_int, cfg_interrupt_pending,
  output wire [4-1:0] s_axis_rq_tready, s_axis_cc_tready, pcie_rq_tag_av, pcie_tfc_nph_av, pcie_tfc_npd_av,
               cfg_rcb_status, cfg_tph_requester_enable, cfg_flr_in_process, cfg_interrupt_msix_enable,
               cfg_interrupt_msix_mask,
  input  wire [5-1:0] cfg_ds_device_number,
  output wire [5-1:0] cfg_local_error_out, cfg_msg_received_type,
  output wire [6-1:0] pcie_rq_seq_num0, pcie_rq_seq_num1, pcie_cq_np_req_count, cfg_ltssm_state,
  input  wire [8-1:0] cfg_mgmt_function_number, cfg_vf_flr_func_num, cfg_interrupt_msi_function_number,
               cfg_ds_port_number, cfg_ds_bus_number,
  output wire [8-1:0] pcie_rq_tag0, pcie_rq_tag1, cfg_msg_received_data, cfg_fc_ph, cfg_fc_nph, cfg_fc_cplh,
               cfg_bus_number,
  input  wire [10-1:0] cfg_mgmt_addr,
  output wire [12-1:0] cfg_function_power_state, cfg_tph_st_mode, cfg_fc_pd, cfg_fc_npd, cfg_fc_cpld,
  output wire [16-1:0] cfg_function_status,
  input  wire [32-1:0] cfg_mgmt_write_data, cfg_msg_transmit_data, cfg_interrupt_msix_data,
  output wire [32-1:0] cfg_mgmt_read_data,
  input  wire [64-1:0] cfg_dsn, cfg_interrupt_msix_address,
  output wire [252-1:0] cfg_vf_tph_requester_enable, cfg_vf_flr_in_process, cfg_interrupt_msix_vf_enable,
               cfg_interrupt_msix_vf_mask,
  output wire [504-1:0] cfg_vf_status,
  output wire [756-1:0] cfg_vf_power_state, cfg_vf_tph_st_mode
);
endmodule

module IBUFDS_GTE4 #(parameter [1:0] REFCLK_HROW_CK_SEL = 2'b00) (
  input  wire I, IB, CEB,
  output wire O, ODIV2
);
endmodule

// verilator lint_on UNDRIVEN
`default_nettype wire
