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
    fields = one.get("fields", {})
    shown = "  " + " ".join(f"{name}={value}" for name, value in fields.items()) if len(fields) > 1 else ""
    return f"{one['address']:#07x}  {one['name']:<{width}}  {one['value']:#x} ({one['value']}){shown}"


def entry(target: Target, value: int | None) -> dict[str, Any]:
    """One register as plain values; a field alone has no fields, nor has one that refused (value None)."""
    name = target.text
    if target.register is not None and target.field is None:
        name = target.register.name
    found: dict[str, Any] = {"name": name, "address": target.address, "value": value}
    if target.register is not None and target.field is None and value is not None:
        found["fields"] = {one: field.extract(value) for one, field in target.register.fields.items()}
    return found
