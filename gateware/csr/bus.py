"""The control and status register (CSR) bus: 32 bits, one access at a time, with an error response.

Contract (ARCHITECTURE 3.1):

- The initiator raises `valid` with `address`, `write`, `w_data` and `w_mask` and holds them unchanged until the
  cycle in which `ready` is high; that cycle ends the access. One access is outstanding at a time.
- In that cycle `r_data` (for a read) and `error` are valid. `error` means: no register answers at this address,
  or the register refuses the access; nothing was changed.
- A target answers within a bounded number of cycles (at most 16) and *a read has no side effect*.
- `ready` is low while `valid` is low. `w_mask` enables bytes; a read ignores it.
"""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["CsrSignature"]


class CsrSignature(wiring.Signature):
    """CSR bus seen from its initiator. `address_width` is in words of 32 bits."""

    def __init__(self, address_width: int):
        if not 1 <= address_width <= 30:
            raise ValueError(f"address_width must be in 1..30, not {address_width!r}")
        self._address_width = address_width
        super().__init__({
            "valid": Out(1),
            "write": Out(1),
            "address": Out(address_width),
            "w_data": Out(32),
            "w_mask": Out(4),
            "ready": In(1),
            "error": In(1),
            "r_data": In(32),
        })

    @property
    def address_width(self) -> int:
        """Width of `address`, in bits; an address is that of a 32-bit word."""
        return self._address_width

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CsrSignature) and self._address_width == other._address_width

    def __repr__(self) -> str:
        return f"CsrSignature({self._address_width})"
