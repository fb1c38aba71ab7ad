"""What checks are written with: expectations, waiting in device time, and putting things back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from ..device import Device, Identity, RegisterHandle
from ..registers import rows_of
from ..transport import BusError, Capability

_LEAST_GRANT = 256


class CheckFailed(Exception):
    """The device does not do what it must."""


class CheckSkipped(Exception):
    """The check does not apply to this device or this link; the message says why."""


class CheckWarned(Exception):
    """The device does what it must, and something about it is odd; the message says what."""


class Bench:
    """A device under test, and the time that a check may take."""

    def __init__(self, device: Device, *, patience: float) -> None:
        self.device = device
        self._deadline = time.monotonic() + patience
        self._patience = patience

    @property
    def identity(self) -> Identity:
        """What the device told about itself."""
        return self.device.identity

    def expect(self, holds: bool, message: str) -> None:
        """Fail with `message` unless `holds`."""
        if not holds:
            raise CheckFailed(message)

    def equal(self, got: object, wanted: object, what: str) -> None:
        """Fail unless `got` equals `wanted`."""
        self.expect(got == wanted, f"{what} is {_shown(got)}, not {_shown(wanted)}")

    def refused(self, action: Callable[[], object], what: str) -> None:
        """Fail unless `action` ends with a bus error."""
        try:
            action()
        except BusError:
            return
        raise CheckFailed(f"{what} was not refused")

    def skip_unless(self, capability: Capability) -> None:
        """Skip the check on a link without `capability`."""
        if capability not in self.device.capabilities:
            raise CheckSkipped(f"the link has no {capability.name}")

    def skip_unless_writer(self) -> None:
        """Skip a check that changes registers on a device that was opened for reading."""
        if not self.device.transport.writer:
            raise CheckSkipped("it changes registers, and the device was opened for reading only")

    def in_time(self, what: str) -> None:
        """Fail when the check has taken too long; called wherever one waits."""
        if time.monotonic() > self._deadline:
            raise CheckFailed(f"{what} did not happen within {self._patience:g} s")

    def pass_time(self, cycles: int) -> None:
        """Let at least `cycles` of device time pass."""
        if Capability.TIME_GRANTS in self.device.capabilities:
            self.device.advance(cycles)
            return
        start = self.device.cycle()
        while self.device.cycle() - start < cycles:
            self.in_time(f"the passing of {cycles} device cycles")

    def until(self, holds: Callable[[], bool], what: str, *, step: int = _LEAST_GRANT) -> None:
        """Wait in device time until `holds`."""
        while not holds():
            self.in_time(what)
            self.pass_time(step)

    @contextlib.contextmanager
    def restored(self, registers: Sequence[RegisterHandle]) -> Iterator[None]:
        """Put back what `registers` hold now, whatever happens."""
        before = self.device.read(registers)
        try:
            yield
        finally:
            self.device.write([(handle, int(value)) for handle, value in zip(registers, before, strict=True)])

    def writable_state(self) -> list[int]:
        """Every register that software may write and read back, for telling whether something was changed."""
        # Staged rows answer only within a transaction; `allocation_checks` looks at those.
        arrays = ("guarantee", "objective", "classifier", "slot")
        handles = []
        for block in self.device.map:
            if block.memory_words or not self.device.has(block.name):
                continue
            if block.count and block.name not in arrays:
                continue
            indices: Sequence[int | None] = range(rows_of(block, self.identity.config)) if block.count else [None]
            handles += [RegisterHandle(self.device, register) for index in indices
                        for register in block.registers(index) if register.writable]
        return [int(value) for value in self.device.read(handles)]


def _shown(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)


__all__ = ["Bench", "CheckFailed", "CheckSkipped", "CheckWarned"]
