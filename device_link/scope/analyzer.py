"""`LogicAnalyzer`: the logic analyzer of one device, over any transport.

    scope = LogicAnalyzer(device)
    scope.arm("rise(manager.changed)", before=0.25)
    while scope.status().state is not State.COMPLETE: ...
    capture = scope.read()
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from morphnic.errors import InputError, LinkError, UnsupportedCapability

from ..device import Device
from ..transport import BusError, Capability
from .capture import RUN_BITS, Capture, Probe, decode_description, decode_rows
from .trigger import STAGES, compile_trigger, immediate

LEAST_GRANT = 256  # cycles, of a device whose time is granted
GRANT = 10_000
LOOK_SECONDS = 0.02


class State(Enum):
    """Of a capture."""

    IDLE = 0
    WAITING = 1
    TRIGGERED = 2
    COMPLETE = 3


@dataclass(frozen=True)
class Status:
    """What the analyzer does. captures: those begun since reset. rows: of the last one. stage: waited for, from 0."""

    state: State
    triggered: bool
    stage: int
    captures: int
    rows: int


class ScopeTimeout(LinkError):
    """A capture was not complete within the time given; it goes on in the device."""


class LogicAnalyzer:
    """The logic analyzer of `device`. Raises `UnsupportedCapability` where it has none."""

    def __init__(self, device: Device) -> None:
        if not device.id.config2.read().scope:
            raise UnsupportedCapability(
                f"{device.url} has no logic analyzer: build the device with probes, such as "
                "`--set scope_probes=manager.changed,fabric.outputs0.header`")
        self._device = device
        shape, description = device.read([device.scope.shape, device.scope.description])
        self.bits, self.rows = int(shape.bits), int(shape.rows)
        self._description_bytes = int(description.bytes)

    @cached_property
    def probes(self) -> tuple[Probe, ...]:
        """What it samples, in the device's own words."""
        words = self._device.scope_description.words(0, -(-self._description_bytes // 4))
        data = b"".join(word.to_bytes(4, "little") for word in words)[:self._description_bytes]
        return decode_description(data, self.bits)

    @property
    def _row_words(self) -> int:
        return 1 << (-(-(self.bits + RUN_BITS) // 32) - 1).bit_length()

    def arm(self, trigger: str | None = None, *, before: float = 0.25, cycles: int = 0) -> None:
        """Begin a capture, and forget the last one.

        trigger: as in `trigger.py`; without one, the first cycle is it. before: share of the rows for what was before
        the trigger, below 1. cycles: how many are captured from the trigger on; 0: until the buffer is full.
        """
        if not 0 <= before < 1:
            raise InputError(f"before must be a share in 0..1, below 1, not {before!r}")
        if not 0 <= cycles < 1 << 32:
            raise InputError(f"cycles behind the trigger must be in 0..{(1 << 32) - 1}, not {cycles!r}")
        program = compile_trigger(trigger, self.probes) if trigger is not None else immediate(self.probes)
        scope = self._device.scope
        # A capture that waits would see patterns half written; it is forgotten anyway.
        scope.control.write(stop=1)
        self._device.transport.write(self._device.map.block("scope_pattern").address, program.tables)
        stages = [getattr(scope, f"stage{number}") for number in range(STAGES)]
        self._device.write([
            (scope.before, {"rows": int(before * self.rows)}), (scope.after, {"cycles": cycles}),
            (scope.last, {"stage": len(program.stages) - 1}),
            *((stage, {"condition": condition, "count": count})
              for stage, (condition, count) in zip(stages, program.stages, strict=False)),
            (scope.control, {"arm": 1}),
        ])

    def stop(self) -> Status:
        """End the capture with what it has; nothing happens where none is under way."""
        self._device.scope.control.write(stop=1)
        return self.status()

    def status(self) -> Status:
        """What it does now."""
        scope = self._device.scope
        status, captures, length = self._device.read([scope.status, scope.captures, scope.length])
        return Status(State(status.state), bool(status.triggered), status.stage, int(captures), length.rows)

    def wait(self, timeout: float, *, looked: Callable[[Status], None] | None = None) -> Status:
        """Until the capture is complete, at most `timeout` seconds; then `ScopeTimeout`, and it goes on.

        Time is granted where it is granted and this link may. looked: is called with every status seen.
        """
        grants = Capability.TIME_GRANTS in self._device.capabilities and self._device.transport.writer
        deadline = time.monotonic() + timeout
        step = LEAST_GRANT
        while True:
            status = self.status()
            if looked is not None:
                looked(status)
            if status.state is State.COMPLETE:
                return status
            if status.state is State.IDLE:
                raise InputError(f"{self._device.url}: no capture was begun since the device's reset: arm it first")
            if time.monotonic() >= deadline:
                raise ScopeTimeout(
                    f"{self._device.url}: {self._unfinished(status)} within {timeout:g} s; the capture goes on: "
                    "wait again, or stop it and save what there is")
            if grants:
                self._device.advance(step)
                step = min(2 * step, GRANT)
            else:
                time.sleep(min(LOOK_SECONDS, timeout))

    @staticmethod
    def _unfinished(status: Status) -> str:
        if status.state is State.WAITING:
            return f"the trigger did not come (condition {status.stage + 1} of the sequence is waited for)"
        return "the buffer was not full"

    def read(self) -> Capture:
        """The capture, which must be complete; raises `LinkError` if somebody else begins another one meanwhile."""
        scope, device = self._device.scope, self._device
        before = self.status()
        if before.state is not State.COMPLETE:
            raise InputError(f"{device.url}: there is no capture to read ({before.state.name.lower()}): "
                             "arm, and wait for it or stop it")
        first, trigger, low, high = device.read([scope.first, scope.trigger, scope.end_lo, scope.end_hi])
        try:
            runs = self._read_rows(first.row, before.rows)
        except BusError as error:
            if self.status().captures == before.captures:
                raise
            raise self._replaced() from error
        if self.status().captures != before.captures:
            raise self._replaced()
        end = int(low) | int(high) << 32
        after = (trigger.row - first.row) % self.rows  # rows before the trigger
        came = end - sum(cycles for _, cycles in runs[after:]) if before.triggered else None
        return Capture(self.probes, tuple(runs), end, came, device.identity.clock_hz)

    def _read_rows(self, first: int, count: int) -> list[tuple[int, int]]:
        words: list[int] = []
        head = min(count, self.rows - first)
        for row, rows in ((first, head), (0, count - head)):
            if rows:
                words += self._device.scope_rows.words(row * self._row_words, rows * self._row_words)
        return decode_rows(words, self._row_words, self.bits)

    def _replaced(self) -> LinkError:
        return LinkError(f"{self._device.url}: another capture was begun while this one was read; nothing of it is "
                         "kept: begin again")
