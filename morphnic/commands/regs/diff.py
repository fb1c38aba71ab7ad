"""Two devices, or dumps of them, register by register."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphnic.devices import explained, resolve
from morphnic.errors import InputError
from morphnic.program import SCHEMA, Context

from .access import dumped, read_where_allowed
from .output import entry
from .targets import parse_block

if TYPE_CHECKING:
    from device_link.registers import RegisterMap

ABSENT = "absent"


def run_diff(context: Context, words: Sequence[str], ignored: Sequence[str], registers: RegisterMap) -> int:
    """Print what differs; 0 when nothing does, 1 otherwise."""
    if len(words) < 2:
        raise InputError("name two devices, or files of `morphnic regs dump --json`: "
                         f"`{context.prog} diff A B [BLOCK ...]`")
    blocks = words[2:]
    for text in blocks:
        parse_block(text, registers)
    for text in ignored:
        registers.register(text) if "." in text else registers.block(text)
    # Files first: what is wrong with them is found before a device is opened.
    files = {text: load_dump(Path(text)) for text in words[:2] if Path(text).is_file()}
    for text in words[:2]:
        if text not in files and Path(text).suffix == ".json" and "://" not in text:
            raise InputError(f"there is no file {text}: make a dump with `{context.prog} dump --json > {text}`")
    left, right = ({name: one for name, one in (files.get(text) or read_device(context, text, blocks)).items()
                    if not blocks or within(name, blocks)} for text in words[:2])
    found = [(name, left.get(name), right.get(name)) for name in {**left, **right}
             if changed(left.get(name), right.get(name)) and not within(name, ignored)]
    if context.json:
        context.document("regs-diff", {"left": words[0], "right": words[1], "compared": len({**left, **right}),
                                       "different": [{"name": name, "left": one, "right": other}
                                                     for name, one, other in found]})
    else:
        for name, one, other in found:
            print(f"{name}: {value(one)} -> {value(other)}{fields(one, other)}")
    return 1 if found else 0


def read_device(context: Context, text: str, blocks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Registers of a device by name."""
    import device_link

    with explained(), device_link.open(resolve(text, context.settings.aliases)) as device:
        targets = dumped(device, blocks)
        return {one["name"]: one for one in map(entry, targets, read_where_allowed(device, targets))}


def load_dump(path: Path) -> dict[str, dict[str, Any]]:
    """Registers of a dump by name."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["kind"] != "regs" or document["schema"].split(".")[0] != SCHEMA.split(".")[0]:
            raise ValueError(f"kind {document['kind']!r}, schema {document['schema']!r}")
        return {one["name"]: one for one in document["registers"] if one["value"] is None or int(one["value"]) >= 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no dump of registers ({error}): make one with "
                         "`morphnic regs dump --json`") from error


def within(name: str, listed: Sequence[str]) -> bool:
    """Whether a register is, or is in, one of those listed: `rm`, `staging[3]`, `rm.active`."""
    return any(name == one or name.startswith((f"{one}.", f"{one}[")) for one in listed)


def changed(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether a register differs; one that only one side has does."""
    return one is None or other is None or one["value"] != other["value"]


def value(one: Mapping[str, Any] | None) -> str:
    """A value for people."""
    return ABSENT if one is None else "refused" if one["value"] is None else f"{one['value']:#x}"


def fields(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    """Which fields differ, where there are several."""
    before, after = (dict(side.get("fields", {})) if side else {} for side in (one, other))
    if len(before) < 2 or not after:
        return ""
    return "  (" + ", ".join(f"{name} {before[name]} -> {after[name]}" for name in before
                             if before[name] != after.get(name)) + ")"
