"""`host-agent` (also `morphnic agent`): what the tenants of this server need, and what the device gave them."""

from __future__ import annotations

from morphnic.program import Command, Program

__all__ = ["PROGRAM"]

PROGRAM = Program(
    "host-agent",
    "What the tenants of this server need, what the device gave them, and what changed and why.",
    {
        "run": Command("host_agent.commands.run", "collect and report to the manager until stopped", service=True),
        "figures": Command("host_agent.commands.figures", "one reading of every tenant"),
        "baseline": Command("host_agent.commands.baseline", "what is usual on this host, as kept by the daemon"),
        "watch": Command("host_agent.commands.watch", "tenants, shares, latency and decisions as they happen"),
        "request": Command("host_agent.commands.request", "ask more or less of a resource for a tenant"),
        "status": Command("host_agent.commands.status", "manager, device, control loop and agent"),
    },
)
