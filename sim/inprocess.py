"""A `Transport` to a `Board` in the same process: for benches and fast tests. Time moves by what it does only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from device_link.operations import Operation, Read, ReadList, Write, touched
from device_link.transport import BusError, Capability, Transport
from morphnic.errors import LinkTimeout

from .board import ACCESS, WRITE, Array, Board


class BoardTransport(Transport):
    """Registers, windows and grants of time, straight at the board. The board stays open when this closes."""

    capabilities = Capability.REGISTERS | Capability.WINDOWS | Capability.TIME_GRANTS

    def __init__(self, board: Board, *, url: str = "board://", writer: bool = True) -> None:
        super().__init__(url, writer=writer)
        self._board = board

    @property
    def boot_nonce(self) -> int | None:
        """Changes when the board is reset."""
        return self._board.boot_nonce

    def _execute(self, operations: Sequence[Operation], *, ordered: bool) -> list[list[int]]:
        results = []
        for index, operation in enumerate(operations):
            rows = self._board.access(_rows(operation))
            failed = np.flatnonzero(rows["status"])
            if len(failed):
                address = 4 * int(rows["address"][failed[0]])
                if rows["status"][failed[0]] == 2:
                    raise LinkTimeout(f"{self.url}: the register at {address:#07x} does not answer")
                raise BusError(f"{self.url}: the register at {address:#07x} does not exist, or it refused",
                               index=index, addresses=[address])
            results.append(rows["data"].tolist() if isinstance(operation, Read | ReadList) else [])
        return results

    def _windows(self, timeout: float) -> list[bytes]:
        return [words.astype("<u4").tobytes() for words in self._board.windows()]

    def _advance(self, cycles: int) -> dict[str, Any]:
        ran = self._board.advance(cycles)
        return {"ok": True, "ran": ran, "cycle": self._board.cycle}

    def _close(self) -> None:
        pass


def _rows(operation: Operation) -> Array:
    """The accesses of an operation. A failed one does not stop the others of the same operation."""
    addresses = touched(operation)
    rows = np.zeros(len(addresses), ACCESS)
    rows["address"] = np.array(addresses) // 4
    if not isinstance(operation, Read | ReadList):
        rows["write_mask"] = WRITE
        rows["data"] = operation.words if isinstance(operation, Write) else [word for _, word in operation.pairs]
    return rows
