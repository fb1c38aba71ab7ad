"""Plain tables for people: aligned columns that survive a pipe, a mail and a narrow font."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["plain_table", "quantity"]


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Columns as wide as their widest cell, two blanks apart; columns in `right` end at the same place."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def render(line: Sequence[str]) -> str:
        cells = [cell.rjust(width) if column in right else cell.ljust(width)
                 for column, (cell, width) in enumerate(zip(line, widths, strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join(render(line) for line in lines)


def quantity(value: float | None, unit: str = "") -> str:
    """A number with three or four digits and a decimal prefix: `12.3 MB/s`; a dash where there is none."""
    if value is None:
        return "-"
    for limit, factor, prefix in ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.4g} {unit}".rstrip()
