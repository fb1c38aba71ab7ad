"""Registers for people, and as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from morphnic.program import Context

from .targets import Target


def show(context: Context, targets: Sequence[Target], values: Sequence[int | None], **facts: object) -> None:
    """One line a register, with its fields; or one document, with `facts`."""
    entries = [entry(target, value) for target, value in zip(targets, values, strict=True)]
    if context.json:
        context.document("regs", {**facts, "registers": entries})
        return
    width = max((len(one["name"]) for one in entries), default=0)
    for one in entries:
        print(line(one, width))


def line(one: Mapping[str, Any], width: int) -> str:
    """One register on a line."""
    if one["value"] is None:
        return f"{one['address']:#07x}  {one['name']:<{width}}  refused"
    fields, names = one.get("fields", {}), one.get("names", {})
    shown = ""
    if len(fields) > 1 or (fields and names):
        shown = "  " + " ".join(f"{name}={names.get(name, value)}" for name, value in fields.items())
    elif names:
        shown = "  " + " ".join(names.values())
    return f"{one['address']:#07x}  {one['name']:<{width}}  {one['value']:#x} ({one['value']}){shown}"


def entry(target: Target, value: int | None) -> dict[str, Any]:
    """One register as plain values, `names` of those that have one; nothing more of one that refused (value None).

    A field by itself is its own only field.
    """
    register = target.register
    name = target.text if register is None or target.field else register.name
    found: dict[str, Any] = {"name": name, "address": target.address, "value": value}
    if register is None or value is None:
        return found
    if target.field is None:
        fields = {one: field.extract(value) for one, field in register.fields.items()}
        found["fields"] = fields
    else:
        fields = {target.field: value}
    names = {one: named for one, number in fields.items() if (named := register.field(one).name_of(number)) is not None}
    return found | ({"names": names} if names else {})
