"""How a link reaches the register bus: UART, framing, and the executor of operation lists."""
