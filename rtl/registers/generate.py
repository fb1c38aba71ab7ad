"""Writes everything that is derived from the register map; with `--check`, fails on a difference instead.

    python -m rtl.registers.generate             regmap.json, morphnic.h, docs/reference/registers.md
    python -m rtl.registers.generate --check     exit 2 and the names of files that are out of date
    python -m rtl.registers.generate --html DIR  also the browsable reference of PeakRDL (many files)
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peakrdl_cheader.exporter import CHeaderExporter
from systemrdl.compiler import RDLCompiler
from systemrdl.node import RootNode

from .registermap import Block, Field, Register, RegisterMapError, rdl_path, register_map

#: Version of the layout of `regmap.json`; an unknown one is refused by its readers.
SCHEMA = 1
ROOT = Path(__file__).resolve().parents[2]


def _field_entry(field: Field) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": field.name, "lsb": field.lsb, "width": field.width, "access": field.access,
        "reset": field.reset, "description": field.description,
    }
    if field.singlepulse:
        entry["singlepulse"] = True
    if field.values:
        entry["values"] = {value.name: value.number for value in field.values}
        entry["titles"] = {value.name: value.title for value in field.values}
    return entry


def _block_entry(block: Block) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": block.name, "address": block.address, "count": block.count, "stride": block.stride,
        "title": block.title, "description": block.description,
    }
    if block.is_memory:
        return entry | {"memory": {"words": block.words, "access": block.memory_access}}
    return entry | {"registers": [
        {"name": register.name, "address": block.address + register.offset,
         "fields": [_field_entry(field) for field in register.fields]} for register in block.registers]}


def regmap_json() -> str:
    """The map for hosts without HDL tools, one line a register.

    `blocks`: name, absolute byte `address`, `count` (null: not an array) and `stride` in bytes, then either
    `registers` (absolute address, that of element 0 in an array) or `memory` (32-bit words and access).
    """
    lines = [f'{{"schema": {SCHEMA}, "map_hash": {register_map().hash()}, '
             f'"title": {json.dumps(register_map().title)}, "blocks": [']
    entries = [_block_entry(block) for block in register_map().blocks]
    for entry in entries:
        registers = entry.pop("registers", None)
        text = " " + json.dumps(entry)
        if registers is not None:
            text = text[:-1] + ', "registers": [\n'
            text += ",\n".join("  " + json.dumps(register) for register in registers) + "]}"
        lines.append(text + ("," if entry is not entries[-1] else ""))
    return "\n".join([*lines, "]}"]) + "\n"


def _access_text(field: Field) -> str:
    return "pulse" if field.singlepulse else field.access


def _register_rows(register: Register) -> list[str]:
    rows = []
    for number, field in enumerate(register.fields):
        last = field.lsb + field.width - 1
        bits = f"{last}:{field.lsb}" if field.width > 1 else str(field.lsb)
        first = f"`+{register.offset:#04x}` | `{register.name}`" if number == 0 else " | "
        rows.append(f"| {first} | {bits} | `{field.name}` | {_access_text(field)} | {field.reset:#x} | "
                    f"{_meaning(field)} |")
    return rows


def _meaning(field: Field) -> str:
    """The description, and what each value that has a name stands for."""
    if not field.values:
        return field.description
    return f"{field.description} " + ", ".join(
        f"{value.number} `{value.name}`" + (f" ({value.title})" if value.title != value.name.replace("_", " ") else "")
        for value in field.values)


def _block_markdown(block: Block) -> list[str]:
    where = f"at `{block.address:#07x}`"
    if block.is_memory:
        where += f", {block.words} words, software access `{block.memory_access}`"
    elif block.count is not None:
        where += f", {block.count} elements {block.stride:#x} bytes apart"
    lines = [f"## {block.name}: {block.title}", "", f"{block.description} ({where})", ""]
    if block.is_memory:
        return lines
    lines += ["| offset | register | bits | field | access | reset | meaning |",
              "| --- | --- | --- | --- | --- | --- | --- |"]
    for register in block.registers:
        lines += _register_rows(register)
    return [*lines, ""]


def markdown() -> str:
    """The reference for people; an array is described once."""
    lines = [
        f"# {register_map().title}: registers", "",
        "Made from `rtl/registers/morphnic.rdl` by `make registers`; do not edit.", "",
        f"{register_map().description} Map hash `{register_map().hash():#010x}`. Addresses are in bytes; "
        "every register is 32 bits, little-endian, with byte enables; a read has no side effect. An address "
        "without a register, a write to a register that software only reads, and elements of an array that a "
        "configuration does not have are answered with a bus error.", "",
        "| address | block | elements | |", "| --- | --- | --- | --- |",
    ]
    for block in register_map().blocks:
        anchor = f"[{block.name}](#{block.name}-{block.title.lower().replace(' ', '-')})"
        lines.append(f"| `{block.address:#07x}` | {anchor} | {block.elements} | {block.title} |")
    lines.append("")
    for block in register_map().blocks:
        lines += _block_markdown(block)
    return "\n".join(lines).rstrip() + "\n"


def _root() -> RootNode:
    compiler = RDLCompiler()
    compiler.compile_file(str(rdl_path()))
    return compiler.elaborate()


def c_header() -> str:
    """PeakRDL's C header (structures and masks), with the hash of the map and the values that have names."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "morphnic.h"
        CHeaderExporter().export(_root().top, str(path))
        text = path.read_text(encoding="utf-8")
    guard = "#define MORPHNIC_H\n"
    if guard not in text:
        raise RuntimeError(f"PeakRDL's header must have the line {guard.strip()!r}; its format changed")
    values = [f"#define {f'{block.name}_{register.name}__{field.name}__{value.name}'.upper()} {value.number}u"
              for block in register_map().blocks for register in block.registers
              for field in register.fields for value in field.values]
    return text.replace(guard, "\n".join(
        [guard, f"#define MORPHNIC_MAP_HASH {register_map().hash():#010x}u", "", *values, ""]), 1)


def derived() -> dict[Path, str]:
    """Every derived file, by path relative to the root of the repository."""
    return {
        Path("rtl/registers/regmap.json"): regmap_json(),
        Path("rtl/registers/morphnic.h"): c_header(),
        Path("docs/reference/registers.md"): markdown(),
    }


def stale(root: Path) -> list[Path]:
    """Derived files under `root` that are missing or differ from what the map gives."""
    return [path for path, text in derived().items()
            if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text]


def _export_html(folder: Path) -> None:
    from peakrdl_html import HTMLExporter
    HTMLExporter().export(_root().top, str(folder))
    print(f"wrote {folder}/index.html")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rtl.registers.generate",
                                     description="Write what is derived from the register map.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 2 if a file is out of date")
    parser.add_argument("--html", type=Path, metavar="DIR", help="also write the browsable reference there")
    options = parser.parse_args(arguments)
    try:
        out_of_date = stale(ROOT)
    except RegisterMapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.check:
        for path in out_of_date:
            print(f"error: {path} differs from the register map; remake it with `make registers`",
                  file=sys.stderr)
        return 2 if out_of_date else 0
    texts = derived()
    for path in out_of_date:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(texts[path], encoding="utf-8")
        print(f"wrote {path}")
    if options.html is not None:
        _export_html(options.html)
    return 0


if __name__ == "__main__":
    sys.exit(main())
