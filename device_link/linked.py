"""`SessionTransport`: a transport that speaks the link protocol over a pipe of messages.

Control documents that belong to the link and not to what is behind it, and that every server answers:

- `{"op": "attach", ...}`: who connects, answered with what the link can do (`sockets`);
- `{"op": "acquire"}` asks for the right to write, which ends with the connection; answered `{"ok": true}`, or
  `{"ok": false, "reason": "busy", "error": TEXT}` while another holds it; `release` gives it back;
- `{"op": "describe"}`: which device it is, and who holds it;
- `{"op": "advance", "cycles": N}` grants device time (capability `TIME_GRANTS`), answered once it has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from morphnic.errors import DeviceBusy, LinkError

from .operations import Operation
from .pipe import MessagePipe
from .session import Session
from .sockets import ServerPipe
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

    def fileno(self) -> int | None:
        """Descriptor of the pipe."""
        return self.session.pipe.fileno()

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


def open_served(pipe: ServerPipe, *, url: str, timeout: float, writer: bool) -> SessionTransport:
    """Transport over a connection to a server; `writer` asks for the right to write."""
    transport = SessionTransport(pipe, url=url, timeout=timeout, writer=writer)
    transport.capabilities = Capability.REGISTERS
    for name in pipe.welcome["capabilities"]:
        transport.capabilities |= Capability.__members__.get(name, Capability(0))  # a newer server may know more
    try:
        if writer and not (answer := pipe.acquire()).get("ok"):
            kind = DeviceBusy if answer.get("reason") == "busy" else LinkError
            raise kind(f"{url}: {answer.get('error', 'the right to write was refused')}: stop the program that holds "
                       "it, or go through the manager")
    except BaseException:
        transport.close()
        raise
    return transport
