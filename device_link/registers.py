"""The register map, as software sees it: names and fields to addresses and bits, from the committed `regmap.json`.

No HDL tool is needed. A name that does not exist raises with those that come close.
"""

from __future__ import annotations

import difflib
import importlib.resources
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from gateware.config import DeviceConfig
from morphnic.errors import InputError, RegisterMapMismatch

MAGIC = 0x46524F4D
MAP_SCHEMA = 1
#: Arrays of whose elements a configuration says how many there are; the map has room for more.
_COUNTED = {
    **dict.fromkeys(
        ("guarantee", "staging", "active", "objective", "snapshot", "detail", "region", "queue"), "tenants"),
    **dict.fromkeys(("rule", "prepared"), "rules"),
    "classifier": "classifier_entries", "port": "ports", "slot": "slots",
}
#: Rows that a tenant (or whatever counts them) has of an array, where it is not one.
_EACH = {"region": 8}
#: What of a configuration a block is there for.
_BUILT_WITH = {
    **dict.fromkeys(("pcie", "dma", "msix", "region", "dma_buffer"), "pcie_width"),
    **dict.fromkeys(("scope", "scope_pattern", "scope_description", "scope_rows"), "scope_probes"),
    "queue": "host_queues", "histogram": "histograms",
}
_PATH = re.compile(r"(\w+)(?:\[(\d+)\])?\.(\w+)")


@dataclass(frozen=True)
class Field:
    """Bits of a register; `access` is "r", "w" or "rw".

    values: numbers of those values that have a name; others may occur. titles: what people read for each.
    """

    name: str
    lsb: int
    width: int
    access: str
    reset: int
    description: str
    values: Mapping[str, int] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

    def extract(self, word: int) -> int:
        """Value of the field in `word`."""
        return word >> self.lsb & (1 << self.width) - 1

    def name_of(self, value: int) -> str | None:
        """Name of a value, if it has one."""
        return next((name for name, number in self.values.items() if number == value), None)

    def title_of(self, value: int) -> str:
        """A value for people; one without a name as `NAME 7`."""
        name = self.name_of(value)
        return f"{self.name} {value}" if name is None else self.titles[name]


@dataclass(frozen=True)
class Register:
    """One 32-bit register; `name` is its path, such as `staging[3].weight`, `address` in bytes."""

    name: str
    address: int
    fields: Mapping[str, Field]

    @property
    def writable(self) -> bool:
        """Whether software may write any of its fields."""
        return any("w" in field.access for field in self.fields.values())

    def field(self, name: str) -> Field:
        """The field `name`."""
        if name not in self.fields:
            raise InputError(f"register {self.name} has no field {name!r}{_near(name, self.fields)}")
        return self.fields[name]

    def encode(self, values: Mapping[str, int], base: int = 0) -> int:
        """Word with `values` put into `base`."""
        word = base
        for name, value in values.items():
            field = self.field(name)
            if "w" not in field.access:
                raise InputError(f"field {name} of register {self.name} cannot be written")
            if not 0 <= value < 1 << field.width:
                raise ValueError(f"{self.name}.{name} must be in 0..{(1 << field.width) - 1}, not {value!r}")
            mask = (1 << field.width) - 1 << field.lsb
            word = word & ~mask | int(value) << field.lsb
        return word

    def decode(self, word: int) -> RegisterValue:
        """`word` as a value with fields."""
        return RegisterValue(self, word)


class RegisterValue:
    """A word that was read from a register: `int(value)`, and each field as an attribute."""

    __slots__ = ("_register", "_word")

    def __init__(self, register: Register, word: int) -> None:
        self._register = register
        self._word = word

    @property
    def fields(self) -> dict[str, int]:
        """Value of each field, by name."""
        return {name: field.extract(self._word) for name, field in self._register.fields.items()}

    def __getattr__(self, name: str) -> int:
        if name.startswith("_"):
            raise AttributeError(name)
        field = self._register.fields.get(name)
        if field is None:
            raise AttributeError(f"register {self._register.name} has no field {name!r}"
                                 f"{_near(name, self._register.fields)}")
        return field.extract(self._word)

    def __int__(self) -> int:
        return self._word

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RegisterValue):
            return self._word == other._word and self._register.name == other._register.name
        return self._word == other

    def __hash__(self) -> int:
        return hash(self._word)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value:#x}" for name, value in self.fields.items())
        return f"<{self._register.name} = {self._word:#010x}: {shown}>"


@dataclass(frozen=True)
class Block:
    """A top-level node: registers, an array of them (`count`), or a memory (`memory_words`)."""

    name: str
    address: int
    count: int | None
    stride: int
    title: str
    memory_words: int
    template: Mapping[str, Register]

    def register(self, name: str, index: int | None = None) -> Register:
        """The register `name`, of element `index` if the block is an array."""
        if name not in self.template:
            raise InputError(f"block {self.name} has no register {name!r}{_near(name, self.template)}")
        if (index is None) != (self.count is None):
            form = f"{self.name}[i].{name}" if self.count else f"{self.name}.{name}"
            raise InputError(f"register {name} of block {self.name} is named {form}")
        register = self.template[name]
        if index is None:
            return register
        self.check_index(index)
        path = f"{self.name}[{index}].{name}"
        return Register(path, register.address + index * self.stride, register.fields)

    def check_index(self, index: int) -> None:
        """Raise unless `index` is one of the array."""
        if self.count is None:
            raise InputError(f"block {self.name} is no array")
        if not 0 <= index < self.count:
            raise InputError(f"index of {self.name} must be in 0..{self.count - 1}, not {index!r}")

    def registers(self, index: int | None = None) -> list[Register]:
        """All registers, of element `index` if the block is an array."""
        return [self.register(name, index) for name in self.template]


class RegisterMap:
    """All blocks by name, and the hash that a device must agree on."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        if document.get("schema") != MAP_SCHEMA:
            raise RegisterMapMismatch(f"regmap.json has schema {document.get('schema')!r}, this software knows "
                                      f"{MAP_SCHEMA}: run `make registers`")
        self.hash: int = document["map_hash"]
        self.blocks: dict[str, Block] = {block["name"]: _block(block) for block in document["blocks"]}
        self._by_address = {register.address: (block, register) for block in self.blocks.values()
                            for register in block.template.values()}

    def block(self, name: str) -> Block:
        """The block `name`."""
        if name not in self.blocks:
            raise InputError(f"there is no register block {name!r}{_near(name, self.blocks)}")
        return self.blocks[name]

    def register(self, path: str) -> Register:
        """The register at a path such as `rm.status` or `staging[3].weight`."""
        match = _PATH.fullmatch(path)
        if not match:
            raise InputError(f"a register is named block.register or block[index].register, not {path!r}")
        block, index, name = match.groups()
        return self.block(block).register(name, None if index is None else int(index))

    def name_of(self, address: int) -> str:
        """Path of the register at a byte address, for messages; the address itself where none is."""
        for block in self.blocks.values():
            extent = 4 * block.memory_words or block.stride * (block.count or 1)
            if not block.address <= address < block.address + extent:
                continue
            if block.memory_words:
                return f"{block.name}[{(address - block.address) // 4}]"
            index, offset = divmod(address - block.address, block.stride) if block.count else (None, 0)
            place = block.address + offset if block.count else address
            found = self._by_address.get(place)
            if found:
                return block.register(found[1].name.rsplit(".", 1)[-1], index).name
        return f"{address:#07x}"

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks.values())


def _block(document: Mapping[str, Any]) -> Block:
    name, array = document["name"], document["count"] is not None
    template = {}
    for register in document.get("registers", []):
        fields = {entry["name"]: Field(**{key: entry[key] for key in
                                          ("name", "lsb", "width", "access", "reset", "description")},
                                       values=entry.get("values", {}), titles=entry.get("titles", {}))
                  for entry in register["fields"]}
        path = f"{name}[i].{register['name']}" if array else f"{name}.{register['name']}"
        template[register["name"]] = Register(path, register["address"], fields)
    return Block(name, document["address"], document["count"], document["stride"], document["title"],
                 document.get("memory", {}).get("words", 0), template)


def is_built(block: str, config: DeviceConfig) -> bool:
    """Whether a device of `config` has the block; the addresses of one that it has not are refused."""
    wanted = _BUILT_WITH.get(block)
    return wanted is None or bool(getattr(config, wanted))


def rows_of(block: Block, config: DeviceConfig) -> int:
    """Elements of the array `block` that a device of `config` has."""
    counted = _COUNTED.get(block.name)
    rows: int = getattr(config, counted) * _EACH.get(block.name, 1) if counted else block.count or 0
    return rows


def _near(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


@cache
def register_map() -> RegisterMap:
    """The register map of this version of the software."""
    text = importlib.resources.files("rtl.registers").joinpath("regmap.json").read_text(encoding="utf-8")
    return RegisterMap(json.loads(text))
