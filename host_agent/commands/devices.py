"""Print the offload devices of this host, which of them the manager has, and how that one describes itself.

Nothing is opened by looking. When the manager is away, or has lost its device, that is told, and the devices that are
found are listed all the same.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from host_agent.client import ManagerAway, ManagerClient, ManagerRefused
from host_agent.commands import add_manager_flag
from morphnic.program import Context
from morphnic.settings import ManagerSettings
from morphnic.table import plain_table
from offload_manager import api

if TYPE_CHECKING:
    from device_link import Candidate


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `host-agent devices`."""
    add_manager_flag(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print what is found; finding nothing is no failure."""
    from device_link import discover

    found = discover()
    settings = context.settings.manager
    managed, allocation, away = ask(settings)
    held = managed.url.partition("?")[0] if managed else None
    if context.json:
        context.document("agent-devices", {
            "devices": [{**asdict(one), "managed": one.url == held} for one in found], "manager_url": settings.url,
            "manager_away": away, "device": managed and managed.model_dump(mode="json"),
            "epoch": allocation and allocation.epoch})
        return 0
    if found:
        print(plain_table(["url", "kind", "what", "driver", "held by"], [cells(one, held) for one in found]))
    else:
        print("no device is found on this host", file=sys.stderr)
    if managed is not None and allocation is not None:
        print("\n" + description(managed, allocation))
    else:
        print(f"which device is managed is not known: {away}", file=sys.stderr)
    return 0


def ask(settings: ManagerSettings) -> tuple[api.DeviceInfo | None, api.AllocationView | None, str | None]:
    """The manager's device and the table in force, or why there is no answer."""
    with ManagerClient(settings.url, timeout=settings.timeout) as client:
        try:
            return client.device(), client.allocation(), None
        except (ManagerAway, ManagerRefused) as error:
            return None, None, str(error)


def cells(candidate: Candidate, held: str | None) -> list[str]:
    """One line."""
    holder = "the manager" if candidate.url == held else candidate.in_use or "-"
    return [candidate.url, candidate.kind, candidate.description, str(candidate.details.get("driver") or "-"), holder]


def description(device: api.DeviceInfo, allocation: api.AllocationView) -> str:
    """How the managed device describes itself."""
    return "\n".join((
        f"device      {device.url}",
        f"uid         0x{device.uid}   boot {device.boot_nonce:#010x}",
        f"build       0x{device.build_id}   register map 0x{device.map_hash}",
        f"fabric      {device.ports} ports x {device.data_width} bits, {device.pages} pages a crosspoint",
        f"tenants     {device.tenants}, {device.slots} engine slots",
        f"allocation  epoch {allocation.epoch}, decision {allocation.tag or 'none'}"))
