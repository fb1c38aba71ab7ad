"""A virtual serial port: one side is a device file that pyserial opens like any port, the other is the board's."""

from __future__ import annotations

import contextlib
import os
import tty
from collections import deque
from pathlib import Path

KEPT_BYTES = 1 << 20  # for a reader that does not read; older bytes are dropped, as a serial line would


class VirtualSerialPort:
    """A pseudo-terminal in raw mode. `path` is the device file; `link` is a name for it that does not change."""

    def __init__(self, link: Path) -> None:
        self.master, self._slave = os.openpty()
        # The slave stays open here: else the master reads an error whenever nobody has the port open.
        tty.setraw(self._slave)
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self._slave)
        self._link = link
        self._outgoing: deque[bytes] = deque()
        self._kept = 0
        self.dropped = 0
        link.unlink(missing_ok=True)
        link.symlink_to(self.path)

    def read(self) -> bytes:
        """What was written into the port."""
        try:
            return os.read(self.master, 65536)
        except BlockingIOError:
            return b""

    def write(self, data: bytes) -> None:
        """Send to whoever reads the port; keeps what does not fit yet."""
        if data:
            self._outgoing.append(data)
            self._kept += len(data)
        while self._kept > KEPT_BYTES:
            oldest = self._outgoing.popleft()
            self._kept -= len(oldest)
            self.dropped += len(oldest)
        while self._outgoing:
            try:
                sent = os.write(self.master, self._outgoing[0])
            except BlockingIOError:
                return
            self._kept -= sent
            if sent < len(self._outgoing[0]):
                self._outgoing[0] = self._outgoing[0][sent:]
                return
            self._outgoing.popleft()

    def close(self) -> None:
        """Remove the port."""
        with contextlib.suppress(FileNotFoundError):
            self._link.unlink()
        os.close(self.master)
        os.close(self._slave)
