"""`DeviceServer`: shares one device, whatever its transport, with many clients (`morphnic serve`).

Requests of all clients are carried out one after another, each as a whole. The server is the device's only user: it
holds the right to write and passes it on. When the device is gone, requests fail with the reason, and each of them, at
most once a second, makes another attempt to open it.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from morphnic.errors import LinkError, LinkTimeout, MorphnicError, RegisterMapMismatch

from .operations import Operation, Status, WindowPush, is_write
from .registers import MAGIC, register_map
from .serving import Client, LinkServer, Refusal, failed
from .transport import BusError, Capability, Transport

log = logging.getLogger(__name__)

_POLL = 0.05  # seconds between looks for windows where there is nothing to wait for
_BETWEEN_ATTEMPTS = 1.0
_IDENTITY = ("magic", "map_hash", "build_id_lo", "build_id_hi", "uid_lo", "uid_hi", "boot_nonce")


class DeviceServer(LinkServer):
    """Serves the device that `connect` opens with the right to write; it is opened by the constructor.

    lease: seconds of silence after which the right to write goes to another who asks.
    """

    def __init__(self, name: str, connect: Callable[[], Transport], *, lease: float | None = 30.0) -> None:
        self._connect = connect
        self._device: Transport | None = connect()
        self._attempt = time.monotonic()
        self._waited_for: int | None = None
        self._identity = _identity(self._device)
        able = self._device.capabilities
        offered = [one.name or "" for one in (Capability.WINDOWS, Capability.TIME_GRANTS) if one in able]
        super().__init__(name, url=self._device.url, boot_nonce=self._identity["boot_nonce"],
                         capabilities=[*offered, "EXCLUSIVE"], lease=lease)
        self._wait_for(self._device)

    def describe(self) -> dict[str, Any]:
        """Which device it is."""
        return {"url": self.url, "present": self._device is not None,
                **{key: self._identity[key] for key in ("uid", "map_hash", "build_id")}}

    def run(self) -> None:
        """Serve until stopped."""
        while not self.stopped:
            idle = self._waited_for is not None or not self.clients
            self.step(1.0 if idle else _POLL)
            if self.clients:
                self._push_windows()
            self.deliver()

    def close(self) -> None:
        """Let go of clients and device."""
        super().close()
        if self._device is not None:
            self._device.close()
            self._device = None

    # --- the device ---

    def carry_out(self, operations: Sequence[Operation], *, repetition: bool = False) -> tuple[
            list[int], Status, int]:
        """On the device, in one exchange."""
        if repetition:
            operations = [one for one in operations if not is_write(one)]
        try:
            results = self._present().execute(operations) if operations else []
        except BusError as error:
            return list(error.words), Status.BUS_ERROR, error.index
        except LinkError as error:
            outcome = getattr(error, "outcome", "unknown")
            self._check(error)
            raise failed(type(error).__name__, str(error), outcome) from error
        return list(chain.from_iterable(results)), Status.DONE, 0

    def operate(self, client: Client, sequence: int, document: dict[str, Any]) -> dict[str, Any] | None:
        """Grants of device time go on to the device; all else is about the simulation, and files beside it."""
        if document.get("op") != "advance" or "TIME_GRANTS" not in self.capabilities:
            raise Refusal("unknown", f"{self.url} is shared without {document.get('op')!r}: open it where it runs")
        if self.writer is not None and self.writer is not client:
            raise Refusal("busy", f"{self.writer.name} holds the right to write, and grants the time")
        answer = self._present().advance(document["cycles"])
        self._push_windows()
        return answer

    def _present(self) -> Transport:
        """The device, opened again if it was gone; raises `LinkError`."""
        if self._device is None:
            wait = self._attempt + _BETWEEN_ATTEMPTS - time.monotonic()
            if wait > 0:
                raise LinkTimeout(f"{self.url} is gone; the server will look for it again", outcome="not applied")
            self._attempt = time.monotonic()
            try:
                device = self._connect()
                self._identity = _identity(device)
            except MorphnicError as error:
                raise LinkTimeout(f"{self.url} is gone: {error}", outcome="not applied") from error
            log.warning("%s is there again", self.url)
            self._device = device
            self._wait_for(device)
            self._note_reset(self._identity["boot_nonce"])
        return self._device

    def _check(self, error: LinkError) -> None:
        """After an error: is the device still there, and is it the same run of it?"""
        if self._device is None:
            return
        self._wait_for(None)  # what was waited for may be closed by now, and its number another's
        try:
            nonce = int(self._device.read(register_map().register("id.boot_nonce").address)[0])
        except LinkError as second:
            log.warning("%s is gone: %s; then %s", self.url, error, second)
            self._device.close()
            self._device = None
            self._attempt = time.monotonic() - _BETWEEN_ATTEMPTS
            return
        self._wait_for(self._device)
        self._note_reset(nonce)

    def _note_reset(self, nonce: int) -> None:
        if nonce != self.boot_nonce:
            log.warning("%s was reset", self.url)
            self.reset(nonce)

    def _push_windows(self) -> None:
        if self._device is None or Capability.WINDOWS not in self._device.capabilities:
            return
        try:
            for window in self._device.windows():
                self.push(WindowPush(window.encode()).encode())
        except LinkError as error:
            self._check(error)

    def _wait_for(self, device: Transport | None) -> None:
        """Wake up when `device` pushes windows."""
        if self._waited_for is not None:
            self.selector.unregister(self._waited_for)
        self._waited_for = device.fileno() if device is not None else None
        if self._waited_for is not None:
            self.selector.register(self._waited_for, selectors.EVENT_READ, lambda: None)  # `run` takes them


def _identity(device: Transport) -> dict[str, int]:
    """What tells a device and its build apart."""
    found = dict(zip(_IDENTITY, device.read_many(register_map().register(f"id.{name}").address for name in _IDENTITY),
                     strict=True))
    if found["magic"] != MAGIC:
        device.close()
        raise RegisterMapMismatch(f"{device.url}: what answers is no Morphnic device (magic {found['magic']:#010x}): "
                                  "check the URL")
    return {"map_hash": found["map_hash"], "boot_nonce": found["boot_nonce"],
            "build_id": found["build_id_lo"] | found["build_id_hi"] << 32,
            "uid": found["uid_lo"] | found["uid_hi"] << 32}


__all__ = ["DeviceServer"]
