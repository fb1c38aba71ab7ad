"""`Function`: one PCIe function as this process reaches it, whatever lies between."""

from __future__ import annotations

import ctypes
import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from morphnic.errors import UnsupportedCapability

from ..operations import SPACE_BYTES

#: What a processor reads where nothing answers, or where a function refuses.
ALL_ONES = 0xFFFF_FFFF
#: BAR0 is the register space.
BAR_BYTES = SPACE_BYTES
PAGE_BYTES = 4096
#: Bus addresses for DMA: from the first to below the second, which is where message interrupts are.
DMA_FIRST, DMA_END = 0x1000_0000, 0xFEE0_0000


class HostMemory:
    """Memory that DMA reaches at `bus_address`. `view`: its bytes, shared with the device; closed with it."""

    def __init__(self, view: memoryview, bus_address: int, release: Callable[[], None]) -> None:
        self.view, self.bus_address, self._release = view, bus_address, release
        self._closed = False

    def close(self) -> None:
        """Take it away from the device; closing again does nothing. Its region of the memory table goes first."""
        if not self._closed:
            self._closed = True
            self.view.release()
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class Function(ABC):
    """A function, held by one thread. name: for messages. A failed access raises `LinkError`.

    dma, message_interrupts: whether it can do `map_memory` and `reset`, and `interrupts`.
    """

    dma = False
    message_interrupts = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._next_bus_address = DMA_FIRST

    @abstractmethod
    def read32(self, offset: int) -> int:
        """The word at a byte offset of BAR0; `ALL_ONES` where the function refuses or is gone."""

    @abstractmethod
    def write32(self, offset: int, word: int) -> None:
        """Post a write to BAR0: nobody tells whether it was refused."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the function."""

    def map_memory(self, size: int) -> HostMemory:
        """At least `size` bytes of new memory, zeroed, that DMA reaches."""
        raise self._unsupported("DMA")

    def interrupts(self, count: int) -> list[int]:
        """Event descriptors (eventfd) of the first `count` vectors, those of before being closed; 0 switches off."""
        raise self._unsupported("interrupts")

    def reset(self) -> None:
        """Reset the function; vectors are off afterwards. Registers and the allocation stay."""
        raise self._unsupported("a function reset")

    def _unsupported(self, what: str) -> UnsupportedCapability:
        return UnsupportedCapability(f"{self.name} was opened for registers alone and cannot do {what}: bind it to "
                                     "vfio-pci, see docs/guides/pcie.md")

    def _take_bus_address(self, size: int) -> int:
        """The next free bus address for `size` bytes, which are whole pages."""
        address = self._next_bus_address
        if address + size > DMA_END:
            raise UnsupportedCapability(f"{self.name}: {size} more bytes of DMA memory do not fit into its addresses")
        self._next_bus_address += size
        return address


class Window:
    """BAR0, mapped: accesses of 32 bits. `ctypes` loads and stores a word of an array at once, never by bytes."""

    def __init__(self, descriptor: int, offset: int) -> None:
        self._mapping = mmap.mmap(descriptor, BAR_BYTES, offset=offset)
        self._words = (ctypes.c_uint32 * (BAR_BYTES // 4)).from_buffer(self._mapping)

    def read(self, offset: int) -> int:
        """The word at a byte offset."""
        return self._words[offset // 4]

    def write(self, offset: int, word: int) -> None:
        """Write the word at a byte offset."""
        self._words[offset // 4] = word

    def close(self) -> None:
        """Unmap it."""
        del self._words
        self._mapping.close()


def whole_pages(size: int) -> int:
    """`size` rounded up to pages; `ValueError` for none."""
    if size < 1:
        raise ValueError(f"size must be at least 1 byte, not {size!r}")
    return -(-size // PAGE_BYTES) * PAGE_BYTES


__all__ = ["ALL_ONES", "BAR_BYTES", "Function", "HostMemory", "Window", "whole_pages"]
