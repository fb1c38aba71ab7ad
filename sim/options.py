"""Options of a simulated device process, and how they come from a command line."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gateware.config import DeviceConfig
from morphnic.errors import InputError

DEFAULT_NAME = "sim0"
DEFAULT_PACE = 1_000_000


@dataclass(frozen=True)
class ServerOptions:
    """What one simulated device is.

    name: under which `sim://NAME` finds it. lockstep: time moves only when granted. pace: cycles a second of wall
    time when free-running, 0 as fast as it goes. seed: makes uid and boot nonce repeatable; None draws a nonce.
    pty: offer a virtual serial port. uart_bits: that port drives the device's pins bit by bit instead of the byte
    stream. top: MODULE:CLASS of another top level with the ports of `gateware.device.Device`.
    ready_fd: file descriptor that gets one line once the device answers. stop_on_eof: stop when stdin ends.
    """

    name: str = DEFAULT_NAME
    lockstep: bool = False
    pace: int = DEFAULT_PACE
    seed: int | None = None
    pty: bool = True
    uart_bits: bool = False
    config: DeviceConfig = field(default_factory=DeviceConfig)
    top: str | None = None
    ready_fd: int | None = None
    stop_on_eof: bool = False

    @property
    def uid(self) -> int:
        """Identity of the device: the same for the same name."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "little")

    def boot_nonce(self) -> int:
        """A number that another start does not have (with a seed: one that the same seed repeats)."""
        if self.seed is None:
            return int.from_bytes(os.urandom(4), "little")
        return int.from_bytes(hashlib.sha256(f"{self.name}:{self.seed}".encode()).digest()[:4], "little")

    def component(self) -> Callable[[], Any] | None:
        """What makes the top level; None for the device itself."""
        if self.top is None:
            return None
        module, _, name = self.top.partition(":")
        try:
            made = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InputError(f"top must be MODULE:CLASS that can be imported, not {self.top!r} ({error})") from error
        return lambda: made(self.config)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser, here and in the command line `morphnic`."""
    parser.add_argument("--name", default=DEFAULT_NAME, help="found as sim://NAME (default %(default)s)")
    parser.add_argument("--mode", choices=["lockstep", "free"], default="free",
                        help="lockstep: device time moves only when granted; free: it runs (default)")
    parser.add_argument("--pace", type=int, default=DEFAULT_PACE, metavar="CYCLES",
                        help="free: cycles a second of wall time, 0 as fast as it goes (default %(default)s)")
    parser.add_argument("--seed", type=int, help="make identity and boot nonce repeatable")
    parser.add_argument("--no-pty", action="store_true", help="without a virtual serial port")
    parser.add_argument("--uart-bits", action="store_true",
                        help="serial port bit by bit at the pins (about 1 kB/s), not at the byte stream")
    parser.add_argument("--set", action="append", default=[], metavar="PARAMETER=VALUE", dest="parameters",
                        help="a parameter of the device: " + ", ".join(one.name for one in fields(DeviceConfig)))
    parser.add_argument("--top", help=argparse.SUPPRESS)
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--stop-on-eof", action="store_true", help=argparse.SUPPRESS)


def from_arguments(arguments: argparse.Namespace) -> ServerOptions:
    """Options from parsed arguments; raises `InputError` for a bad value."""
    if arguments.pace < 0:
        raise InputError(f"--pace must be at least 0, not {arguments.pace}")
    return ServerOptions(
        name=arguments.name, lockstep=arguments.mode == "lockstep", pace=arguments.pace, seed=arguments.seed,
        pty=not arguments.no_pty, uart_bits=arguments.uart_bits, config=parse_config(arguments.parameters),
        top=arguments.top, ready_fd=arguments.ready_fd, stop_on_eof=arguments.stop_on_eof)


def parse_config(parameters: Sequence[str], base: DeviceConfig | None = None) -> DeviceConfig:
    """A configuration from `PARAMETER=VALUE` texts; what they leave out is as in `base` (the defaults without one).

    A value is a number; of `scope_probes`, names separated by commas.
    """
    base = base or DeviceConfig()
    known = {one.name for one in fields(DeviceConfig)}
    values: dict[str, Any] = {}
    for text in parameters:
        name, _, value = text.partition("=")
        if name in known and isinstance(getattr(base, name), tuple):
            values[name] = tuple(value.split(",")) if value else ()
            continue
        if name not in known:
            raise InputError(f"--set must be PARAMETER=NUMBER with a parameter of {', '.join(sorted(known))}, "
                             f"not {text!r}")
        if not value.isdigit():
            raise InputError(f"--set must be PARAMETER=NUMBER: {name} must be a number, such as "
                             f"{int(getattr(base, name))}, not {value!r}")
        # A switch takes 0 and 1; any other number is refused by the configuration.
        switch = isinstance(getattr(base, name), bool) and value in ("0", "1")
        values[name] = value == "1" if switch else int(value)
    try:
        return replace(base, **values)
    except ValueError as error:
        raise InputError(f"--set: {error}") from error


def parameters_of(config: DeviceConfig) -> list[str]:
    """The texts from which `parse_config` makes `config`."""
    values = {one.name: getattr(config, one.name) for one in fields(DeviceConfig)}
    return [f"{name}={','.join(value) if isinstance(value, tuple) else int(value)}" for name, value in values.items()]
