"""Registers as they change."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from morphnic.errors import InputError
from morphnic.program import Context

from .access import dumped, read_where_allowed
from .output import entry, line
from .targets import Target, parse_block, parse_target

if TYPE_CHECKING:
    from device_link import Device
    from device_link.registers import RegisterMap


def check(arguments: argparse.Namespace, registers: RegisterMap) -> None:
    """What is wrong in the arguments is found before a device is opened."""
    if not arguments.every >= 0:
        raise InputError(f"--every must be at least 0, not {arguments.every}")
    if arguments.changes is not None and arguments.changes < 1:
        raise InputError(f"--changes must be at least 1, not {arguments.changes}")
    for text in arguments.registers:
        parse_block(text, registers) if is_block(text) else parse_target(text, registers)


def is_block(text: str) -> bool:
    """Whether a whole block is named."""
    return "." not in text and not text[:1].isdigit()


def watch(device: Device, context: Context, names: Sequence[str], *, interval: float, changes: int | None) -> None:
    """Print every register once, and then again whenever it has another value; the time is the device's."""
    targets: list[Target] = []
    for text in names:
        targets += dumped(device, [text]) if is_block(text) else [parse_target(text, device.map)]
    width = max(len(entry(target, None)["name"]) for target in targets)
    last: list[int | None] | None = None
    seen = 0
    while True:
        cycle, values = device.cycle(), read_where_allowed(device, targets)
        for place, (target, word) in enumerate(zip(targets, values, strict=True)):
            value = word if word is None else target.extract(word)
            if last is not None and last[place] == value:
                continue
            tell(context, entry(target, value), cycle, width)
            seen += last is not None
            if changes is not None and seen >= changes:
                return
        last = [word if word is None else target.extract(word) for target, word in zip(targets, values, strict=True)]
        time.sleep(interval)


def tell(context: Context, one: dict[str, Any], cycle: int, width: int) -> None:
    """One change."""
    if context.json:
        context.line("regs-watch", {"cycle": cycle, **one})
    else:
        print(f"{cycle:>14}  {line(one, width)}", flush=True)
