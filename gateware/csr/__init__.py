"""The control and status register bus, and register blocks elaborated from the SystemRDL map."""
