"""A host made of files, and readings of it at instants that the test chooses."""

import psutil
import pytest

from host_agent.collect import collector as collectors
from host_agent.collect.kernel import Roots
from tests.host_agent.trees import Host
from tests.morphnic.conftest import home, type_command, typed  # noqa: F401


@pytest.fixture
def host(tmp_path, monkeypatch):
    """An empty host."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", psutil.PROCFS_PATH)
    return Host(tmp_path)


class Clock:
    """Monotonic and boot time of the collector, moved by the test."""

    def __init__(self):
        self.now = 1000.0

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The collector's clock; process start times count from the same zero."""
    made = Clock()
    monkeypatch.setattr(collectors.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(collectors, "boot_time", lambda: made.now)
    return made


@pytest.fixture
def figures_of(host, clock):
    """Figures of one tenant over two seconds: read, change the host, read again."""
    def run(settings, change, tenant=3, seconds=2.0):
        collector = collectors.Collector({tenant: settings}, Roots(host.proc, host.sys))
        assert collector.sample() is None
        change()
        clock.advance(seconds)
        return collector.sample().tenants[tenant]
    return run


@pytest.fixture
def manager(home, monkeypatch):  # noqa: F811
    """A stand-in manager whose address is in the environment."""
    from tests.host_agent.manager import Manager

    made = Manager()
    monkeypatch.setenv("MORPHNIC_MANAGER_URL", made.url)
    yield made
    made.close()
