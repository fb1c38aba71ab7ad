"""The host agent: what the tenants of this server need, and what the device gave them."""
