"""Writing the register map for the tools of others."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from morphnic.errors import InputError

if TYPE_CHECKING:
    from device_link.registers import RegisterMap


def export(arguments: argparse.Namespace, registers: RegisterMap) -> None:
    """Write the form that the arguments name; no device is opened."""
    from device_link.csr_csv import csr_csv
    from sim.options import parse_config

    if arguments.registers:
        raise InputError(f"export writes the whole map, not {arguments.registers[0]!r}")
    if arguments.csr_csv is None:
        raise InputError("say what to write: --csr-csv FILE")
    text = csr_csv(registers, replace(parse_config(arguments.parameters), uartbone=True))
    if arguments.csr_csv == "-":
        sys.stdout.write(text)
        return
    try:
        Path(arguments.csr_csv).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{arguments.csr_csv} cannot be written: {error.strerror}; name a file in a "
                         "folder that you may write to") from error
