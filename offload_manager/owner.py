"""The thread that owns the device: it runs the loop, and carries out between two windows what the service asks.

Transports are synchronous and belong to one thread; the web service awaits that thread (`call`). What a reader needs
is in `snapshot`, replaced as a whole after every step, so that reading never waits for the device. When the link
breaks the owner says so, tries again with growing pauses, and reconciles as after a start.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from device_link import Device, Identity
from morphnic.errors import AllocationRefused, EnvironmentFault, LinkError, LinkTimeout, MorphnicError
from offload_manager.allocation import Allocation, Limits
from offload_manager.api import (
    AllocationView,
    DeviceInfo,
    HostPressure,
    LoopState,
    LoopStatus,
    TenantView,
    WindowReport,
)
from offload_manager.events import EventHub
from offload_manager.loop import ControlLoop, LoopSettings, StepResult
from offload_manager.policy import WindowView
from offload_manager.policy_file import PolicySource
from offload_manager.profile import Profile
from offload_manager.report import allocation_view, tenant_view, window_report
from offload_manager.settings import ManagerSettings
from offload_manager.store import Store
from offload_manager.window import window_end

log = logging.getLogger(__name__)

Result = TypeVar("Result")
STEP_TIMEOUT = 0.2
START_TIMEOUT = 300.0  # some thousand registers, each of which may take milliseconds
RETRY_FIRST, RETRY_LAST = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What readers see between two steps: parts that nobody changes; documents are made when they are asked for."""

    url: str
    identity: Identity
    limits: Limits
    loop: LoopStatus
    active: Allocation
    tag: int
    profiles: tuple[Profile, ...]
    host: Mapping[int, HostPressure]
    view: WindowView | None

    def device(self) -> DeviceInfo:
        """The device as it describes itself."""
        identity, config = self.identity, self.identity.config
        return DeviceInfo(
            url=self.url, uid=f"{identity.uid:016x}", boot_nonce=identity.boot_nonce,
            build_id=f"{identity.build_id:016x}", map_hash=f"{identity.map_hash:08x}", ports=config.ports,
            data_width=config.data_width, tenants=config.tenants, slots=config.slots, pages=config.pages,
            clock_hz=identity.clock_hz, cycle=window_end(self.view.window) if self.view else 0)

    def allocation(self) -> AllocationView:
        """The table in force."""
        return allocation_view(self.active, self.tag, awaiting=self.loop.awaiting_confirmation)

    def tenant(self, tenant: int) -> TenantView:
        """One tenant."""
        view = self.view
        return tenant_view(tenant, self.profiles[tenant], self.active, self.limits, view.window if view else None,
                           view.analysis if view else None, view.forecast if view else None, self.host.get(tenant))

    def window(self) -> WindowReport | None:
        """The newest window."""
        return window_report(self.view.window, self.view.analysis, self.limits) if self.view else None


class DeviceOwner:
    """Owns one device. `open_device` is called in the owner's thread, again after the link broke."""

    def __init__(self, settings: ManagerSettings, store: Store, open_device: Callable[[], Device],
                 hub: EventHub) -> None:
        self.settings, self.store, self.hub = settings, store, hub
        self.snapshot: Snapshot | None = None
        self.failure: str | None = None
        self.source: PolicySource | None = None
        self._open_device = open_device
        self._work: queue.SimpleQueue[Callable[[ControlLoop | None], None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._first: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="device-owner", daemon=True)
        self._paused = settings.paused
        self._deposed = False

    # --- from other threads ---

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start the thread and wait until the device is ours; what prevents that is raised here."""
        self._thread.start()
        try:
            self._first.result(timeout)
        except TimeoutError:
            raise LinkTimeout(f"{self.settings.device} was not taken within {timeout:g} s: its link is too slow, or "
                              "the device does not come to an end with what it was asked for") from None

    def stop(self) -> None:
        """End the thread after the step under way."""
        self._stop.set()
        self._work.put(lambda loop: None)
        if self._thread.is_alive():
            self._thread.join(30.0)

    def call(self, function: Callable[[ControlLoop], Result]) -> Future[Result]:
        """Have `function` called with the loop in the owner's thread."""
        future: Future[Result] = Future()

        def work(loop: ControlLoop | None) -> None:
            if not future.set_running_or_notify_cancel():
                return
            if loop is None:
                future.set_exception(LinkError(self.failure or "the device does not answer"))
                return
            try:
                result = function(loop)
                # Whoever asked sees what it changed in the next document that it reads.
                self._take_snapshot(loop, loop.device)
                future.set_result(result)
            except MorphnicError as error:
                future.set_exception(error)
                if deposed(error):
                    raise
            except BaseException as error:
                future.set_exception(error)
                raise

        self._work.put(work)
        return future

    # --- the owner's thread ---

    def _run(self) -> None:
        pause = RETRY_FIRST
        while not self._stop.is_set():
            try:
                with self._open_device() as device:
                    self._own(device)
                    pause = RETRY_FIRST
            except MorphnicError as error:
                if not self._first.done():
                    self._first.set_exception(error)
                    return
                self._fail(error)
            except Exception as error:
                # A fault of the program: the thread ends, and the service says so instead of hanging.
                self._fail(error)
                if not self._first.done():
                    self._first.set_exception(error)
                log.exception("the owner of the device ends")
                self._drain(None)
                raise
            self._wait(pause)
            pause = min(RETRY_LAST, pause * 2)
        self._drain(None)

    def _own(self, device: Device) -> None:
        """From claim to the end of the link (or of the manager)."""
        loop = self._make_loop(device)
        loop.paused = self._paused
        found = loop.start()
        if found.rolled_back:
            log.warning("a table that nobody confirmed was rolled back")
        self.failure = None
        self._deposed = False
        self._take_snapshot(loop, device)
        if not self._first.done():
            self._first.set_result(None)
        while not self._stop.is_set():
            self._drain(loop)
            result = loop.step(STEP_TIMEOUT)
            self._paused = loop.paused
            self._take_snapshot(loop, device)
            if result is not None:
                self._publish(result)

    def _make_loop(self, device: Device) -> ControlLoop:
        settings = self.settings
        limits = Limits.of(device.identity.config, settings.packet_pages)
        if self.source is None:
            self.source = PolicySource(limits, settings.policy)
        return ControlLoop(device, self.source, self.store, LoopSettings(
            decision_latency=settings.decision_latency, window_cycles=settings.window_cycles,
            drain_cycles=settings.window_cycles, packet_pages=settings.packet_pages,
            token=secrets.randbelow((1 << 32) - 1) + 1))

    def _fail(self, error: Exception) -> None:
        """Remember why; a deposed manager must not come back by itself and depose the other."""
        self._deposed = deposed(error)
        self.failure = str(error)
        log.error("%s", error)
        if self.snapshot is not None:
            status = self.snapshot.loop.model_copy(update={"state": LoopState.FAILED, "detail": self.failure})
            self.hub.publish("loop", status.window, {"loop": status})

    def _wait(self, seconds: float) -> None:
        """Answer callers that there is no device, until it is time to try again."""
        if self._deposed:
            seconds = float("inf")
        step = 0.1
        while seconds > 0 and not self._stop.wait(min(step, seconds)):
            self._drain(None)
            seconds -= step

    def _drain(self, loop: ControlLoop | None) -> None:
        while True:
            try:
                work = self._work.get_nowait()
            except queue.Empty:
                return
            work(loop)

    # --- what others see ---

    def _take_snapshot(self, loop: ControlLoop, device: Device) -> None:
        self.snapshot = Snapshot(
            url=device.url, identity=device.identity, limits=loop.limits, loop=self.status(loop), active=loop.active,
            tag=loop.tag, profiles=loop.profiles, host=loop.host_figures(), view=loop.latest)

    def status(self, loop: ControlLoop) -> LoopStatus:
        """The loop's state, as a document."""
        return LoopStatus(
            state=loop.state, window=loop.latest.window.number if loop.latest else None,
            policy=loop.source.current.spec.name, decision_latency=str(self.settings.decision_latency),
            commits=loop.commits, rollbacks=loop.rollbacks, refusals=loop.refusals,
            awaiting_confirmation=loop.awaiting, detail=loop.source.error or "")

    def _publish(self, result: StepResult) -> None:
        snapshot, number = self.snapshot, result.window.number
        if snapshot is None or not self.hub.has_listeners:
            return
        self.hub.publish("window", number, {"report": snapshot.window()})
        if result.decision is not None:
            self.hub.publish("decision", number, {"decision": result.decision})

    def require_snapshot(self) -> Snapshot:
        """The snapshot of a device that answers; `LinkError` otherwise."""
        if self.failure is not None:
            raise LinkError(self.failure)
        if self.snapshot is None:
            raise EnvironmentFault("the manager has not started yet; try again")
        return self.snapshot


def deposed(error: Exception) -> bool:
    """Whether the error says that another manager owns the device now."""
    return isinstance(error, AllocationRefused) and error.reason == "stale token"
