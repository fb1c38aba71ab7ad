"""Functional coverage: which of the situations that matter a test has really been in.

    COVER = CoverGroup("skid", {"gap": {"none": range(1), "some": range(1, 9)}, "stall": {...}},
                       crosses=[("gap", "stall")])
    COVER.sample(gap=0, stall=3)

A point sorts a sampled value into the first bin that contains it (anything that understands `in`); a value that no bin
contains is an error, so that bins and stimulus cannot drift apart. A cross counts the combinations within one sample.
The counts of every group go to `functional.json` in the folder of the run when the simulator ends.
"""

import atexit
import json
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

FILE = "functional.json"
FOLDER = "MORPHNIC_COVERAGE_FOLDER"  # environment variable: where a simulator writes FILE
CROSS = " x "

Bins = Mapping[str, Container[object]]


class CoverGroup:
    """Points that are sampled together, and crosses of them. `counts`: point or cross to bin to samples."""

    def __init__(self, name: str, points: Mapping[str, Bins], crosses: Iterable[Sequence[str]] = ()):
        self.name = name
        self._points = {point: dict(bins) for point, bins in points.items()}
        self._crosses = [tuple(cross) for cross in crosses]
        for cross in self._crosses:
            if len(cross) < 2 or not set(cross) <= set(self._points):
                raise ValueError(f"cross must be of two or more points of {name}, not {cross!r}")
        self.counts = {point: dict.fromkeys(bins, 0) for point, bins in self._points.items()}
        for cross in self._crosses:
            names = (CROSS.join(bins) for bins in product(*(self._points[point] for point in cross)))
            self.counts[CROSS.join(cross)] = dict.fromkeys(names, 0)
        if FOLDER in os.environ:
            atexit.register(self._write, Path(os.environ[FOLDER]))

    def sample(self, **values: object) -> None:
        """Count one situation; every point must be given."""
        if set(values) != set(self._points):
            raise TypeError(f"sample of {self.name} must have the points {', '.join(self._points)}, "
                            f"not {', '.join(values)}")
        bins = {point: self._bin(point, value) for point, value in values.items()}
        for point, name in bins.items():
            self.counts[point][name] += 1
        for cross in self._crosses:
            self.counts[CROSS.join(cross)][CROSS.join(bins[point] for point in cross)] += 1

    def _bin(self, point: str, value: object) -> str:
        for name, members in self._points[point].items():
            if value in members:
                return name
        raise ValueError(f"{point} of {self.name} must be in one of its bins "
                         f"({', '.join(self._points[point])}), not {value!r}")

    def _write(self, folder: Path) -> None:
        path = folder / FILE
        groups = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(groups | {self.name: self.counts}))


def merge(into: dict[str, dict[str, dict[str, int]]], groups: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
    """Add the counts of one run to those of others."""
    for group, points in groups.items():
        for point, bins in points.items():
            counts = into.setdefault(group, {}).setdefault(point, {})
            for name, count in bins.items():
                counts[name] = counts.get(name, 0) + count
