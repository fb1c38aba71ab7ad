"""`csr.csv`: the register map as the tools of LiteX read it, for a device whose link speaks UARTBone.

A line is group, name, address or value, size in words or bytes, access. Register names are those of the map with an
underscore between block and register and the index behind the block: `rm_status`, `staging3_weight`. Addresses are
those of bytes. Rows that the configuration does not have are left out: this wire format cannot tell that they are not
there.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict

from gateware.config import DeviceConfig

from .registers import Block, RegisterMap, is_built, rows_of

_WORD_BITS = 32


def csr_csv(registers: RegisterMap, config: DeviceConfig) -> str:
    """The file's text for a device of configuration `config`."""
    blocks = [block for block in registers if is_built(block.name, config)]
    text = io.StringIO()
    text.write(f"# Register map {registers.hash:#010x} for LiteX's tools; made by `morphnic regs export --csr-csv`.\n")
    writer = csv.writer(text, lineterminator="\n")
    for block in blocks:
        writer.writerow(["csr_base", block.name, f"{block.address:#010x}", "", ""])
    for block in blocks:
        writer.writerows(_registers(block, config))
    constants = {"config_csr_data_width": _WORD_BITS, "config_bus_address_width": _WORD_BITS,
                 "config_clock_frequency": config.clock_hz, "map_hash": registers.hash,
                 **{f"config_{name}": int(value) for name, value in asdict(config).items()
                    if isinstance(value, int)}}
    writer.writerows(["constant", name, value, "", ""] for name, value in constants.items())
    writer.writerows(["memory_region", block.name, f"{block.address:#010x}", 4 * block.memory_words, "io"]
                     for block in blocks if block.memory_words)
    return text.getvalue()


def _registers(block: Block, config: DeviceConfig) -> Iterator[list[str | int]]:
    for row in [None] if block.count is None else range(rows_of(block, config)):
        for register in block.registers(row):
            name = f"{block.name}{'' if row is None else row}_{register.name.rpartition('.')[2]}"
            yield ["csr_register", name, f"{register.address:#010x}", 1, "rw" if register.writable else "ro"]
