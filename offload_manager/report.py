"""From the manager's own types to the documents of the REST interface."""

from __future__ import annotations

from collections.abc import Sequence

from offload_manager.allocation import FIELDS, Allocation, Change, Limits, Row
from offload_manager.analysis import Analysis
from offload_manager.api import (
    AllocationRowModel,
    AllocationView,
    HostPressure,
    RowChange,
    TenantFigures,
    TenantView,
    WindowReport,
)
from offload_manager.forecast import Demand
from offload_manager.profile import Profile
from offload_manager.window import Window, WindowRow, burst_bytes, latency_mean


def row_model(tenant: int, row: Row) -> AllocationRowModel:
    """One row of the table."""
    return AllocationRowModel.model_validate({"tenant": tenant} | {name: getattr(row, name) for name in FIELDS})


def allocation_view(allocation: Allocation, tag: int, *, awaiting: bool) -> AllocationView:
    """The table in force."""
    return AllocationView(epoch=allocation.epoch, tag=tag, awaiting_confirmation=awaiting,
                          rows=[row_model(t, row) for t, row in enumerate(allocation.rows)])


def row_changes(changes: Sequence[Change]) -> list[RowChange]:
    """What a decision changes."""
    return [RowChange(tenant=c.tenant, field=c.field, before=c.before, after=c.after) for c in changes]


def tenant_figures(tenant: int, row: WindowRow) -> TenantFigures:
    """What one tenant did in a window."""
    return TenantFigures(
        tenant=tenant, bytes_in=row.bytes_in, packets_in=row.packets_in, requests=row.requests,
        sequential=row.sequential, bytes_out=row.bytes_out, packets_out=row.packets_out, drops=row.drops,
        queue_depth_max=row.queue_depth_max, depth=row.depth, backpressure_cycles=row.backpressure_cycles,
        engine_cycles=row.engine_cycles, latency_mean=latency_mean(row), latency_max=row.latency_max,
        slo_misses=row.slo_misses, predicted_bytes=row.predicted_bytes, burst_bytes=burst_bytes(row),
        host_cpu=row.host_cpu, host_memory=row.host_memory)


def window_report(window: Window, analysis: Analysis, limits: Limits) -> WindowReport:
    """One window as measured and analysed."""
    return WindowReport(
        number=window.number, start_cycle=window.start, cycles=window.cycles, epoch=window.epoch,
        tag=window.active_tag, skipped=window.skipped, clock_hz=limits.clock_hz,
        utilisation=analysis.utilisation, engine_utilisation=analysis.engine_utilisation, jain=analysis.jain,
        tenants=[tenant_figures(t, row) for t, row in enumerate(window.rows)],
        bottlenecks=list(analysis.bottlenecks))


def tenant_view(
    tenant: int, profile: Profile, allocation: Allocation, limits: Limits, window: Window | None,
    analysis: Analysis | None, forecast: Sequence[Demand] | None, host: HostPressure | None,
) -> TenantView:
    """One tenant: promised, granted, done, limited by."""
    view = TenantView(
        tenant=tenant, name=profile.name, tenant_class=profile.tenant_class,
        slo_us=profile.slo_cycles * 1e6 / limits.clock_hz if profile.slo_cycles else None,
        guaranteed_weight=profile.guarantee.weight, guaranteed_pages=profile.guarantee.pages,
        share=allocation.share(tenant), row=row_model(tenant, allocation.rows[tenant]), host=host)
    if window is not None and analysis is not None:
        view.figures = tenant_figures(tenant, window.rows[tenant])
        view.access_pattern = analysis.patterns[tenant]
        view.bottlenecks = [b for b in analysis.bottlenecks if b.tenant == tenant]
    if forecast is not None:
        view.forecast_bytes = forecast[tenant].bytes
    return view
