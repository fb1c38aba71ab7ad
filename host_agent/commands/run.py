"""Collect every interval and report to the offload manager, until SIGTERM or SIGINT.

The manager may be away: collecting goes on, and reports are tried again with growing pauses. With --once one
interval is collected and reported, and a manager that is away is an error.
"""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from host_agent.client import ManagerClient
from host_agent.collect.collector import Collector
from host_agent.commands import add_manager_flag
from host_agent.daemon import Daemon, single_instance
from morphnic.program import Context

log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `host-agent run`."""
    add_manager_flag(parser)
    parser.add_argument("--interval", metavar="SECONDS", help="time between two readings (default 1)")
    parser.add_argument("--baseline-intervals", metavar="N", help="intervals of the baseline (default 30)")
    parser.add_argument("--state-directory", metavar="DIR", help="where the baseline is kept")
    parser.add_argument("--once", action="store_true", help="one interval, one report")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Run the daemon."""
    settings = context.settings.agent
    collector = Collector(settings.tenants)
    with stop_event() as stop, ManagerClient(
        context.settings.manager.url, timeout=context.settings.manager.timeout
    ) as client:
        daemon = Daemon(settings, collector, client, wait=stop.wait)
        if arguments.once:
            daemon.run(once=True)
        else:
            with single_instance() as publish:
                log.info("collecting %d tenants every %g s", len(collector.tenants), settings.interval)
                daemon.run(ready=publish)
                log.info("stopped")
    if context.json:
        context.document("agent-run", {
            "baseline_intervals": daemon.baseline.intervals, "baseline_complete": daemon.baseline.complete,
        })
    return 0


@contextmanager
def stop_event() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set: what is being done is finished, then the agent ends cleanly."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
