"""Print whether the manager, its device and its control loop are well, and whether the agent runs here."""

from __future__ import annotations

import argparse
import json
import os

from host_agent.client import ManagerClient
from host_agent.commands import add_manager_flag
from host_agent.daemon import READY
from morphnic.program import Context
from morphnic.settings import run_directory


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `host-agent status`."""
    add_manager_flag(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """0 when the manager is of use, 1 when it has failed."""
    settings = context.settings.manager
    with ManagerClient(settings.url, timeout=settings.timeout) as client:
        health, loop = client.health(), client.loop()
    pid = agent_pid()
    if context.json:
        context.document("agent-status", {
            "manager_url": settings.url, "agent_pid": pid,
            "health": health.model_dump(mode="json"), "loop": loop.model_dump(mode="json"),
        })
    else:
        detail = f": {health.detail}" if health.detail else ""
        print(f"manager    {settings.url}  {health.status}{detail}  (version {health.version})")
        print(f"device     {health.device}")
        print(f"loop       {loop.state.value}, policy {loop.policy}, window {loop.window}; {loop.commits} commits, "
              f"{loop.rollbacks} rollbacks, {loop.refusals} refusals")
        where = run_directory()
        print("agent      " + (f"process {pid}" if pid else f"none has published itself in {where}"))
    return 1 if health.status == "failed" else 0


def agent_pid() -> int | None:
    """Process id of the daemon that has published itself in the run directory and is alive."""
    try:
        pid = int(json.loads((run_directory() / READY).read_text(encoding="utf-8"))["pid"])
        os.kill(pid, 0)
    except PermissionError:
        return pid
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid
