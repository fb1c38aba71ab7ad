"""Read, write and dump registers, by name, by field or by address.

    morphnic regs read rm.status rm.active.epoch 0x1008
    morphnic regs write rm.stall_timeout=100000 staging[3].weight.weight=512 0x30=0xC0FFEE
    morphnic regs dump rm staging[3]

A field is written by reading its register, changing the field and writing it back. Writes are carried out in the
order given, in one exchange; names and values are all checked before the first. While an offload manager
holds the device they are refused.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from morphnic.devices import add_device_flag, open_device
from morphnic.errors import InputError, LinkError
from morphnic.program import Context

if TYPE_CHECKING:
    from device_link import Device
    from device_link.registers import Block, Register, RegisterMap, RegisterValue

SPACE_BYTES = 1 << 18
#: Registers in one exchange; a list on the wire has at most 255 words.
DUMP_CHUNK = 128
#: Arrays whose real rows the device counts itself.
COUNTED = {
    "guarantee": "tenants", "staging": "tenants", "active": "tenants", "objective": "tenants",
    "snapshot": "tenants", "detail": "tenants", "classifier": "classifier_entries", "port": "ports", "slot": "slots",
}


@dataclass(frozen=True)
class Target:
    """A register by name with its map entry, perhaps one field of it; or a bare address."""

    text: str
    address: int
    register: Register | None = None
    field: str | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `morphnic regs`."""
    parser.add_argument("action", choices=("read", "write", "dump"))
    parser.add_argument("registers", nargs="*", metavar="REGISTER",
                        help="block.register, block[i].register, either with .field, or 0xADDRESS; to write: "
                             "REGISTER=VALUE; to dump: blocks (without one: all)")
    add_device_flag(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Carry out one action; what is wrong in the arguments is found before a device is opened."""
    from device_link.registers import register_map

    names: list[str] = arguments.registers
    if arguments.action != "dump" and not names:
        form = "rm.status" if arguments.action == "read" else "rm.stall_timeout=1000"
        raise InputError(f"name at least one register, such as `{context.prog} {arguments.action} {form}`")
    if arguments.action == "read":
        targets = [parse_target(text, register_map()) for text in names]
        with open_device(context) as device:
            show(context, targets, read(device, targets))
    elif arguments.action == "write":
        pairs = [parse_assignment(text, register_map()) for text in names]
        with open_device(context, writer=True) as device:
            write(device, pairs)
            show(context, [target for target, _ in pairs], [value for _, value in pairs], written=True)
    else:
        for text in names:
            parse_block(text, register_map())
        with open_device(context) as device:
            targets = dumped(device, names)
            show(context, targets, read_where_allowed(device, targets))
    return 0


# --- names ------------------------------------------------------------------------------------------------------


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
    target, value = parse_target(name, registers), parse_number(number, f"value of {name}")
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
        raise InputError(f"to dump, give blocks such as rm or staging[3], not {text!r}")
    block = registers.block(match[1])
    index = None if match[2] is None else int(match[2])
    if index is not None and not block.memory_words:
        block.check_index(index)
    return block, index


# --- the device -------------------------------------------------------------------------------------------------


def read(device: Device, targets: Sequence[Target]) -> list[int]:
    """The word of each target, or the field's value."""
    words: list[int] = []
    for start in range(0, len(targets), DUMP_CHUNK):
        words += read_chunk(device, targets[start:start + DUMP_CHUNK])
    return [value_of(target, word) for target, word in zip(targets, words, strict=True)]


def read_where_allowed(device: Device, targets: Sequence[Target]) -> list[int | None]:
    """As `read`, for a dump: None for a register that refuses at the moment (`staging` outside a transaction)."""
    from device_link import BusError

    words: list[int | None] = []
    for start in range(0, len(targets), DUMP_CHUNK):
        chunk = targets[start:start + DUMP_CHUNK]
        while chunk:
            try:
                words += read_chunk(device, chunk)
                break
            except BusError as error:
                # The list stopped there: what stands before it is read again, without it.
                places = [number for number, target in enumerate(chunk) if target.address in error.addresses]
                if len(error.addresses) != 1 or not places:
                    raise  # which one refused is not known
                words += read_chunk(device, chunk[:places[0]]) if places[0] else []
                words.append(None)
                chunk = chunk[places[0] + 1:]
    return words


def read_chunk(device: Device, targets: Sequence[Target]) -> list[int]:
    """One exchange; by name where all have one, so that an error names the register."""
    if all(target.register is not None for target in targets):
        values: list[RegisterValue] = device.read([target.register.name for target in targets if target.register])
        return [int(value) for value in values]
    return device.transport.read_many(target.address for target in targets)


def value_of(target: Target, word: int) -> int:
    """What was asked for: the field, or the word."""
    if target.register is None or target.field is None:
        return word
    return target.register.field(target.field).extract(word)


def write(device: Device, pairs: Sequence[tuple[Target, int]]) -> None:
    """Write in order. Registers of which only fields are given are read first, in one exchange."""
    from device_link import BusError

    partly = [target for target, _ in pairs if target.field is not None]
    registers = {target.address: target for target in partly}
    bases = dict(zip(registers, read_words(device, list(registers)), strict=True)) if registers else {}
    words: list[tuple[int, int]] = []
    for target, value in pairs:
        if target.field is not None and target.register is not None:
            value = target.register.encode({target.field: value}, bases[target.address])
        bases[target.address] = value  # a later field of the same register builds on this
        words.append((target.address, value))
    try:
        device.transport.write_many(words)
    except BusError as error:
        names = ", ".join(device.map.name_of(address) for address in error.addresses)
        raise LinkError(f"{error} ({names}); what stood before it was written") from error


def read_words(device: Device, addresses: Sequence[int]) -> list[int]:
    """One exchange over addresses."""
    return device.transport.read_many(addresses)


def dumped(device: Device, names: Sequence[str]) -> list[Target]:
    """Registers of the blocks named, or of all; rows that the device does not have are left out."""
    chosen = [parse_block(text, device.map) for text in names] or [
        (block, None) for block in device.map if not block.memory_words]
    targets: list[Target] = []
    for block, index in chosen:
        if block.memory_words:
            words = range(block.memory_words) if index is None else range(index, index + 1)
            targets += [Target(f"{block.name}[{word}]", block.address + 4 * word) for word in words]
            continue
        rows: Sequence[int | None] = [index]
        if index is None and block.count is not None:
            rows = range(real_rows(device, block))
        targets += [Target(register.name, register.address, register)
                    for row in rows for register in block.registers(row)]
    return targets


def real_rows(device: Device, block: Block) -> int:
    """Rows of an array that this device has; the map has room for more."""
    counted = COUNTED.get(block.name)
    rows: int = getattr(device.identity.config, counted) if counted else block.count or 0
    return rows


# --- output -----------------------------------------------------------------------------------------------------


def show(
    context: Context, targets: Sequence[Target], values: Sequence[int | None], *, written: bool = False
) -> None:
    """One line a register, with its fields; or one document."""
    entries = [entry(target, value) for target, value in zip(targets, values, strict=True)]
    if context.json:
        context.document("regs", {"written": written, "registers": entries})
        return
    width = max((len(one["name"]) for one in entries), default=0)
    for one in entries:
        if one["value"] is None:
            print(f"{one['address']:#07x}  {one['name']:<{width}}  refused")
            continue
        fields = one.get("fields", {})
        several = len(fields) > 1
        shown = "  " + " ".join(f"{name}={value}" for name, value in fields.items()) if several else ""
        print(f"{one['address']:#07x}  {one['name']:<{width}}  {one['value']:#x} ({one['value']}){shown}")


def entry(target: Target, value: int | None) -> dict[str, Any]:
    """One register as plain values; a field alone has no fields, nor has one that refused (value None)."""
    name = target.text
    if target.register is not None and target.field is None:
        name = target.register.name
    found: dict[str, Any] = {"name": name, "address": target.address, "value": value}
    if target.register is not None and target.field is None and value is not None:
        found["fields"] = {one: field.extract(value) for one, field in target.register.fields.items()}
    return found
