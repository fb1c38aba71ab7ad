"""Follow the tenants of the device: demand, granted shares, latency, and the last decisions with their reasons.

On a terminal the view is renewed with the manager's events until Ctrl-C. Into a pipe, or with --once, it is
printed once. With --json every event is one JSON document on a line (with --once: one document of everything).
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from host_agent.client import Event, ManagerAway, ManagerClient
from host_agent.commands import add_manager_flag
from host_agent.view import DECISIONS, TENANTS, TENANTS_RIGHT, View, decision_rows, plain, tenant_rows
from morphnic.program import Context
from offload_manager import api

if TYPE_CHECKING:
    from rich.console import Group

RENEW_S = 0.25
RETRY_S = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `host-agent watch`."""
    add_manager_flag(parser)
    parser.add_argument("--once", action="store_true", help="print once and end")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Show or print."""
    settings = context.settings.manager
    with ManagerClient(settings.url, timeout=settings.timeout) as client:
        view = View(settings.url)
        refresh(view, client)  # a manager that is away at the start is an error, later it is waited for
        if context.json and not arguments.once:
            return stream(client, context)
        if context.json:
            context.document("agent-watch", {
                "manager_url": view.url,
                "window": None if view.window is None else view.window.model_dump(mode="json"),
                "tenants": [one.model_dump(mode="json") for one in view.tenants],
                "decisions": [one.model_dump(mode="json") for one in view.decisions],
            })
        elif arguments.once or not sys.stdout.isatty():
            print(plain(view))
        else:
            live(view, client)
    return 0


def refresh(view: View, client: ManagerClient) -> None:
    """Ask for everything that is shown."""
    view.window, view.tenants, view.loop = client.window(), client.tenants().tenants, client.loop()
    for decision in client.decisions():
        view.decided(decision)


def stream(client: ManagerClient, context: Context) -> int:
    """Events as JSON lines, until the manager goes away."""
    for event in client.events():
        context.line(f"agent-watch-{event.kind}", event.document.model_dump(mode="json", exclude={"schema_version"}))
    return 0


def live(view: View, client: ManagerClient) -> None:
    """The terminal view; a manager that goes away is waited for."""
    from rich.live import Live

    with Live(render(view), screen=True, auto_refresh=False) as screen:
        renewed = 0.0
        while True:
            try:
                refresh(view, client)
                view.note = ""
                for event in client.events():
                    take(view, event)
                    if event.kind == "window" and time.monotonic() - renewed >= RENEW_S:
                        view.tenants = client.tenants().tenants
                        renewed = time.monotonic()
                    screen.update(render(view), refresh=True)
            except ManagerAway:
                view.note = "the manager is away; waiting for it"
                screen.update(render(view), refresh=True)
                time.sleep(RETRY_S)


def take(view: View, event: Event) -> None:
    """One event into the view."""
    document = event.document
    if isinstance(document, api.WindowEvent):
        view.window = document.report
    elif isinstance(document, api.DecisionEvent):
        view.decided(document.decision)
    else:
        view.loop = document.loop


def render(view: View) -> Group:
    """The view for rich."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tenants = Table(expand=True)
    for column, name in enumerate(TENANTS):
        tenants.add_column(name, justify="right" if column in TENANTS_RIGHT else "left", no_wrap=True)
    for row in tenant_rows(view):
        tenants.add_row(*(Text(cell) for cell in row))
    decisions = Table(expand=True)
    for name in DECISIONS:
        decisions.add_column(name)
    for row in decision_rows(view.decisions):
        decisions.add_row(*(Text(cell) for cell in row))
    return Group(Text(view.title()), tenants, decisions)
