"""Boards: the device behind the pins of a board, and the way from there to a bitstream on it."""
