"""How software reaches a device: transports, framing, discovery, typed register access."""
