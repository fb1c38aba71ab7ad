"""The device, in Amaranth. Nothing is imported here: `gateware.config` must load without HDL tools."""
