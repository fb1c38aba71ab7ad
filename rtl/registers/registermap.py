"""The register map, compiled once a process from `morphnic.rdl`.

`register_map().blocks` are the top-level blocks in order of address; a block has registers (templates at an
offset, when the block is an array), a register has fields. Addresses are in bytes, as in the RDL. A map that
does not compile, or breaks one of the rules in `_check`, raises `RegisterMapError` with the file and the rule.
"""

import functools
import hashlib
import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from systemrdl.compiler import RDLCompiler
from systemrdl.messages import DetailedFileSourceRef, MessagePrinter, RDLCompileError, Severity, SourceRefBase
from systemrdl.node import FieldNode, MemNode, Node, RegfileNode, RegNode

__all__ = [
    "SPACE_BYTES",
    "Block",
    "Field",
    "NamedValue",
    "Register",
    "RegisterMap",
    "RegisterMapError",
    "compile_map",
    "map_hash",
    "node",
    "nodes",
    "rdl_path",
    "register_map",
]

#: Bytes of the address space: 2**16 words.
SPACE_BYTES = 4 << 16


class RegisterMapError(Exception):
    """The register map does not compile, or is not one that this device can carry out."""


@dataclass(frozen=True)
class NamedValue:
    """One value of a field that has names for them: `name` is an identifier, `title` what people read."""

    name: str
    number: int
    title: str


@dataclass(frozen=True)
class Field:
    """One field: `access` is software's ("r", "rw" or "w"); a `singlepulse` field is high for one cycle.

    `values`: those that have a name; others may occur.
    """

    name: str
    lsb: int
    width: int
    access: str
    reset: int
    singlepulse: bool
    description: str
    values: tuple["NamedValue", ...] = ()

    @property
    def writable(self) -> bool:
        """Whether software may write it."""
        return "w" in self.access


@dataclass(frozen=True)
class Register:
    """One 32-bit register at `offset` bytes from the base of its block (or of its block's element)."""

    name: str
    offset: int
    fields: tuple[Field, ...]

    @property
    def writable(self) -> bool:
        """Whether software may write any of its fields."""
        return any(field.writable for field in self.fields)


@dataclass(frozen=True)
class Block:
    """One top-level node of the map, at `address` bytes.

    `count` is the length of an array of register files (None: not an array), whose elements are `stride`
    bytes apart. `external` blocks are served by the gateware that owns them. A memory has no registers but
    `words`.
    """

    name: str
    title: str
    address: int
    count: int | None
    stride: int
    external: bool
    registers: tuple[Register, ...]
    words: int
    memory_access: str
    description: str

    @property
    def is_memory(self) -> bool:
        """Whether the block is a memory of plain words."""
        return not self.registers

    @property
    def elements(self) -> int:
        """How many elements the block has: 1 if it is not an array, the words of a memory."""
        return self.words if self.is_memory else self.count or 1

    @property
    def size(self) -> int:
        """Bytes that the block covers in the address space, padding included."""
        return self.words * 4 if self.is_memory else self.elements * self.stride

    def register(self, name: str) -> Register:
        """The register called `name`; `KeyError` if there is none."""
        for register in self.registers:
            if register.name == name:
                return register
        raise KeyError(f"{self.name} has no register {name!r}")


@dataclass(frozen=True)
class RegisterMap:
    """A whole map: its blocks in order of address."""

    title: str
    description: str
    blocks: tuple[Block, ...]

    def block(self, name: str) -> Block:
        """The block called `name`; `ValueError` names those that exist."""
        for block in self.blocks:
            if block.name == name:
                return block
        raise ValueError(f"block must be one of {', '.join(block.name for block in self.blocks)}, not {name!r}")

    def canonical(self) -> list[dict[str, Any]]:
        """What gateware and software must agree on: no descriptions, no reset values."""
        return [{
            "name": block.name, "address": block.address, "count": block.count, "stride": block.stride,
            "words": block.words, "access": block.memory_access,
            "registers": [{
                "name": register.name, "offset": register.offset,
                "fields": [[field.name, field.lsb, field.width, field.access, field.singlepulse,
                            {value.name: value.number for value in field.values}] for field in register.fields],
            } for register in block.registers],
        } for block in self.blocks]

    def hash(self) -> int:
        """First 32 bits of the SHA-256 over the canonical form."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def _text(source: Node, name: str) -> str:
    return " ".join((source.get_property(name) or "").split())


def _field(source: FieldNode) -> Field:
    access = ("r" if source.is_sw_readable else "") + ("w" if source.is_sw_writable else "")
    # A register of one field may say what it means itself.
    return Field(source.inst_name, source.lsb, source.width, access, source.get_property("reset") or 0,
                 bool(source.get_property("singlepulse")),
                 _text(source, "desc") or _text(source.parent, "desc"), _values(source))


def _values(source: FieldNode) -> tuple[NamedValue, ...]:
    encoding = source.get_property("encode") or ()
    return tuple(NamedValue(entry.name, int(entry), entry.rdl_name or entry.name.replace("_", " "))
                 for entry in encoding)


def _block(source: Node) -> Block:
    is_memory = isinstance(source, MemNode)
    registers = () if is_memory else tuple(
        Register(child.inst_name, child.raw_address_offset, tuple(_field(field) for field in child.fields()))
        for child in source.children() if isinstance(child, RegNode))
    return Block(
        name=source.inst_name,
        title=_text(source, "name"),
        address=source.raw_absolute_address,
        count=source.array_dimensions[0] if source.is_array else None,
        stride=source.array_stride if source.is_array else source.size,
        external=source.external,
        registers=registers,
        words=source.get_property("mementries") if is_memory else 0,
        memory_access=source.get_property("sw").name if is_memory else "",
        description=_text(source, "desc"),
    )


def _check(source: Node, path: Path) -> None:
    """Rules that the RDL compiler does not know: what a top-level node may be, and the reach of the bus."""
    if not isinstance(source, RegfileNode | MemNode):
        raise RegisterMapError(f"{path}: {source.inst_name} must be a regfile or a mem at top level")
    if source.is_array and len(source.array_dimensions) != 1:
        raise RegisterMapError(f"{path}: array {source.inst_name} must have one dimension, "
                               f"not {source.array_dimensions!r}")
    if source.raw_absolute_address + source.total_size > SPACE_BYTES:
        raise RegisterMapError(f"{path}: {source.inst_name} must end below {SPACE_BYTES:#x}")
    for child in source.children():
        if not isinstance(child, RegNode) or child.is_array or child.get_property("regwidth") != 32:
            raise RegisterMapError(f"{path}: {source.inst_name}.{child.inst_name} "
                                   "must be one 32-bit register")
        for field in child.fields():
            if not _field(field).description:
                raise RegisterMapError(f"{path}: {source.inst_name}.{child.inst_name}.{field.inst_name} "
                                       "must have a description")


class _Faults(MessagePrinter):
    """Collects what the compiler says instead of printing it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def print_message(self, severity: Severity, text: str, src_ref: SourceRefBase | None) -> None:
        where = f"line {src_ref.line}: " if isinstance(src_ref, DetailedFileSourceRef) else ""
        self.lines.append(where + text)


def compile_map(path: Path) -> RegisterMap:
    """Compile the RDL file at `path`."""
    faults = _Faults()
    compiler = RDLCompiler(message_printer=faults)
    try:
        compiler.compile_file(str(path))
        top = compiler.elaborate().top
    except RDLCompileError as error:
        raise RegisterMapError(f"{path}: {'; '.join(faults.lines) or error}") from error
    for child in top.children():
        _check(child, path)
    blocks = sorted(map(_block, top.children()), key=lambda block: block.address)
    return RegisterMap(_text(top, "name"), _text(top, "desc"), tuple(blocks))


def rdl_path() -> Path:
    """File that the map is written in."""
    return Path(str(importlib.resources.files(__package__).joinpath("morphnic.rdl")))


@functools.cache
def register_map() -> RegisterMap:
    """The map of this device."""
    return compile_map(rdl_path())


def nodes() -> tuple[Block, ...]:
    """Every block of the map, in order of address."""
    return register_map().blocks


def node(name: str) -> Block:
    """The block of the map called `name`."""
    return register_map().block(name)


def map_hash() -> int:
    """Hash of the map, as the ID block tells it."""
    return register_map().hash()
