"""What is mutated: the components of each block, at the parameters that their tests use most, and those tests."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateware.config import DeviceConfig

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """A component of a block.

    make: the component, with the parameters of most of its tests. sources: the files whose cells are mutated; a file
    belongs to several targets only if it makes logic of each. tests: folders and files that may kill; a test that does
    not simulate the component with these parameters is left out. parts: submodules that are targets of their own: no
    logic inside them is drawn, whichever file made it (of a register Yosys does not keep where it is).
    """

    name: str
    make: Callable[[], Any]
    sources: tuple[str, ...]
    tests: tuple[str, ...]
    parts: tuple[str, ...] = ()

    @property
    def lines(self) -> int:
        """Lines of its sources: its part of the block's mutants."""
        return sum(len((ROOT / source).read_text().splitlines()) for source in self.sources)


def _manager() -> Any:
    from gateware.manager.manager import ResourceManager

    return ResourceManager(DeviceConfig(ports=3, tenants=5, pages=32, slots=3))


def _link() -> Any:
    from gateware.bridge.link import LinkBridge

    return LinkBridge(DeviceConfig())


def _admission() -> Any:
    from gateware.fabric.admission import Admission

    return Admission(DeviceConfig(ports=3, data_width=64, tenants=4, pages=32), 0)


def _rows() -> Any:
    from gateware.fabric.rows import Rows

    return Rows(DeviceConfig(ports=2, tenants=3, pages=32),
                ("weight", "rate", "burst", "pages", "ports", "slots", "host_share", "admits"), 2)


def _credit() -> Any:
    from gateware.fabric.credit import Credit

    return Credit(DeviceConfig(ports=2, tenants=4, pages=32))


def _allowances() -> Any:
    from gateware.fabric.allowances import Allowances

    return Allowances(DeviceConfig(ports=2, tenants=4, pages=32))


def _shaper() -> Any:
    from gateware.fabric.shaper import Shaper

    return Shaper(DeviceConfig(ports=2, tenants=4, pages=32))


def _scheduler() -> Any:
    from gateware.fabric.scheduler import Scheduler

    return Scheduler(DeviceConfig(ports=2, tenants=4, pages=32))


def _waiting() -> Any:
    from gateware.fabric.waiting import Waiting

    return Waiting(DeviceConfig(ports=2, tenants=4, pages=32))


def _crosspoint() -> Any:
    from gateware.fabric.crosspoint import Crosspoint

    return Crosspoint(DeviceConfig(ports=2, data_width=32, tenants=4, pages=32), credit=True)


def _fabric() -> Any:
    from gateware.fabric.fabric import Fabric

    return Fabric(DeviceConfig(ports=2, data_width=32, tenants=4, pages=32))


def _analyzer() -> Any:
    from gateware.analyzer.analyzer import Analyzer

    return Analyzer(DeviceConfig(ports=3, tenants=3), shortest_window=530, reset_window=530)


def _detector() -> Any:
    from gateware.analyzer.pattern import StreamDetector

    return StreamDetector(DeviceConfig(tenants=3))


def _trend() -> Any:
    from gateware.analyzer.trend import Trend

    return Trend(DeviceConfig(tenants=3))


def _flags() -> Any:
    from gateware.analyzer.flags import Flags

    return Flags(DeviceConfig(slots=2))


def _divider() -> Any:
    from gateware.analyzer.divider import Divider

    return Divider()


def _latency() -> Any:
    from gateware.analyzer.latency import LatencyHistogram

    return LatencyHistogram(DeviceConfig(ports=3, tenants=3))


def _collector() -> Any:
    from gateware.analyzer.analyzer import RULES
    from gateware.analyzer.collector import Collector

    return Collector(DeviceConfig(ports=2, tenants=3), RULES, 2)


def _requests() -> Any:
    from gateware.analyzer.requests import RequestTap

    return RequestTap(DeviceConfig(ports=4, tenants=3), 1 << 12)


def _depth() -> Any:
    from gateware.analyzer.depth import DepthTracker

    return DepthTracker(DeviceConfig(ports=3, tenants=3, pages=32))


def _load() -> Any:
    from gateware.analyzer.load import Load

    return Load(DeviceConfig(ports=2, tenants=3, slots=2))


def _slice() -> Any:
    from gateware.analyzer.aggregation import Rule
    from gateware.analyzer.slices import CounterSlice, Figure

    return CounterSlice(DeviceConfig(tenants=3), {
        "packets": Figure(), "bytes": Figure(most=4095), "sum": Figure(most=(1 << 32) - 1),
        "longest": Figure(Rule.MAXIMUM, (1 << 32) - 1)}, 64)


def _snapshot() -> Any:
    from gateware.analyzer.analyzer import RULES
    from gateware.analyzer.snapshot import SnapshotWriter

    return SnapshotWriter(DeviceConfig(ports=2, tenants=3), RULES)


def _push() -> Any:
    from gateware.analyzer.push import WindowPush

    return WindowPush(DeviceConfig(tenants=3))


def _window() -> Any:
    from gateware.analyzer.window import WindowClock

    return WindowClock(70, 40, 8)


def _files(folder: str, names: str) -> tuple[str, ...]:
    return tuple(f"gateware/{folder}/{name}.py" for name in names.split())


def _fabric_tests(names: str) -> tuple[str, ...]:
    return tuple(f"tests/gateware/fabric/test_{name}.py" for name in names.split())


BLOCKS: dict[str, list[Target]] = {
    "manager": [Target("manager", _manager, _files("manager", (
        "banks checker guarantee inflight manager reflex rows rules rulestore ruletable standing table transaction")),
        ("tests/gateware/manager",))],
    "link": [Target("link", _link, _files("bridge", (
        "cobs crc32c executor framing link mux operations receive session window")), ("tests/gateware/bridge",))],
    # What has tests of its own meets those: they reach further than those of the whole, inside which its parameters
    # are others.
    "fabric": [Target(name, make, _files("fabric", files), _fabric_tests(tests)) for name, make, files, tests in (
        ("admission", _admission, "admission decision lookup place", "admission decision"),
        ("rows", _rows, "rows", "rows"), ("credit", _credit, "credit", "credit"),
        ("allowances", _allowances, "allowances", "allowances"), ("shaper", _shaper, "shaper", "shaper"),
        ("scheduler", _scheduler, "scheduler", "scheduler scheduler_accounts"),
        ("waiting", _waiting, "waiting", "waiting"),
        ("crosspoint", _crosspoint, "crosspoint account chain pool", "crosspoint"),
        ("fabric", _fabric, "events fabric output reader", "fabric output"))],
    "analyzer": [
        *(Target(name, make, _files("analyzer", files), (f"tests/gateware/analyzer/test_{name}.py",))
          for name, make, files in (
              ("pattern", _detector, "pattern"), ("trend", _trend, "trend"), ("flags", _flags, "flags"),
              ("divider", _divider, "divider"), ("latency", _latency, "latency"), ("requests", _requests, "requests"),
              ("collector", _collector, "collector aggregation"), ("slices", _slice, "slices"),
              ("depth", _depth, "depth"), ("load", _load, "load"), ("snapshot", _snapshot, "snapshot"),
              ("push", _push, "push"), ("window", _window, "window"))),
        Target("analyzer", _analyzer, _files("analyzer", "analyzer aggregation objectives taps"),
               ("tests/gateware/analyzer/test_analyzer.py",), ("collector",))],
}

#: Gateware of the blocks' folders that no target has, and why.
LEFT_OUT = {
    "gateware/manager/allocation.py": "signatures and rows, no logic",
    "gateware/analyzer/figures.py": "a signature and names, no logic",
    "gateware/fabric/counters.py": "a component beside the fabric, no target yet",
    "gateware/bridge/alone.py": "a component of the simulation, not of the device",
    "gateware/bridge/autobaud.py": "a component in front of the link, no target yet",
    "gateware/bridge/serial.py": "a component in front of the link, no target yet",
    "gateware/bridge/uart.py": "a component in front of the link, no target yet",
    "gateware/bridge/uartbone.py": "another link, no target yet",
}
