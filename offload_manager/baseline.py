"""The baseline: what each tenant did, as means over the first windows under the table that a manager found."""

from __future__ import annotations

from collections.abc import Sequence

from offload_manager.api import Baseline, BaselineTenant, HostPressure
from offload_manager.window import Window, WindowRow, latency_mean

__all__ = ["summarise"]


def summarise(windows: Sequence[Window], window_cycles: int, host: Sequence[HostPressure]) -> Baseline:
    """The means of `windows` (at least one) for every tenant, beside what the host did meanwhile."""
    by_tenant = zip(*(window.rows for window in windows), strict=True)
    return Baseline(
        windows=len(windows), first_window=windows[0].number, window_cycles=window_cycles,
        tenants=[_tenant(number, rows) for number, rows in enumerate(by_tenant)], host=list(host))


def _tenant(number: int, rows: Sequence[WindowRow]) -> BaselineTenant:
    """Means a window, or a packet or request where the name says so; 0 where there was none."""
    packets, requests = sum(r.packets_out for r in rows), sum(r.requests for r in rows)
    return BaselineTenant(
        tenant=number, bytes_per_window=sum(r.bytes_in for r in rows) / len(rows),
        packets_per_window=sum(r.packets_in for r in rows) / len(rows),
        latency_mean=sum(latency_mean(r) * r.packets_out for r in rows) / packets if packets else 0.0,
        slo_miss_ratio=sum(r.slo_misses for r in rows) / packets if packets else 0.0,
        sequential_ratio=sum(r.sequential for r in rows) / requests if requests else 0.0)
