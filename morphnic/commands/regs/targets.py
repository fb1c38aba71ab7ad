"""What a user names: a register, a field of one, a block, or an address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morphnic.errors import InputError

if TYPE_CHECKING:
    from device_link.registers import Block, Register, RegisterMap

SPACE_BYTES = 1 << 18


@dataclass(frozen=True)
class Target:
    """A register by name with its map entry, perhaps one field of it; or a bare address."""

    text: str
    address: int
    register: Register | None = None
    field: str | None = None

    def extract(self, word: int) -> int:
        """What was asked for: the field, or the word."""
        if self.register is None or self.field is None:
            return word
        return self.register.field(self.field).extract(word)


def parse_target(text: str, registers: RegisterMap) -> Target:
    """A register, a field of one, or an address."""
    if text[:1].isdigit():
        address = parse_number(text, "address")
        if address % 4 or address >= SPACE_BYTES:
            raise InputError(f"address {text} must be a multiple of 4 below {SPACE_BYTES:#x}")
        name = registers.name_of(address)
        known = registers.register(name) if "." in name else None
        return Target(text, address, known)
    path, field = text, None
    if text.count(".") == 2:
        path, _, field = text.rpartition(".")
    register = registers.register(path)
    if field is not None:
        register.field(field)
    return Target(text, register.address, register, field)


def parse_assignment(text: str, registers: RegisterMap) -> tuple[Target, int]:
    """`REGISTER=VALUE`, checked against access and width."""
    name, equals, number = text.partition("=")
    if not equals:
        raise InputError(f"to write, give REGISTER=VALUE, such as {text}=0; not {text!r}")
    target = parse_target(name, registers)
    value = _parse_value(target, number)
    if target.register is None:
        width = 32
    elif target.field is None:
        if not target.register.writable:
            raise InputError(f"register {target.register.name} cannot be written: it is read-only")
        width = 32
    else:
        entry = target.register.field(target.field)
        if "w" not in entry.access:
            raise InputError(f"field {target.text} cannot be written: it is read-only")
        width = entry.width
    if value >> width:
        raise InputError(f"value of {name} must be in 0..{(1 << width) - 1:#x}, not {number}")
    return target, value


def _parse_value(target: Target, text: str) -> int:
    """A number, or one of the names that the values of the field have."""
    named = target.register.field(target.field).values if target.register and target.field else {}
    if text in named:
        return named[text]
    if named and not text[:1].isdigit():
        raise InputError(f"the value of {target.text} must be a number or one of {', '.join(named)}, not {text!r}")
    return parse_number(text, f"value of {target.text}")


def parse_number(text: str, what: str) -> int:
    """A number as C writes them: 10, 0xA, 0b1010, 1_000."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise InputError(f"the {what} must be a number such as 12 or 0xC, not {text!r}")
    return value


def parse_block(text: str, registers: RegisterMap) -> tuple[Block, int | None]:
    """A block's name, with an index for one element of an array."""
    match = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", text)
    if match is None:
        raise InputError(f"a block is named as rm or staging[3], not {text!r}; `morphnic regs dump` shows all")
    block = registers.block(match[1])
    index = None if match[2] is None else int(match[2])
    if index is not None and not block.memory_words:
        block.check_index(index)
    return block, index
