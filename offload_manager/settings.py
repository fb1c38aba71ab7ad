"""What the operator of a manager sets: the device, where it listens, where it remembers, how it is charged."""

from __future__ import annotations

import argparse
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from morphnic.errors import InputError
from morphnic.settings import state_directory
from offload_manager.timing import DecisionLatency

DEFAULT_LISTEN = "127.0.0.1:8642"
DEFAULT_DEVICE = "sim://"
DEFAULT_WINDOW_CYCLES = 100_000


@dataclass(frozen=True, slots=True)
class Listen:
    """An address on loopback, or a Unix socket. `port` 0 takes any free one."""

    host: str = "127.0.0.1"
    port: int = 8642
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Listen:
        """"HOST:PORT", "PORT" or "unix:PATH"."""
        if text.startswith("unix:"):
            if not text[5:]:
                raise InputError("listen must be HOST:PORT or unix:PATH, not 'unix:' without a path")
            return cls(path=Path(text[5:]))
        host, _, port = text.rpartition(":")
        host = (host or "127.0.0.1").strip("[]")
        if not port.isdigit() or int(port) > 65535:
            raise InputError(f"listen must be HOST:PORT (port 0 to 65535) or unix:PATH, not {text!r}")
        try:
            is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            is_loopback = False
        if not is_loopback:
            raise InputError(f"the manager has no authentication and listens on loopback only, not on {host}: use "
                             f"127.0.0.1:{port} or unix:PATH, and put a proxy that authenticates before it")
        return cls(host=host, port=int(port))

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """Everything that the command line of the manager sets."""

    device: str = DEFAULT_DEVICE
    listen: Listen = field(default_factory=Listen)
    store: Path | None = None
    policy: Path | None = None
    decision_latency: DecisionLatency = field(default_factory=lambda: DecisionLatency(None))
    window_cycles: int = DEFAULT_WINDOW_CYCLES
    packet_pages: int = 16
    ready_file: Path | None = None
    paused: bool = False

    @property
    def store_path(self) -> Path:
        """The store's file."""
        return self.store or state_directory() / "manager.db"


def add_arguments(parser: argparse.ArgumentParser, *, device: str | None = None) -> None:
    """Flags of the manager."""
    parser.add_argument("--device", metavar="URL", default=device or DEFAULT_DEVICE,
                        help="the device to own (default %(default)s)")
    parser.add_argument("--listen", metavar="HOST:PORT|unix:PATH", default=DEFAULT_LISTEN,
                        help="loopback address, or Unix socket, of the REST interface (default %(default)s)")
    parser.add_argument("--store", type=Path, metavar="FILE",
                        help="SQLite file of decisions and settings (default manager.db in the state directory)")
    parser.add_argument("--policy", type=Path, metavar="FILE",
                        help="policy file, read again when it changes (default: the one shipped)")
    parser.add_argument("--decision-latency", metavar="TIME", default="measured",
                        help="in lockstep, what every commit is charged in device time: 0, 50us, 5ms, measured "
                             "(default %(default)s)")
    parser.add_argument("--window", type=int, metavar="CYCLES", default=DEFAULT_WINDOW_CYCLES,
                        help="length of a window in device cycles (default %(default)s)")
    parser.add_argument("--largest-packet-pages", type=int, metavar="PAGES", default=16,
                        help="pages of 16 beats that the largest packet of any tenant takes (default %(default)s)")
    parser.add_argument("--paused", action="store_true", help="start with the loop paused")
    parser.add_argument("--ready-file", type=Path, metavar="FILE",
                        help="written (JSON: url, pid) once requests are answered, removed at the end")


def from_arguments(arguments: argparse.Namespace) -> ManagerSettings:
    """Settings of a parsed command line; `InputError` names the flag."""
    if not 1024 <= arguments.window < 1 << 32:
        raise InputError(f"--window must be in 1024..{(1 << 32) - 1} cycles, not {arguments.window}")
    if not 0 <= arguments.largest_packet_pages <= 16:
        raise InputError(f"--largest-packet-pages must be in 0..16, not {arguments.largest_packet_pages}")
    return ManagerSettings(
        device=arguments.device, listen=Listen.parse(arguments.listen), store=arguments.store,
        policy=arguments.policy, decision_latency=DecisionLatency.parse(arguments.decision_latency),
        window_cycles=arguments.window, packet_pages=arguments.largest_packet_pages,
        ready_file=arguments.ready_file, paused=arguments.paused)


