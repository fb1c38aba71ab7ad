"""CRC-32C (Castagnoli) as a combinational step over any number of bytes.

Contract: `crc32c_step(state, data)` is the register after the bytes of `data`, the byte in the least
significant bits first. It is purely combinational: one level of XOR trees, no carried state, no error. A checksum
starts from `CRC32C_INIT` and is the register XOR `CRC32C_FINAL`, sent little-endian; the register over a message
followed by its own little-endian checksum is `CRC32C_RESIDUE`.
"""

from functools import cache, reduce
from operator import xor

from amaranth import *

__all__ = ["CRC32C_FINAL", "CRC32C_INIT", "CRC32C_RESIDUE", "crc32c_step"]

CRC32C_INIT = 0xFFFF_FFFF
CRC32C_FINAL = 0xFFFF_FFFF
CRC32C_RESIDUE = 0xB798_B438

_POLYNOMIAL_REFLECTED = 0x82F6_3B78


def _shift(state: int, bits: int) -> int:
    """`state` after `bits` zero bits, in the reflected form in which the least significant bit goes first."""
    for _ in range(bits):
        state = state >> 1 ^ (_POLYNOMIAL_REFLECTED if state & 1 else 0)
    return state


@cache
def _columns(data_bytes: int) -> tuple[int, ...]:
    """What each bit of (state XOR data) contributes to the next state; linear, so they are XORed together.

    The first 32 entries belong to the bits that meet the state; further ones to data bits beyond it, which
    are shifted in later and so by fewer steps.
    """
    bits = 8 * data_bytes
    low = [_shift(1 << index, bits) for index in range(32)]
    high = [_shift(1, bits - index) for index in range(32, bits)]
    return tuple(low + high)


def crc32c_step(state, data) -> Value:
    """Register after `data`, a whole number of bytes wide, from the 32-bit register `state`."""
    state, data = Value.cast(state), Value.cast(data)
    if len(state) != 32:
        raise ValueError(f"state must be 32 bits wide, not {len(state)!r}")
    if len(data) == 0 or len(data) % 8:
        raise ValueError(f"data must be a whole number of bytes wide, not {len(data)!r} bits")
    # Data shorter than the register meets its low bits only; the rest of the register just moves down.
    inputs = [[*state[index:index + 1], *data[index:index + 1]] for index in range(max(32, len(data)))]
    columns = _columns(len(data) // 8)
    return Cat(
        reduce(xor, [term for column, terms in zip(columns, inputs, strict=True) if column >> bit & 1
                     for term in terms])
        for bit in range(32))
