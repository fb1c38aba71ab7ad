"""`SessionTransport`: a transport that speaks the link protocol over a pipe of messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .operations import Operation
from .pipe import MessagePipe
from .session import Session
from .transport import Capability, Transport

_SLOWEST_CYCLES_A_SECOND = 20_000  # of a simulation on a busy machine: how long a grant of time may take


class SessionTransport(Transport):
    """Registers and pushed windows through a `Session`; simulation control where the pipe carries it."""

    capabilities = Capability.REGISTERS | Capability.WINDOWS

    def __init__(self, pipe: MessagePipe, *, url: str, timeout: float = 1.0, writer: bool = False,
                 seed: int | None = None) -> None:
        super().__init__(url, timeout=timeout, writer=writer)
        self.session = Session(pipe, url=url, timeout=timeout, seed=seed)
        try:
            self.session.open()
        except BaseException:
            pipe.close()
            raise

    @property
    def boot_nonce(self) -> int | None:
        """Boot nonce in the last hello."""
        return self.session.boot_nonce

    def _execute(self, operations: Sequence[Operation], *, ordered: bool) -> list[list[int]]:
        return self.session.exchange(operations, ordered=ordered)

    def _windows(self, timeout: float) -> list[bytes]:
        return self.session.windows(timeout)

    def _control(self, document: dict[str, Any], timeout: float) -> dict[str, Any]:
        if Capability.CONTROL not in self.capabilities:
            raise self._unsupported(Capability.CONTROL)
        return self.session.control(document, timeout)

    def _advance(self, cycles: int) -> dict[str, Any]:
        if Capability.TIME_GRANTS not in self.capabilities:
            raise self._unsupported(Capability.TIME_GRANTS)
        patience = self.timeout + cycles / _SLOWEST_CYCLES_A_SECOND
        return self.session.control({"op": "advance", "cycles": cycles}, patience)

    def _close(self) -> None:
        self.session.close()
