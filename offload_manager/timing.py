"""Device time for the loop: windows as they come or as they are granted, and the charge for a decision."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from device_link import Capability, Device
from morphnic.errors import InputError, LinkError, UnsupportedCapability
from offload_manager.window import Window, window_end

_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_MAX_LATENCY = 1.0


@dataclass(frozen=True, slots=True)
class DecisionLatency:
    """What every commit is charged in device time: a fixed time, or what the decision really took."""

    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> DecisionLatency:
        """"0", "50us", "5ms", or "measured"."""
        if text == "measured":
            return cls(None)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|ms|us|ns|)", text)
        if match is None or (match[2] == "" and float(match[1]) != 0):
            raise InputError(f"decision latency must be a time such as 50us or 5ms, 0, or measured, not {text!r}")
        seconds = float(match[1]) * _UNITS[match[2]]
        if seconds > _MAX_LATENCY:
            raise InputError(f"decision latency must be at most {_MAX_LATENCY:g} s, not {text!r}")
        return cls(seconds)

    def cycles(self, clock_hz: int, wall_ns: int) -> int:
        """The charge; `wall_ns` is what the decision took on this machine."""
        seconds = wall_ns / 1e9 if self.seconds is None else self.seconds
        return round(seconds * clock_hz)

    def __str__(self) -> str:
        if self.seconds is None:
            return "measured"
        for unit in ("s", "ms", "us"):
            if self.seconds >= _UNITS[unit]:
                return f"{self.seconds / _UNITS[unit]:g}{unit}"
        return "0" if self.seconds == 0 else f"{self.seconds * 1e9:g}ns"


class DeviceTime:
    """The windows of one device, in order, each once.

    Where the transport grants time, the device runs up to the end of its window and a little more (the push takes
    a few hundred cycles) only while the manager waits for that window. Otherwise windows arrive by themselves.
    """

    SLACK = 128
    #: Windows' worth of granted time without a window after which something is wrong.
    PATIENCE = 4

    def __init__(self, device: Device, window_cycles: int) -> None:
        if not 1024 <= window_cycles < 1 << 32:
            raise ValueError(f"window_cycles must be in 1024..{(1 << 32) - 1}, not {window_cycles!r}")
        if Capability.WINDOWS not in device.capabilities:
            raise UnsupportedCapability(f"{device.url} pushes no windows, which the control loop needs")
        self.device = device
        self.window_cycles = window_cycles
        self.grants = Capability.TIME_GRANTS in device.capabilities
        self._queue: deque[Window] = deque()
        self._boundary: int | None = None
        self._longest = window_cycles  # of a window that may still run

    def start(self) -> None:
        """Set the window's length and ask for pushes where they are pushed; drop windows of before."""
        device = self.device
        # A new length takes effect at the next boundary: the window that runs may be much longer, and what it was set
        # to may have been overwritten since, by a manager that did not live to see its end.
        self._longest = max(self.window_cycles, int(device.analyzer.running.read()))
        device.write([(device.analyzer.window, self.window_cycles),
                      *((device.register(name), 1) for name in device.transport.window_switches)])
        device.windows(0)
        self._queue.clear()

    def next(self, timeout: float) -> Window | None:
        """The next window; None when none came within `timeout` seconds (only where time is not granted)."""
        if not self._queue:
            self._queue.extend(self._grant() if self.grants else self.device.windows(timeout))
        if not self._queue:
            return None
        window = self._queue.popleft()
        self._boundary = window_end(window) + self.window_cycles
        return window

    @property
    def waiting(self) -> int:
        """Windows that arrived and were not taken yet."""
        return len(self._queue)

    def poll(self) -> None:
        """Take in what arrived meanwhile, without waiting."""
        self._queue.extend(self.device.windows(0))

    def charge(self, cycles: int) -> int:
        """Let the device run on while a decision is (modelled to be) made; the cycles charged.

        A device that runs by itself has run on already.
        """
        if not self.grants or cycles <= 0:
            return 0
        self.device.advance(cycles)
        return cycles

    def _grant(self) -> list[Window]:
        """Grant up to the end of the window that runs, then a little at a time until it has been pushed."""
        left = patience = self.PATIENCE * self._longest
        while left > 0:
            windows = self.device.windows(0)
            if windows:
                self._longest = self.window_cycles
                return windows
            now = self.device.cycle()
            ahead = self._boundary - now if self._boundary is not None and self._boundary > now else self.SLACK
            if self._boundary is None:
                ahead = max(self.SLACK, self.window_cycles // 16)
            self.device.advance(min(ahead, left))
            left -= min(ahead, left)
        windows = self.device.windows(0)
        if not windows:
            raise LinkError(f"{self.device.url}: {patience} cycles were granted and no "
                            "window came: is analyzer.control.push set, or the device in reset?")
        return windows
