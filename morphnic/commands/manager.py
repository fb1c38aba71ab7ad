"""The offload manager, under `morphnic`; its own code parses the rest of the command line."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Hand over to the manager; it is imported here because it needs the extra [manager]."""
    from offload_manager.main import main as manager_main

    return int(manager_main(list(argv)))
