"""What is not Amaranth: the register map, wrappers and checkers (an importable data package)."""
