"""The register map as gateware uses it: the compiled map of `rtl.registers`, and addresses in words.

Imports no HDL. `node`, `nodes` and `map_hash` are those of `rtl.registers.registermap`.
"""

from collections.abc import Sequence

from rtl.registers.registermap import (
    SPACE_BYTES,
    Block,
    Field,
    Register,
    RegisterMapError,
    map_hash,
    node,
    nodes,
)

__all__ = [
    "WORD_ADDRESS_WIDTH", "Block", "Field", "Register", "RegisterMapError", "map_hash", "node", "nodes",
    "word_ranges",
]

#: Width of an address on the CSR bus, in words.
WORD_ADDRESS_WIDTH = (SPACE_BYTES // 4 - 1).bit_length()


def word_ranges(names: Sequence[str]) -> tuple[range, ...]:
    """Word addresses that the named blocks cover, one range a block, padding included."""
    blocks = [node(name) for name in names]
    return tuple(range(block.address // 4, (block.address + block.size) // 4) for block in blocks)
