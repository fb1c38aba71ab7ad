"""Reading and writing what was named, on one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphnic.errors import LinkError

from .targets import Target, parse_block

if TYPE_CHECKING:
    from device_link import Device
    from device_link.registers import Block, RegisterValue

#: Registers in one exchange; a list on the wire has at most 255 words.
DUMP_CHUNK = 128
#: Arrays whose real rows the device counts itself.
COUNTED = {
    "guarantee": "tenants", "staging": "tenants", "active": "tenants", "objective": "tenants",
    "snapshot": "tenants", "detail": "tenants", "classifier": "classifier_entries", "port": "ports", "slot": "slots",
}


def read(device: Device, targets: Sequence[Target]) -> list[int]:
    """The word of each target, or the field's value."""
    words: list[int] = []
    for start in range(0, len(targets), DUMP_CHUNK):
        words += read_chunk(device, targets[start:start + DUMP_CHUNK])
    return [target.extract(word) for target, word in zip(targets, words, strict=True)]


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
    absent = () if device.id.config2.read().scope else ("scope",)
    chosen = [parse_block(text, device.map) for text in names] or [
        (block, None) for block in device.map if not block.memory_words and block.name not in absent]
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
