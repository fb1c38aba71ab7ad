"""Which device a command means, and how it is opened: the one on the command line, in the settings, or the only one.

A device is named by its URL, by an alias of the settings, or by what `morphnic list` shows of it: the name of a
simulated device or a server, a serial number, a port. What matches several is refused with the candidates.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from morphnic.errors import DeviceBusy, DeviceNotFound, InputError
from morphnic.program import Context

if TYPE_CHECKING:
    from device_link import Candidate, Device

__all__ = ["add_device_flag", "choose", "distinct", "explained", "open_device", "resolve"]

FORMS = "uart:///dev/ttyUSB0, pcie://0000:03:00.0, sim://NAME, tcp://HOST:PORT, unix:///PATH or replay://FILE"


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """The flag of every command that opens a device."""
    parser.add_argument("--device", metavar="DEVICE",
                        help=f"{FORMS}; an alias; a name or serial number of `morphnic list`; without it the only "
                             "device that is found")


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One candidate a device: other ports of a simulated device, and what a server holds, are reached another way."""
    served = {_place(one.serves) for one in candidates if one.serves}
    return [one for one in candidates
            if not (one.kind == "simulated" and not one.url.startswith("sim://")) and _place(one.url) not in served]


def _place(url: str) -> str:
    return url.partition("?")[0]


def choose(context: Context) -> str:
    """URL of the device that is meant."""
    from device_link import discover

    if context.settings.device is not None:
        return resolve(context.settings.device, context.settings.aliases)
    found = distinct(discover())
    if not found:
        raise DeviceNotFound(
            "no device is found: start a simulated one with `morphnic sim run`, plug a board in, or name the "
            f"device with --device ({FORMS})"
        )
    if len(found) > 1:
        raise DeviceNotFound(f"there are several devices: {listed(found)}; name one with --device")
    return found[0].url


def resolve(text: str, aliases: Mapping[str, str]) -> str:
    """URL of the device called `text`; options may follow a name as they follow a URL (`bench?baud=3000000`)."""
    from device_link import discover

    name, question, options = text.partition("?")
    if name in aliases:
        text = aliases[name] + (("&" if "?" in aliases[name] else "?") + options if question else "")
        name, question, options = text.partition("?")
        if name in aliases:
            raise InputError(f"the alias for {text!r} names another alias: give the device's URL in the settings")
    if "://" in text:
        return text
    found = discover()
    matching = [one for one in found if name in one.names] or distinct(
        [one for one in found if name and any(name.lower() in part.lower() for part in (one.url, *one.names))])
    if len(matching) == 1:
        return matching[0].url + question + options
    if matching:
        raise DeviceNotFound(f"{name!r} means several devices: {listed(matching)}; name one by its URL")
    known = ", ".join([*aliases, *(one.url for one in found)]) or "none"
    raise DeviceNotFound(f"no device is called {name!r} (aliases and devices found: {known}); give its URL: {FORMS}")


def listed(candidates: Sequence[Candidate]) -> str:
    """Candidates in an error."""
    return ", ".join(one.url + (f" (serial number {one.serial_number})" if one.serial_number else "")
                     for one in candidates)


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
