"""`SnapshotWindows`: the analyzer's windows, read from its snapshot registers as they end.

Over PCIe nothing is pushed: a program looks. A snapshot is read between two readings of the window's number, and again
when another window has ended meanwhile. Windows that passed unread are told as skipped. The epoch of a window is that
in force when it ended; it is not known when the table has changed since, and such a window is passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..registers import register_map
from ..window import Window, WindowRow

POLL_SECONDS = 0.001
REST = 4.0  # of the time that a look took: where a function is emulated, that is long, and keeps a processor waiting
_MODULO = 1 << 32
_HEAD = ("analyzer.sequence", "analyzer.start_lo", "analyzer.start_hi", "analyzer.cycles", "rm.active", "rm.changed_at",
         "rm.active_tag", "id.cycle_lo")


class SnapshotWindows:
    """read: words of the device at these addresses, in order."""

    def __init__(self, read: Callable[[Sequence[int]], list[int]]) -> None:
        self._read = read
        known = register_map()
        self._head = [known.register(name).address for name in _HEAD]
        self._epoch = known.register("rm.active").field("epoch")
        self._tenants = known.register("id.config0")
        self._rows: list[int] | None = None
        self._last: int | None = None
        self._skipped = 0

    def next(self, timeout: float) -> list[bytes]:
        """The body of the newest window as a device pushes it, when it has ended within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            began = time.monotonic()
            (sequence,) = self._read(self._head[:1])
            took = time.monotonic() - began
            if sequence not in (0, self._last) and (window := self._snapshot(sequence)) is not None:
                return [window.encode()]
            if time.monotonic() >= deadline:
                return []
            time.sleep(max(POLL_SECONDS, REST * took))

    def _snapshot(self, number: int) -> Window | None:
        """Window `number`; None when it is not the newest any more, or its epoch is not known."""
        if self._rows is None:
            (word,) = self._read([self._tenants.address])
            snapshot = register_map().block("snapshot")
            self._rows = [register.address for tenant in range(self._tenants.decode(word).tenants)
                          for register in snapshot.registers(tenant)]
        width = len(register_map().block("snapshot").template)
        words = self._read(self._rows)
        sequence, low, high, cycles, active, changed_at, tag, now = self._read(self._head)
        if sequence != number or self._read(self._head[:1]) != [sequence]:
            return None
        if self._last is not None:
            self._skipped += (sequence - self._last - 1) % _MODULO
        self._last = sequence
        end = (low | high << 32) + cycles
        if 0 < (changed_at - end) % _MODULO <= (now - end) % _MODULO:
            self._skipped += 1
            return None
        rows = tuple(WindowRow(*words[at:at + width]) for at in range(0, len(words), width))
        epoch = self._epoch.extract(active)
        return Window(sequence, low | high << 32, cycles, epoch, self._skipped % _MODULO, tag, rows)


__all__ = ["SnapshotWindows"]
