"""Which device a command means, and how it is opened: the one on the command line, in the settings, or the only one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from morphnic.errors import DeviceBusy, DeviceNotFound
from morphnic.program import Context

if TYPE_CHECKING:
    from device_link import Candidate, Device

__all__ = ["add_device_flag", "choose", "distinct", "explained", "open_device"]

FORMS = "uart:///dev/ttyUSB0, sim://NAME or replay://FILE"


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """The flag of every command that opens a device."""
    parser.add_argument("--device", metavar="URL", help=f"{FORMS}; without it the only one that is found")


def distinct(candidates: list[Candidate]) -> list[Candidate]:
    """One candidate a device: a simulated device's serial port is another way to the same one."""
    return [one for one in candidates if not (one.kind == "simulated" and one.url.startswith("uart://"))]


def choose(context: Context) -> str:
    """URL of the device that is meant."""
    if context.settings.device is not None:
        return context.settings.device
    from device_link import discover

    found = distinct(discover())
    if not found:
        raise DeviceNotFound(
            "no device is found: start a simulated one with `morphnic sim run`, plug a board in, or name the "
            f"device with --device ({FORMS})"
        )
    if len(found) > 1:
        listed = ", ".join(one.url for one in found)
        raise DeviceNotFound(f"there are several devices: {listed}; name one with --device")
    return found[0].url


def open_device(context: Context, *, writer: bool = False) -> Device:
    """The device, its register map checked; `writer` takes the right to change it."""
    import device_link

    with explained():
        return device_link.open(choose(context), writer=writer)


@contextmanager
def explained() -> Iterator[None]:
    """Add to a device that is held by another what a user can do about it."""
    try:
        yield
    except DeviceBusy as error:
        raise DeviceBusy(
            f"{error}; while an offload manager holds the device, changes go through it: "
            "`host-agent request`, or stop the manager first"
        ) from error
