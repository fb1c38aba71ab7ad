# Vivado: the UltraScale+ integrated block for PCI Express (PG213) as morphnic_top wants it. Source it in a project of the
# card's part. Never run here: compare with the Customize IP dialog. There, too: the block's location, and function level reset.
create_ip -name pcie4_uscale_plus -vendor xilinx.com -library ip -module_name morphnic_pcie
set_property -dict [list \
  CONFIG.mode_selection {Advanced} \
  CONFIG.PL_LINK_CAP_MAX_LINK_SPEED {8.0_GT/s} \
  CONFIG.PL_LINK_CAP_MAX_LINK_WIDTH {X@LANES@} \
  CONFIG.axisten_if_width {@WIDTH@_bit} \
  CONFIG.axisten_freq {@CLOCK_MHZ@} \
  CONFIG.axisten_if_enable_client_tag {true} \
  CONFIG.extended_tag_field {true} \
  CONFIG.pf0_dev_cap_max_payload {256_bytes} \
  CONFIG.vendor_id {1AF4} \
  CONFIG.PF0_DEVICE_ID {10F4} \
  CONFIG.PF0_Use_Class_Code_Lookup_Assistant {false} \
  CONFIG.PF0_CLASS_CODE {020000} \
  CONFIG.PF0_INTERRUPT_PIN {NONE} \
  CONFIG.pf0_bar0_64bit {true} \
  CONFIG.pf0_bar0_scale {Kilobytes} \
  CONFIG.pf0_bar0_size {256} \
  CONFIG.pf0_msi_enabled {false} \
  CONFIG.pf0_msix_enabled {true} \
  CONFIG.MSI_X_OPTIONS {MSI-X_External} \
  CONFIG.PF0_MSIX_CAP_TABLE_SIZE {@MSIX_SIZE@} \
  CONFIG.PF0_MSIX_CAP_TABLE_BIR {BAR_1:0} \
  CONFIG.PF0_MSIX_CAP_TABLE_OFFSET {@MSIX_TABLE@} \
  CONFIG.PF0_MSIX_CAP_PBA_BIR {BAR_1:0} \
  CONFIG.PF0_MSIX_CAP_PBA_OFFSET {@MSIX_PBA@} \
@STRADDLE@] [get_ips morphnic_pcie]
