"""The link alone on a serial line, bit by bit or byte by byte, in device time, at millions of cycles a second.

The gateware of serial port and bridge, with memory where the registers would be (`gateware.bridge.alone`): for benches
and tests of the line itself, where a whole device would be slow. The same seed and calls give the same bytes. At the
byte streams an idle link's time passes without being simulated: waiting for what was lost costs nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from device_link.pipe import ByteChannel, FramedPipe
from gateware.config import DeviceConfig

from .build import Harness, Port, Progress, build, cached_verilog, print_progress, to_verilog

_ROOT = Path(__file__).parent.parent
_SOURCES = (*(_ROOT / "sim" / "line" / name for name in ("line.cpp", "faults.hpp")),
            _ROOT / "sim" / "board" / "serial.hpp")
#: Kinds of faults in a byte: one bit, another byte, lost, one more before it, twice, a frame's end before it, up to 64
#: lost, its whole frame twice.
FAULTS = ("flip", "replace", "lose", "insert", "duplicate", "zero", "cut", "repeat")
_BITS = 10  # 8N1
#: Cycles without a byte after which a link on its byte streams is idle: its longest work in silence takes 1,500.
IDLE_CYCLES = 2_048
_BREAK_SECONDS = 0.002


class Line(ByteChannel):
    """A host's serial port in device time.

    baud: the host's; the device begins at that of `config`. turnaround: seconds from the arrival of the
    first byte that waits until the host sees all that came. byte_cycles: at the byte streams behind the pins, a byte
    each so many cycles and way; there `baud` means nothing.
    """

    def __init__(self, config: DeviceConfig, *, baud: int | None = None, turnaround: float = 0.0, seed: int = 1,
                 byte_cycles: int = 0, progress: Progress = print_progress) -> None:
        self._library = _library(config, progress)
        self._line = ctypes.c_void_p(self._library.line_new(seed, byte_cycles))
        self.hz: int = config.clock_hz
        self._byte_cycles = byte_cycles
        self._library.line_idle(self._line, IDLE_CYCLES if byte_cycles else 0)
        self.turnaround: float = turnaround
        self._visible: int | None = None  # cycle in which the host sees the bytes that wait
        self.set_baud(config.uart_baud if baud is None else baud)

    def set_baud(self, baud: int) -> None:
        """Change the host's rate."""
        self.baud: int = baud
        self._library.line_rate(self._line, round(8 * self.hz / baud))

    @property
    def bytes_per_second(self) -> float:
        """Rate of the line."""
        return self.hz / self._byte_cycles if self._byte_cycles else self.baud / _BITS

    @property
    def cycle(self) -> int:
        """Cycles since reset."""
        return int(self._library.line_cycle(self._line))

    @property
    def seconds(self) -> float:
        """Device time."""
        return self.cycle / self.hz

    @property
    def last_byte(self) -> float:
        """Device time at which the last byte from the device was there."""
        return int(self._library.line_last_byte(self._line)) / self.hz

    @property
    def noises(self) -> int:
        """How often the line was disturbed."""
        return int(self._library.line_noises(self._line))

    def noise(self, rate: int, longest: int) -> None:
        """Invert each direction about once in `rate` cycles (0: never) for up to `longest` cycles."""
        self._library.line_noise(self._line, rate, longest)

    def faults(self, every: int) -> None:
        """A fault in about one of `every` bytes of each direction (0: none); at the byte streams only."""
        self._library.line_faults(self._line, every)

    def cut(self, seconds: float) -> None:
        """Nothing arrives at either end for `seconds`."""
        self._library.line_cut(self._line, round(seconds * self.hz))

    def simulate_idle(self) -> None:
        """Simulate every cycle, those of an idle link too."""
        self._library.line_idle(self._line, 0)

    @property
    def skipped(self) -> int:
        """Cycles of an idle link that passed without being simulated."""
        return int(self._library.line_skipped(self._line))

    @property
    def counts(self) -> tuple[int, int, dict[str, int]]:
        """Frames given to the line, frames that a fault hit, and faults of each kind."""
        found = (ctypes.c_uint64 * (2 + len(FAULTS)))()
        self._library.line_counts(self._line, found)
        return found[0], found[1], dict(zip(FAULTS, found[2:], strict=True))

    def applied(self) -> list[tuple[int, int]]:
        """Writes that the device's registers took since the last call: byte address and word, in order."""
        count = self._library.line_applied(self._line)
        words = (ctypes.c_uint32 * (2 * count))()
        self._library.line_take_applied(self._line, words)
        return [(4 * words[place], words[place + 1]) for place in range(0, 2 * count, 2)]

    def windows(self, words: int, every: int, count: int = 2**64 - 1) -> None:
        """The analyzer has a window of `words` words every `every` cycles from now on, `count` times."""
        self._library.line_windows(self._line, words, every, count)

    def run(self, cycles: int) -> None:
        """Let `cycles` pass; what arrives waits."""
        self._library.line_run(self._line, cycles, False)

    def write(self, data: bytes) -> None:
        """Queue bytes for the device; the line takes its time."""
        self._library.line_write(self._line, data, len(data))

    def read(self, timeout: float) -> bytes:
        """Let time pass until bytes came a turnaround ago, and take what is there then; nothing after `timeout`."""
        until = self.cycle + max(round(timeout * self.hz), 1)
        if self._visible is None:
            if not self._library.line_run(self._line, until - self.cycle, True):
                return b""
            self._visible = self.cycle + round(self.turnaround * self.hz)
        waiting = self._library.line_run(self._line, max(0, min(until, self._visible) - self.cycle), False)
        if self.cycle < self._visible:
            return b""
        self._visible = None
        data = ctypes.create_string_buffer(waiting)
        self._library.line_read(self._line, data)
        return data.raw

    def greet(self) -> None:
        """Send the break and 0x55 by which the device learns the host's rate."""
        if not self._byte_cycles:
            self._library.line_break(self._line, round(_BREAK_SECONDS * self.hz))
        self.write(b"\x55")

    def close(self) -> None:
        """Free the model."""
        if self._line:
            self._library.line_free(self._line)
            self._line = ctypes.c_void_p()


class LinePipe(FramedPipe):
    """Frames over a `Line`, whose clock is the device's."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._line = line

    def now(self) -> float:
        """Device time."""
        return self._line.seconds


def _bindings(ports: Sequence[Port]) -> str:
    members = {port.name: port.member for port in ports}
    pins = ("uart_rx", "uart_tx", "uart_pins", "link_rx__valid", "link_rx__ready", "link_rx__payload", "link_tx__valid",
            "link_tx__ready", "link_tx__payload", "telemetry__valid", "telemetry__payload", "applied",
            "applied_address", "applied_data")
    lines = ["#pragma once", *(f"#define LINE_PIN_{pin} t.{members[pin]}" for pin in pins),
             "#define LINE_PIN(name) LINE_PIN_##name"]
    return "\n".join(lines) + "\n"


@cache
def _library(config: DeviceConfig, progress: Progress) -> ctypes.CDLL:
    def elaborate() -> str:
        from gateware.bridge.alone import LinkAlone

        return to_verilog(LinkAlone(config))

    sources = [*(_ROOT / "gateware" / name for name in ("config.py",)),
               *(path for part in ("bridge", "csr", "stream") for path in (_ROOT / "gateware" / part).glob("*.py")),
               *(_ROOT / "rtl" / "registers").glob("*.rdl")]
    verilog = cached_verilog(["link alone", config.digest()], sources, elaborate, progress, what="the link")
    harness = Harness("line", _SOURCES, lambda ports: {"line_ports.h": _bindings(ports)},
                      version=Path(__file__).read_text())
    library = ctypes.CDLL(str(build(verilog, harness, progress=progress, what="the link").library))
    library.line_new.restype = ctypes.c_void_p
    library.line_new.argtypes = [ctypes.c_uint64, ctypes.c_uint32]
    for name in ("cycle", "last_byte", "noises", "skipped"):
        getattr(library, f"line_{name}").restype = ctypes.c_uint64
    library.line_run.restype = ctypes.c_size_t
    library.line_run.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32]
    library.line_windows.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64]
    library.line_noise.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
    library.line_applied.restype = ctypes.c_size_t
    for name in ("faults", "cut", "idle"):
        getattr(library, f"line_{name}").argtypes = [ctypes.c_void_p, ctypes.c_uint64]
    library.line_write.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    return library
