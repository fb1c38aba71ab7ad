"""The daemon: collect each interval, keep the baseline, report to the manager; go on when the manager is away.

Nothing of the host stops when the manager does: figures are collected and the baseline grows; reports are tried
again after 1, 2, 4 ... 30 s. A report that could not be sent is dropped, not queued: an old pressure is worse
than none; its sequence number is spent, so that the manager sees the gap.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from host_agent import baseline as baselines
from host_agent.client import ManagerAway, ManagerClient
from host_agent.collect.collector import Collector, Sample
from host_agent.report import baseline_report, identity, report
from morphnic import log as logs
from morphnic.errors import DeviceBusy, EnvironmentFault, MorphnicError
from morphnic.files import replace_text
from morphnic.settings import AgentSettings, run_directory

__all__ = ["Backoff", "Daemon", "single_instance"]

READY = "host-agent.json"
LOCK = "host-agent.lock"

log = logging.getLogger(__name__)


@dataclass
class Backoff:
    """When to try again: 1, 2, 4 ... `longest` seconds after a failure; at once after a success."""

    longest: float = 30.0
    delay: float = 0.0
    not_before: float = 0.0

    def due(self, now: float) -> bool:
        """Whether it is time to try."""
        return now >= self.not_before

    def failed(self, now: float) -> None:
        """Wait twice as long as the last time."""
        self.delay = min(self.longest, max(1.0, 2 * self.delay))
        self.not_before = now + self.delay

    def succeeded(self) -> None:
        """Try at once from now on."""
        self.delay = self.not_before = 0.0


class Daemon:
    """One agent. `wait(seconds)` pauses and is true when the agent shall stop; `now` is the monotonic clock."""

    def __init__(
        self, settings: AgentSettings, collector: Collector, client: ManagerClient, *,
        wait: Callable[[float], bool], now: Callable[[], float] = time.monotonic,
        host: str | None = None,
    ) -> None:
        self._settings = settings
        self._collector = collector
        self._client = client
        self._wait = wait
        self._now = now
        self._host = host or socket.gethostname() or "localhost"
        self._backoff = Backoff()
        self._sequence = 0
        self._connected: bool | None = None
        self._unseen: dict[int, str] = {}
        self._baseline = baselines.resume(
            settings.state_directory, settings.baseline_intervals,
            identity(collector.tenants, settings.interval),
        )

    @property
    def baseline(self) -> baselines.Baseline:
        """The baseline as it stands."""
        return self._baseline

    def run(self, *, once: bool = False, ready: Callable[[], None] | None = None) -> None:
        """Collect and report until told to stop; `once`: one interval, whose failure to report is raised."""
        self._collector.sample()
        if ready is not None:
            ready()
        due = self._now() + self._settings.interval
        while not self._wait(max(0.0, due - self._now())):
            sample = self._collector.sample()
            assert sample is not None
            self._take(sample)
            if once:
                self._send(sample)
                return
            self._try_to_send(sample)
            # After a long pause (a suspended machine) the missed intervals are not made up for.
            due = max(due + self._settings.interval, self._now())

    def _take(self, sample: Sample) -> None:
        """Into the baseline, and say which tenants cannot be reported."""
        was_complete = self._baseline.complete
        self._baseline.add(sample)
        if self._baseline.complete and not was_complete:
            path = self._baseline.save(self._settings.state_directory)
            log.info("the baseline of %d intervals is complete: %s", self._baseline.intervals, path)
            self._connected = None if self._connected is None else False  # announce it with the next report
        for tenant, figures in sample.tenants.items():
            reasons = [figures[name].reason for name in ("cpu_pressure", "memory_pressure")
                       if figures[name].value is None]
            reason = "; ".join(dict.fromkeys(reasons))
            if reason and self._unseen.get(tenant) != reason:
                log.warning("tenant %d is not reported: %s", tenant, reason)
            self._unseen[tenant] = reason

    def _try_to_send(self, sample: Sample) -> None:
        if not self._backoff.due(self._now()):
            self._sequence += 1
            return
        try:
            self._send(sample)
        except MorphnicError as error:
            self._backoff.failed(self._now())
            away = isinstance(error, ManagerAway)
            if not away or self._connected is not False:
                log.warning("%s; collecting goes on, next try in %g s", error, self._backoff.delay)
            self._connected = False
        else:
            self._backoff.succeeded()

    def _send(self, sample: Sample) -> None:
        if self._connected is not True and self._baseline.complete:
            self._client.report(
                baseline_report(self._host, self._next(), self._settings.interval, self._baseline))
        accepted = self._client.report(report(self._host, self._next(), sample))
        with logs.window(accepted.window):
            if self._connected is not True:
                log.info("reporting to the manager at %s", self._client.url)
            if accepted.ignored:
                log.debug("the device has no tenant %s", accepted.ignored)
        self._connected = True

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence - 1


@contextmanager
def single_instance() -> Iterator[Callable[[], None]]:
    """Hold the agent's lock in the run directory; what it gives writes the ready file, removed at the end."""
    folder = run_directory()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFault(
            f"the run directory {folder} cannot be used ({error.strerror}); "
            "set XDG_RUNTIME_DIR to a folder of your own"
        ) from error
    ready = folder / READY
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeviceBusy(f"a host agent runs already ({_holder(ready)}); stop it first, or use "
                             "another XDG_RUNTIME_DIR") from None
        yield lambda: _publish(ready)
    finally:
        if _holder(ready) == f"process {os.getpid()}":
            ready.unlink(missing_ok=True)
        os.close(handle)


def _publish(path: Path) -> None:
    replace_text(path, json.dumps({"schema": "1.0", "pid": os.getpid()}) + "\n")


def _holder(ready: Path) -> str:
    try:
        return f"process {int(json.loads(ready.read_text(encoding='utf-8'))['pid'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its process is starting"
