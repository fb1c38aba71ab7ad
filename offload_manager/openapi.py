"""The OpenAPI document of the REST interface: `python -m offload_manager.openapi` writes it, `--check` compares.

The committed document is `docs/reference/openapi.json`; a test fails when it differs from the code.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from device_link import Device
from morphnic.errors import DeviceNotFound
from offload_manager.events import EventHub
from offload_manager.owner import DeviceOwner
from offload_manager.service import create_app
from offload_manager.settings import ManagerSettings
from offload_manager.store import MemoryStore

PATH = Path(__file__).resolve().parents[1] / "docs" / "reference" / "openapi.json"


def document() -> str:
    """The document as text."""
    def no_device() -> Device:
        raise DeviceNotFound("the schema needs no device")

    app = create_app(DeviceOwner(ManagerSettings(), MemoryStore(), no_device, EventHub()))
    return json.dumps(app.openapi(), indent=1, sort_keys=True) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the document, or say whether the committed one is current."""
    parser = argparse.ArgumentParser(prog="python -m offload_manager.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the file is not current")
    arguments = parser.parse_args(argv)
    text = document()
    if not arguments.check:
        PATH.write_text(text, encoding="utf-8")
        return 0
    if not PATH.exists() or PATH.read_text(encoding="utf-8") != text:
        print(f"{PATH.name} is not that of the code: run python -m offload_manager.openapi", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
