"""How every bench script reports: a table for people, or with `--json` one JSON object a line for each figure.

A script measures, then calls `report`. It exits 0 when the figures were produced, missed targets included: a miss is
printed as a miss. Stdout carries the figures and nothing else; progress goes to stderr.
"""

import argparse
import dataclasses
import json
import operator
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

COMPARISONS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Figure:
    """One figure. `target` is (comparison, bound), or None when nothing is asked of it.

    figure: stable id. reference: what it is compared with, and its value. conditions: what it holds under.
    """

    figure: str
    value: float
    unit: str
    reference: dict[str, Any]
    target: tuple[str, float] | None = None
    conditions: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None without a target. A value that is not a number meets none."""
        if self.target is None:
            return None
        comparison, bound = self.target
        return COMPARISONS[comparison](self.value, bound)

    def document(self) -> dict[str, Any]:
        """The figure as a JSON object."""
        target = None if self.target is None else f"{self.target[0]} {self.target[1]:g}"
        return {"schema": 1, **dataclasses.asdict(self), "target": target, "holds": self.holds}


def arguments(description: str, **options: Any) -> argparse.Namespace:
    """Parse the flags that every bench script has, and `options` (name -> add_argument keywords)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object a line for each figure")
    for name, keywords in options.items():
        parser.add_argument("--" + name.replace("_", "-"), **keywords)
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """What the figures were measured on, for `conditions`."""
    return {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def progress(text: str) -> None:
    """A line for the person who waits; never on stdout."""
    print(text, file=sys.stderr, flush=True)


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def report(figures: Sequence[Figure], *, as_json: bool) -> None:
    """Print the figures on stdout."""
    if as_json:
        for entry in figures:
            print(json.dumps(entry.document(), sort_keys=True), flush=True)
        return
    rows = [("figure", "value", "unit", "target", "", "reference", "conditions")]
    for entry in figures:
        target = "" if entry.target is None else f"{entry.target[0]} {entry.target[1]:g}"
        verdict = {True: "holds", False: "MISSED", None: ""}[entry.holds]
        rows.append((entry.figure, _cell(entry.value), entry.unit, target, verdict,
                     ", ".join(f"{key} {_cell(value)}" for key, value in entry.reference.items()),
                     ", ".join(f"{key} {_cell(value)}" for key, value in entry.conditions.items())))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]).rstrip())
