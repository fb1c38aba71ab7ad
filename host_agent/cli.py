"""`host-agent` (also `morphnic agent`): what the tenants of this server need, and what the device gave them."""

from __future__ import annotations

from morphnic.program import Command, Program

__all__ = ["PROGRAM"]

PROGRAM = Program(
    "host-agent",
    "What the tenants of this server need, what the device gave them, and what changed and why.",
    {
        "run": Command("host_agent.commands.run", "collect and report to the manager until stopped", service=True),
        "devices": Command("host_agent.commands.devices", "devices of this host, and which of them the manager has"),
        "figures": Command("host_agent.commands.figures", "one reading of every tenant"),
        "baseline": Command("host_agent.commands.baseline", "what is usual on this host, as kept by the daemon"),
        "watch": Command("host_agent.commands.watch", "tenants, shares, latency and decisions as they happen"),
        "allocation": Command("host_agent.commands.allocation", "the table in force: what each tenant was given"),
        "request": Command("host_agent.commands.request", "ask more or less of a resource for a tenant"),
        "selftest": Command("host_agent.commands.selftest", "have the manager ask its device whether it is well"),
        "status": Command("host_agent.commands.status", "manager, device, control loop and agent"),
    },
)
