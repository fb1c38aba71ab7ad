"""Demand forecasts: level and slope for each tenant (Holt's linear method), one step a window.

Pure arithmetic on window figures, so that the same windows always give the same forecast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Trend:
    """Level and slope of one series. `level_gain` and `slope_gain` are in (0, 1]."""

    level_gain: float = 0.5
    slope_gain: float = 0.25
    level: float = 0.0
    slope: float = 0.0
    seen: int = 0

    def update(self, value: float) -> None:
        """Take the next value. The first sets the level, so that there is no ramp from zero."""
        if self.seen == 0:
            self.level = value
        else:
            before = self.level
            self.level = self.level_gain * value + (1 - self.level_gain) * (before + self.slope)
            self.slope = self.slope_gain * (self.level - before) + (1 - self.slope_gain) * self.slope
        self.seen += 1

    def ahead(self, steps: int = 1) -> float:
        """The value expected `steps` windows from now; a demand is never negative."""
        return max(0.0, self.level + steps * self.slope)


@dataclass(frozen=True, slots=True)
class Demand:
    """What one tenant is expected to want in the next window."""

    bytes: float
    engine_cycles: float
    pages: float


class DemandForecast:
    """Forecasts bytes, engine cycles and pages of every tenant."""

    def __init__(self, tenants: int, level_gain: float = 0.5, slope_gain: float = 0.25) -> None:
        for name, gain in (("level_gain", level_gain), ("slope_gain", slope_gain)):
            if not 0 < gain <= 1:
                raise ValueError(f"{name} must be in (0, 1], not {gain!r}")
        self._series = [[Trend(level_gain, slope_gain) for _ in range(3)] for _ in range(tenants)]

    def update(self, seen: Sequence[Demand]) -> None:
        """Take what every tenant wanted in the newest window."""
        for trends, demand in zip(self._series, seen, strict=True):
            for trend, value in zip(trends, (demand.bytes, demand.engine_cycles, demand.pages), strict=True):
                trend.update(value)

    def ahead(self, steps: int = 1) -> tuple[Demand, ...]:
        """The demand expected `steps` windows from now."""
        return tuple(Demand(*(trend.ahead(steps) for trend in trends)) for trends in self._series)
