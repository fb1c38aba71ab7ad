"""`RootComplex`: what a host does with the PCIe function of a simulated device, without a host around it.

The C++ board has the link, the memory and the interrupt messages (`sim/board/root.hpp`); this is the part of an
operating system: which memory is mapped for DMA, which vectors are on, and the reset when somebody lets go of it.
Device time passes by accesses as on the register bus. Of a board on which this was used, waveforms are refused: what a
program wrote to the memory is not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from device_link.registers import register_map
from morphnic.errors import InputError, LinkTimeout

from .board import ACCESS, ACCESS_LIMIT, WRITE, Board

BAR_BYTES = 1 << 18
READABLE, WRITABLE = 1, 2
#: Where messages go: any address in the range that the processor's interrupt controller answers.
_MESSAGES = 0xFEE0_0000
_RESET_LIMIT = 100_000
_LIMIT = 4 * ACCESS_LIMIT  # of an access, in cycles: the streams and the arbiter are on its way
_MAX_PAYLOAD, _MAX_READ = 1, 2  # 256 and 512 bytes
_ROOM = 256


class RootComplex:
    """The host's side of the function of `board`; raises `InputError` when its device has none."""

    def __init__(self, board: Board) -> None:
        self._board = board
        if not board.pcie_call(""):
            raise InputError("the device has no PCIe endpoint: start it with --set pcie_width=64")
        self._regions: dict[int, Any] = {}
        self._msix = register_map().block("msix").address
        #: Vectors that the function has.
        self.available = self.read(register_map().register("pcie.link").address) >> 16 & 0xFF
        self._vectors = 0
        self._holder: object | None = None
        self.configure()

    def take(self, holder: object) -> bool:
        """Have the function, which one holder has at a time; whether nobody else had it."""
        if self._holder is None:
            self._holder = holder
        return self._holder is holder

    def give_back(self, holder: object) -> None:
        """Let others have it."""
        if self._holder is holder:
            self._holder = None
            self.configure()

    def configure(self, *, bus_master: bool = True, max_payload: int = _MAX_PAYLOAD, max_read: int = _MAX_READ) -> None:
        """What the link and the configuration space give the function; sizes are 128 << n bytes."""
        self._link = (int(bus_master), max_payload, max_read)
        self._configure()

    def _configure(self) -> None:
        bus_master, max_payload, max_read = self._link
        self._board.pcie_call("configure", bus_master, int(self._vectors > 0), max_payload, max_read)

    def read(self, address: int) -> int:
        """The word at a byte address of BAR0, as a processor sees it: ones where the function refuses."""
        return self._access(address, 0, 0)

    def write(self, address: int, word: int) -> None:
        """Post a write to BAR0; nobody tells what became of it."""
        self._access(address, word, WRITE)

    def _access(self, address: int, word: int, write_mask: int) -> int:
        rows = np.array([(address // 4, word, write_mask, 0, 0)], dtype=ACCESS)
        self._board.pcie_call("access", rows.ctypes.data, 1, _LIMIT)
        if rows["status"][0] == 2:
            raise LinkTimeout(f"the PCIe function does not answer at {address:#07x}")
        return int(rows["data"][0])

    def map(self, address: int, memory: Any, rights: int) -> None:
        """Let DMA reach `memory` (writable, and kept alive here) at a bus address."""
        view = np.frombuffer(memory, dtype=np.uint8)
        for start, taken in self._regions.items():
            if start < address + len(view) and address < start + len(taken):
                raise InputError(f"bus addresses from {address:#x} on are mapped already")
        self._regions[address] = view
        self._board.pcie_call("map", address, len(view), view.ctypes.data, rights)

    def unmap(self, address: int) -> bool:
        """Take the memory at a bus address away; whether there was any."""
        known = self._regions.pop(address, None) is not None
        return bool(self._board.pcie_call("unmap", address)) and known

    @property
    def faults(self) -> int:
        """DMA requests that reached for what is not mapped."""
        return int(self._board.pcie_call("faults"))

    def enable_vectors(self, count: int) -> None:
        """Write the MSI-X table so that vectors below `count` bring their number as a message, and switch them on."""
        if not 0 <= count <= self.available:
            raise InputError(f"vectors must be in 0..{self.available}, not {count!r}")
        for vector in range(self.available):
            row: Sequence[int] = (_MESSAGES, 0, vector, int(vector >= count))
            for word, value in enumerate(row):
                self.write(self._msix + 16 * vector + 4 * word, value)
        self.read(self._msix)  # the writes before it were carried out
        self._vectors = count
        self._configure()

    def messages(self) -> list[int]:
        """Vectors that interrupted since the last call, in order."""
        rows = np.empty((_ROOM, 2), dtype=np.uint32)
        found: list[int] = []
        while count := int(self._board.pcie_call("messages", rows.ctypes.data, _ROOM)):
            found += rows[:count, 1].tolist()
        return found

    def reset(self) -> None:
        """A function-level reset; vectors are off afterwards. What is mapped stays so."""
        self._vectors = 0
        self._configure()
        if not self._board.pcie_call("reset", _RESET_LIMIT):
            raise LinkTimeout(f"the function was not reset within {_RESET_LIMIT} cycles")
        self.messages()


__all__ = ["BAR_BYTES", "READABLE", "WRITABLE", "RootComplex"]
