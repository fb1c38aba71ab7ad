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

    make: the component, with the parameters of most of its tests. sources: the files whose cells are mutated; each file
    belongs to one target. tests: folders and files that may kill; a test that does not simulate the component with
    these parameters is left out.
    """

    name: str
    make: Callable[[], Any]
    sources: tuple[str, ...]
    tests: tuple[str, ...]

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


def _crosspoint() -> Any:
    from gateware.fabric.crosspoint import Crosspoint

    return Crosspoint(DeviceConfig(ports=2, data_width=32, tenants=4, pages=32))


def _fabric() -> Any:
    from gateware.fabric.fabric import Fabric

    return Fabric(DeviceConfig(ports=2, data_width=32, tenants=4, pages=32))


def _scheduler() -> Any:
    from gateware.fabric.scheduler import Scheduler

    return Scheduler(DeviceConfig(ports=2, tenants=4, pages=32))


def _shaper() -> Any:
    from gateware.fabric.shaper import Shaper

    return Shaper(DeviceConfig(ports=2, tenants=4, pages=32))


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


def _files(folder: str, names: str) -> tuple[str, ...]:
    return tuple(f"gateware/{folder}/{name}.py" for name in names.split())


_FABRIC, _ANALYZER = ("tests/gateware/fabric",), ("tests/gateware/analyzer",)
BLOCKS: dict[str, list[Target]] = {
    "manager": [Target("manager", _manager, _files("manager", (
        "banks checker guarantee inflight manager reflex rows rules rulestore ruletable table transaction")),
        ("tests/gateware/manager",))],
    "link": [Target("link", _link, _files("bridge", (
        "cobs crc32c executor framing link mux operations receive session window")), ("tests/gateware/bridge",))],
    "fabric": [
        Target("admission", _admission, _files("fabric", "admission decision place"), _FABRIC),
        Target("crosspoint", _crosspoint, _files("fabric", "crosspoint account chain credit pool waiting"), _FABRIC),
        Target("scheduler", _scheduler, _files("fabric", "scheduler"), _FABRIC),
        Target("shaper", _shaper, _files("fabric", "shaper"), _FABRIC),
        Target("fabric", _fabric, _files("fabric", (
            "allowances events fabric output reader rows")), _FABRIC)],
    "analyzer": [
        Target("pattern", _detector, _files("analyzer", "pattern"), _ANALYZER),
        Target("trend", _trend, _files("analyzer", "trend"), _ANALYZER),
        Target("flags", _flags, _files("analyzer", "flags"), _ANALYZER),
        Target("analyzer", _analyzer, _files("analyzer", (
            "analyzer collector depth divider latency load objectives push requests slices snapshot taps window")),
            _ANALYZER)],
}
