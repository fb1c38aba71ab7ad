"""Print the table in force: its epoch, and what each tenant was given, in the device's own units.

Weight counts beside the others' weights; a rate is 65,536 where it does not limit; ports and slots are bit masks.
"""

from __future__ import annotations

import argparse

from host_agent.client import ManagerClient
from host_agent.commands import add_manager_flag
from morphnic.program import Context
from morphnic.table import plain_table
from offload_manager import api

HEADER = ("tenant", "weight", "share", "rate", "burst", "pages", "ports", "slots", "host")


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `host-agent allocation`."""
    add_manager_flag(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print it."""
    settings = context.settings.manager
    with ManagerClient(settings.url, timeout=settings.timeout) as client:
        table = client.allocation()
    if context.json:
        context.document("agent-allocation", table.model_dump(mode="json", exclude={"schema_version"}))
        return 0
    waits = ", awaiting confirmation" if table.awaiting_confirmation else ""
    print(f"epoch {table.epoch}, decision {table.tag or 'none'}{waits}")
    total = sum(row.weight for row in table.rows)
    print(plain_table(HEADER, [cells(row, total) for row in table.rows], right=range(len(HEADER))))
    return 0


def cells(row: api.AllocationRowModel, total: int) -> list[str]:
    """One tenant; `total`: the sum of weights."""
    share = f"{row.weight / total:.1%}" if total else "-"
    return [str(row.tenant), str(row.weight), share, str(row.rate), str(row.burst), str(row.pages), f"{row.ports:#x}",
            f"{row.slots:#x}", f"{row.host_share / 256:.0%}"]
