"""`Transport`: how software reaches the registers of one device, whatever lies between.

The public methods check arguments, log, record and time once, here; a transport implements one private
`_execute`, and what else its `capabilities` promise. Whoever uses a transport asks its capabilities and never its
name. A transport is synchronous and owned by one thread. A failed read raises; no value is ever made up.

Order: operations take effect in the order given. `execute` stops at the first operation that fails: those before it
were carried out, those after it were not. `write` of a block may be spread over several requests in flight: after
a bus error in one, later ones may have been carried out.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from enum import Flag, auto
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from morphnic.errors import DeviceBusy, LinkError, UnsupportedCapability

from .operations import (
    SPACE_BYTES,
    Operation,
    Read,
    ReadList,
    Write,
    WriteList,
    is_write,
    read_count,
    touched,
)
from .window import Window

if TYPE_CHECKING:
    from .pcie.function import HostMemory
    from .recording import Recorder

log = logging.getLogger(__name__)


class Capability(Flag):
    """What a transport can do."""

    REGISTERS = auto()
    """Reads and writes registers."""
    WINDOWS = auto()
    """Delivers window snapshots, once the registers in `window_switches` are 1."""
    TIME_GRANTS = auto()
    """Lockstep: device time passes only when granted with `advance`."""
    EXCLUSIVE = auto()
    """Grants the right to write to one holder at a time."""
    CONTROL = auto()
    """Takes JSON documents that control the simulation."""
    MMIO = auto()
    """A register is as near as memory: an access takes microseconds, and many at once gain little over one by one."""
    DMA = auto()
    """The device reaches memory of this process: `map_memory`."""
    INTERRUPTS = auto()
    """The device interrupts this process: `interrupts`."""


class BusError(LinkError):
    """No register answers at an address, or it refused the access; `addresses` are those in question.

    index: the operation that failed. words: what operations before it read, where the transport tells.
    """

    def __init__(self, message: str, *, index: int, addresses: Sequence[int], words: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.index = index
        self.addresses = tuple(addresses)
        self.words = tuple(words)


class Transport(ABC):
    """Base of every transport.

    url: how it was reached, for messages. timeout: seconds without progress after which an exchange gives up.
    writer: whether it may change the device.
    """

    capabilities: Capability = Capability.REGISTERS
    #: Registers to write 1 to, so that the device pushes windows to this link.
    window_switches: tuple[str, ...] = ("analyzer.control", "link.control")

    def __init__(self, url: str, *, timeout: float = 1.0, writer: bool = False) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, not {timeout!r}")
        self.url = url
        self.timeout = timeout
        self.writer = writer
        self.recorder: Recorder | None = None
        self._closed = False

    # --- what a transport implements ---

    @abstractmethod
    def _execute(self, operations: Sequence[Operation], *, ordered: bool) -> list[list[int]]:
        """Carry out checked operations; the words that each read. Not `ordered`: a failure need not stop."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of the device."""

    @property
    def boot_nonce(self) -> int | None:
        """Number that changes when the device is reset, where the link tells it."""
        return None

    def fileno(self) -> int | None:
        """Descriptor that becomes readable when windows may have arrived; None where there is none to wait for."""
        return None

    def _windows(self, timeout: float) -> list[bytes]:
        raise self._unsupported(Capability.WINDOWS)

    def _control(self, document: dict[str, Any], timeout: float) -> dict[str, Any]:
        raise self._unsupported(Capability.CONTROL)

    def _advance(self, cycles: int) -> dict[str, Any]:
        raise self._unsupported(Capability.TIME_GRANTS)

    def _map_memory(self, size: int) -> HostMemory:
        raise self._unsupported(Capability.DMA)

    def _interrupts(self, count: int) -> list[int]:
        raise self._unsupported(Capability.INTERRUPTS)

    # --- registers ---

    def read(self, address: int, count: int = 1) -> list[int]:
        """`count` words from consecutive addresses."""
        return self.execute([Read(address, count)])[0]

    def read_many(self, addresses: Iterable[int]) -> list[int]:
        """One word from each address, in one exchange."""
        listed = tuple(addresses)
        return self.execute([ReadList(listed)])[0] if listed else []

    def write(self, address: int, words: int | Sequence[int]) -> None:
        """Write to consecutive addresses, as fast as the link goes (see *Order* above)."""
        block = (words,) if isinstance(words, int) else tuple(words)
        if block:
            self._run([Write(address, block)], ordered=False)

    def write_many(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Write each (address, word) in order; stops at the first that fails."""
        listed = tuple(pairs)
        if listed:
            self.execute([WriteList(listed)])

    def execute(self, operations: Sequence[Operation]) -> list[list[int]]:
        """Carry out `operations` in order, stopping at the first that fails; the words that each read."""
        return self._run(list(operations), ordered=True)

    def _run(self, operations: list[Operation], *, ordered: bool) -> list[list[int]]:
        self._check_open()
        for operation in operations:
            self._check(operation)
        try:
            results = self._execute(operations, ordered=ordered)
        except LinkError as error:
            log.debug("%s: %d operations: %s", self.url, len(operations), error)
            if self.recorder:
                self.recorder.failed(operations, error)
            raise
        for operation, words in zip(operations, results, strict=True):
            if len(words) != read_count(operation):
                raise LinkError(f"{self.url}: {len(words)} words came back where {read_count(operation)} were "
                                "read; the transport is faulty")
        log.debug("%s: %d operations done", self.url, len(operations))
        if self.recorder:
            self.recorder.executed(operations, results)
        return results

    def _check(self, operation: Operation) -> None:
        """Alignment, range and width, once for all transports."""
        if isinstance(operation, Read) and operation.count < 1:
            raise ValueError(f"count must be at least 1, not {operation.count!r}")
        for address in touched(operation):
            if address % 4 or not 0 <= address < SPACE_BYTES:
                raise ValueError(f"address must be a multiple of 4 below {SPACE_BYTES:#x}, not {address:#x}")
        if not is_write(operation):
            return
        if not self.writer:
            raise LinkError(f"{self.url} was opened for reading only: open it with writer=True to change the device")
        words = operation.words if isinstance(operation, Write) else [word for _, word in _pairs(operation)]
        for word in words:
            if not 0 <= word < 1 << 32:
                raise ValueError(f"word must be in 0..0xffffffff, not {word!r}")

    # --- windows, time, simulation ---

    def windows(self, timeout: float = 0.0) -> list[Window]:
        """Windows pushed since the last call, oldest first; waits up to `timeout` seconds for the first."""
        self._check_open()
        if timeout < 0:
            raise ValueError(f"timeout must be at least 0 seconds, not {timeout!r}")
        payloads = self._windows(timeout)
        if self.recorder:
            self.recorder.windows(payloads)
        return [Window.decode(payload) for payload in payloads]

    def advance(self, cycles: int) -> dict[str, Any]:
        """Grant `cycles` of device time and wait until they have passed; what the simulation answers."""
        self._check_open()
        if not isinstance(cycles, int) or cycles < 0:
            raise ValueError(f"cycles must be a number of at least 0, not {cycles!r}")
        answer = self._advance(cycles)
        if self.recorder:
            self.recorder.control({"advance": cycles}, answer)
        if not answer.get("ok"):
            kind = DeviceBusy if answer.get("reason") == "busy" else LinkError
            raise kind(f"{self.url}: {answer.get('error', 'the grant of time was refused')}")
        return answer

    def control(self, document: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Send a control document to the simulation; its answer."""
        self._check_open()
        answer = self._control(document, self.timeout if timeout is None else timeout)
        if self.recorder:
            self.recorder.control(document, answer)
        return answer

    # --- memory and interrupts ---

    def map_memory(self, size: int) -> HostMemory:
        """At least `size` bytes of new memory that the device's DMA reaches once a region of its table grants it."""
        self._check_open()
        return self._map_memory(size)

    def interrupts(self, count: int) -> list[int]:
        """Event descriptors of the first `count` interrupt vectors, in place of those of before."""
        self._check_open()
        return self._interrupts(count)

    # --- life ---

    def close(self) -> None:
        """Let go of the device; further calls raise, closing again does nothing."""
        if not self._closed:
            self._closed = True
            try:
                self._close()
            finally:
                if self.recorder:
                    self.recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise LinkError(f"{self.url} is closed")

    def _unsupported(self, capability: Capability) -> UnsupportedCapability:
        name = capability.name or str(capability)
        able = ", ".join(one.name or "" for one in self.capabilities) or "nothing"
        return UnsupportedCapability(f"{self.url} cannot do {name}; it can do {able}")


def _pairs(operation: Operation) -> tuple[tuple[int, int], ...]:
    return operation.pairs if isinstance(operation, WriteList) else ()
