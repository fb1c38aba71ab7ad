"""Constructed windows and views for the tests of policies and of the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from device_link.window import Window, WindowRow
from offload_manager.allocation import Allocation, Guarantee, Limits
from offload_manager.analysis import analyse
from offload_manager.api import TenantClass
from offload_manager.forecast import DemandForecast
from offload_manager.policy import WindowView
from offload_manager.profile import Profile, build_table

LIMITS = Limits(tenants=4, ports=4, slots=2, pages=64, packet_pages=16)
CYCLES = 100_000
CAPACITY = CYCLES * LIMITS.beat_bytes

_NOTHING = dict.fromkeys((
    "bytes_in", "packets_in", "requests", "sequential", "bytes_out", "packets_out", "drops", "peak",
    "backpressure_cycles", "engine_cycles", "latency_sum_low", "latency_max", "slo_misses", "queue",
    "predicted_bytes", "flags"), 0)


def row(**figures: int) -> WindowRow:
    """A window row of these figures, all others zero; those that share a word are packed as the device does."""
    depth, burst = figures.pop("depth", 0), figures.pop("burst", 0)
    peak, latency, flags = (figures.pop(name, 0) for name in ("queue_depth_max", "latency_sum", "flags"))
    return WindowRow(**{**_NOTHING, **figures, "queue": depth | burst << 16, "peak": peak,
                        "latency_sum_low": latency & 0xFFFF_FFFF, "flags": flags | latency >> 32 << 24})


def traffic(load: float, *, packet: int = 512, cycles: int = CYCLES, latency: int = 100,
            **more: int) -> WindowRow:
    """A tenant that offered and got `load` of one port's capacity, evenly spread over the window."""
    packets = int(load * cycles * LIMITS.beat_bytes / packet)
    values = {
        "bytes_in": packets * packet, "packets_in": packets, "bytes_out": packets * packet,
        "packets_out": packets, "latency_sum": packets * latency, "latency_max": latency * 2,
        "burst": packets * packet // 16 // 64, "queue_depth_max": 2,
    }
    return row(**{**values, **more})


def window(rows: Sequence[WindowRow], number: int = 0, *, epoch: int = 0, tag: int = 0) -> Window:
    """A window of these rows."""
    return Window(number=number, start=number * CYCLES, cycles=CYCLES, epoch=epoch, skipped=0, active_tag=tag,
                  rows=tuple(rows))


def profiles(latency: Mapping[int, int] | None = None, *, limits: Limits = LIMITS,
             guarantee: Guarantee | None = None, **more: object) -> tuple[Profile, ...]:
    """One profile a tenant; `latency` maps the tenants of the latency class to their objective in cycles."""
    chosen = latency or {}
    return tuple(
        Profile(name=f"tenant{t}", ports=limits.all_ports, guarantee=guarantee or Guarantee(64, 0),
                tenant_class=TenantClass.LATENCY if t in chosen else TenantClass.BATCH,
                slo_cycles=chosen.get(t, 0), **more)  # type: ignore[arg-type]
        for t in range(limits.tenants))


def equal_table(who: Sequence[Profile], limits: Limits = LIMITS) -> Allocation:
    """Equal weights, all pages but the guaranteed ones shared."""
    n = len(who)
    return build_table(who, limits, [1.0] * n, [0.0] * n, pool=limits.packet_pages)


class Viewer:
    """Makes views of successive windows as the loop does: analysis, forecast, table in force."""

    def __init__(self, who: Sequence[Profile], limits: Limits = LIMITS) -> None:
        self.profiles, self.limits = tuple(who), limits
        self.allocation = equal_table(who, limits)
        self._forecast = DemandForecast(limits.tenants)
        self._previous: Window | None = None

    def view(self, rows: Sequence[WindowRow]) -> WindowView:
        """The view of the next window."""
        number = self._previous.number + 1 if self._previous else 0
        current = window(rows, number)
        analysis = analyse(current, self._previous, self.allocation, self.profiles, self.limits)
        self._forecast.update(analysis.demands)
        self._previous = current
        return WindowView(current, self.allocation, self.limits, self.profiles, analysis,
                          self._forecast.ahead())
