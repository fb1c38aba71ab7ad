"""From figures to what the manager is told: only what was measured is sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict

from host_agent.baseline import Baseline
from host_agent.collect.collector import Sample
from host_agent.collect.figures import Figure
from morphnic.settings import TenantSettings
from offload_manager import api

__all__ = ["baseline_report", "identity", "pressures", "report"]

log = logging.getLogger(__name__)


def pressures(tenant: int, figures: Mapping[str, float]) -> api.HostPressure | None:
    """The manager's form of one tenant's figures; None without both pressures, which it requires."""
    if not {"cpu_pressure", "memory_pressure"} <= figures.keys():
        return None
    memory = figures.get("memory_bytes")
    return api.HostPressure(
        tenant=tenant,
        cpu_pressure=figures["cpu_pressure"],
        memory_pressure=figures["memory_pressure"],
        cpu_percent=figures.get("cpu_percent"),
        memory_bytes=None if memory is None else round(memory),
        network_bytes_per_second=figures.get("network_bytes_per_second"),
        disk_bytes_per_second=figures.get("disk_bytes_per_second"),
        disk_iops=figures.get("disk_iops"),
    )


def report(host: str, sequence: int, sample: Sample) -> api.HostFigures:
    """One interval's report."""
    measured = (pressures(tenant, values_of(figures)) for tenant, figures in sample.tenants.items())
    return api.HostFigures(
        host=host, sequence=sequence, interval_s=sample.interval_s,
        tenants=[one for one in measured if one is not None],
    )


def baseline_report(host: str, sequence: int, interval_s: float, baseline: Baseline) -> api.HostFigures:
    """The baseline as a report of its means."""
    measured = (
        pressures(tenant, {name: statistic.mean for name, statistic in statistics.items()})
        for tenant, statistics in baseline.tenants.items()
    )
    return api.HostFigures(
        host=host, sequence=sequence, interval_s=interval_s, baseline=True,
        tenants=[one for one in measured if one is not None],
    )


def values_of(figures: Mapping[str, Figure]) -> dict[str, float]:
    """Figures that have a value."""
    return {name: figure.value for name, figure in figures.items() if figure.value is not None}


def identity(tenants: Mapping[int, TenantSettings], interval: float) -> str:
    """What a baseline is of, in canonical form."""
    rows = {str(tenant): asdict(settings) for tenant, settings in sorted(tenants.items())}
    return json.dumps({"interval": interval, "tenants": rows}, sort_keys=True)
