"""The collector: one reading of every tenant, and figures from two of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from host_agent.collect.cgroup import read_cgroup
from host_agent.collect.figures import Figure, Reading, rates
from host_agent.collect.host import read_host
from host_agent.collect.kernel import Roots, boot_time
from host_agent.collect.process import read_processes
from morphnic.settings import TenantSettings

__all__ = ["Collector", "Sample", "label"]


def label(tenant: int, settings: TenantSettings) -> str:
    """What a tenant is called: its name, else what it is on this host."""
    if settings.name is not None:
        return settings.name
    if settings.pids:
        return "pid " + ",".join(str(pid) for pid in settings.pids)
    return settings.cgroup or settings.process or settings.vm or ("host" if tenant == 0 else f"tenant {tenant}")


@dataclass(frozen=True)
class Sample:
    """Figures of all tenants over one interval."""

    interval_s: float
    tenants: Mapping[int, Mapping[str, Figure]] = field(default_factory=dict)


class Collector:
    """Reads all tenants. Tenant 0 is the host unless the settings map it to something narrower."""

    def __init__(self, tenants: Mapping[int, TenantSettings], roots: Roots | None = None) -> None:
        self._tenants = {0: TenantSettings(), **tenants}
        self._roots = Roots() if roots is None else roots
        self._before: dict[int, Reading] | None = None

    @property
    def tenants(self) -> Mapping[int, TenantSettings]:
        """Tenants read, with the host."""
        return self._tenants

    def read(self) -> dict[int, Reading]:
        """One reading of every tenant, each with its own instant."""
        return {tenant: self._read(tenant, settings) for tenant, settings in sorted(self._tenants.items())}

    def _read(self, tenant: int, settings: TenantSettings) -> Reading:
        now, since_boot = time.monotonic(), boot_time()
        if settings.cgroup is not None:
            return read_cgroup(self._roots, tenant, settings, now, since_boot)
        if settings.pids or settings.process is not None or settings.vm is not None:
            return read_processes(self._roots, tenant, settings, now, since_boot)
        return read_host(self._roots, settings.interfaces, now, since_boot)

    def sample(self) -> Sample | None:
        """Figures since the last call; None at the first, which has nothing to compare with."""
        after = self.read()
        before, self._before = self._before, after
        if before is None:
            return None
        return Sample(after[0].time - before[0].time,
                      {tenant: rates(before[tenant], reading) for tenant, reading in after.items()})
