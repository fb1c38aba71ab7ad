"""Begin a block of your own: a component, its registers, its test and its contract, which pass as they are.

    morphnic new block rate_meter

writes into the source tree at or above the current folder, gives the registers an address in the register map and
remakes everything derived from it. docs/guides/new-block.md goes on from there to a waveform.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import keyword
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template

from morphnic.errors import BuildError, InputError
from morphnic.program import Context

MAP = Path("rtl/registers/morphnic.rdl")
#: Template to the file that it becomes; `$name` and `$Name` stand for the block's name.
FILES = {
    "init.py.txt": "gateware/$name/__init__.py",
    "component.py.txt": "gateware/$name/$name.py",
    "registers.rdl.txt": "rtl/registers/blocks/$name.rdl",
    "cocotb.py.txt": "tests/hdl/${name}_cocotb.py",
    "formal.py.txt": "tests/formal/test_$name.py",
}
MAP_START = "addrmap morphnic {"
FIRST_ADDRESS, LAST_ADDRESS, ALIGNMENT = 0xA000, 0x10000, 0x400
NAME = re.compile(r"[a-z][a-z0-9_]{1,30}")
#: Classes that the templates use under these names; a block of the same name would hide them.
TAKEN_CLASSES = frozenset({"Array", "Assert", "Bench", "Bus", "Cat", "Const", "Contract", "Elaboratable", "In",
                           "Memory", "Module", "Mux", "Out", "Shape", "Signal", "Sink", "Source", "State", "Value",
                           "Wrong"})



@dataclass(frozen=True)
class NewBlock:
    """What is to be written: path to text, relative to the tree."""

    name: str
    address: int
    files: dict[Path, str]


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `morphnic new`."""
    parser.add_argument("kind", choices=["block"], help="what to begin")
    parser.add_argument("name", help="of the block: lower-case letters, digits and _, such as rate_meter")
    parser.add_argument("--tree", type=Path, default=Path(), metavar="DIR",
                        help="the source tree (default: the one at or above the current folder)")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Write the block, and say what to type next."""
    root = find_tree(arguments.tree.resolve())
    block = plan(arguments.name, root)
    write(block, root)
    test = f"{sys.executable} -m pytest tests/hdl --wave --case {block.name}"
    proof = f"{sys.executable} -m pytest tests/formal/test_{block.name}.py"
    if context.json:
        context.document("new-block", {"name": block.name, "address": block.address, "tree": str(root),
                                       "files": [str(path) for path in block.files], "test": test, "proof": proof})
        return 0
    for path in block.files:
        if path != MAP:
            print(f"wrote   {path}")
    print(f"changed {MAP} (registers at {block.address:#07x}), and what is derived from it")
    print(f"\ntest it:  {test}\nprove it: {proof}\nread on:  docs/guides/new-block.md")
    return 0


def find_tree(start: Path) -> Path:
    """The source tree at or above `start`."""
    for folder in (start, *start.parents):
        if (folder / MAP).is_file() and (folder / "gateware" / "device.py").is_file():
            return folder
    raise InputError(f"{start} is in no Morphnic source tree (there is no {MAP} at or above it); change into a clone "
                     "of the repository, or name one with --tree")


def plan(name: str, root: Path) -> NewBlock:
    """Everything that a block called `name` needs; refuses a name that cannot be used."""
    values = {"name": name, "Name": "".join(part.capitalize() for part in name.split("_"))}
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or values["Name"] in TAKEN_CLASSES:
        raise InputError("the name of a block must be 2 to 31 lower-case letters, digits and _, begin with a letter, "
                         f"and be no word of Python or Amaranth, not {name!r}")
    paths = {template: Path(Template(path).substitute(values)) for template, path in FILES.items()}
    for path in (Path("gateware") / name, Path("gateware") / f"{name}.py", *paths.values()):
        if (root / path).exists():
            raise InputError(f"there is {path} already; choose another name than {name!r}, or remove it first")
    map_text = (root / MAP).read_text()
    address = free_address(name, root)
    folder = importlib.resources.files("morphnic.commands").joinpath("block_templates")
    files = {path: Template(folder.joinpath(template).read_text()).substitute(values)
             for template, path in paths.items()}
    files[MAP] = with_registers(map_text, name, address)
    return NewBlock(name, address, files)


def free_address(name: str, root: Path) -> int:
    """The first free place for registers; refuses a name that the register map has."""
    blocks = json.loads((root / MAP).with_name("regmap.json").read_text())["blocks"]
    taken = []
    for block in blocks:
        if block["name"] == name:
            raise InputError(f"the register map has a block {name!r} already; choose another name")
        size = block["memory"]["words"] * 4 if "memory" in block else (block["count"] or 1) * (block["stride"] or 0x400)
        taken.append(range(block["address"], block["address"] + size))
    for address in range(FIRST_ADDRESS, LAST_ADDRESS, ALIGNMENT):
        if not any(one.start < address + ALIGNMENT and address < one.stop for one in taken):
            return address
    raise InputError(f"the register map has no free place of {ALIGNMENT:#x} bytes between {FIRST_ADDRESS:#x} and "
                     f"{LAST_ADDRESS:#x}; remove a block that is not used")


def with_registers(text: str, name: str, address: int) -> str:
    """The register map with the block's fragment included, and an instance of it at `address`."""
    head, start, body = text.partition(MAP_START)
    end = body.rfind("};")
    if not start or end < 0:
        raise InputError(f"{MAP} has no `{MAP_START}` ... `}};` to put the registers of {name!r} into")
    include = f'`include "blocks/{name}.rdl"\n'
    return f"{head}{include}\n{start}{body[:end]}    {name}_block {name} @ {address:#07x};\n{body[end:]}"


def write(block: NewBlock, root: Path) -> None:
    """Write all of it, or, when the register map does not compile with it, nothing."""
    before = (root / MAP).read_text()
    for path, text in block.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    # In a process of its own: the map that this one may have read is the one before.
    made = subprocess.run([sys.executable, "-m", "rtl.registers.generate"], cwd=root, capture_output=True, text=True)
    if made.returncode:
        for path in block.files:
            (root / path).unlink()
        (root / MAP).write_text(before)
        (root / "gateware" / block.name).rmdir()
        last = (made.stderr.strip().splitlines() or ["no message"])[-1]
        raise BuildError(f"nothing was written: the register map does not compile with block {block.name!r}: {last}")
