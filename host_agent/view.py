"""What `host-agent watch` shows: tenants (demand, granted shares, latency) and the last decisions.

One set of rows serves the live view of a terminal, the plain table of a pipe and nothing else: figures come from
the manager as they are; cycles become microseconds by the device's own clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from morphnic.table import plain_table, quantity
from offload_manager import api

__all__ = ["DECISIONS", "TENANTS", "View", "decision_rows", "plain", "tenant_rows"]

TENANTS = ("tenant", "name", "class", "demand", "next", "share", "pages", "slots", "host", "delivered",
           "latency", "max", "misses", "drops", "limited by")
TENANTS_RIGHT = tuple(range(3, 14))
DECISIONS = ("id", "window", "source", "outcome", "what", "why")
KEPT_DECISIONS = 8


@dataclass
class View:
    """The state that is shown; `note` says what is wrong at the moment."""

    url: str
    tenants: list[api.TenantView] = field(default_factory=list)
    window: api.WindowReport | None = None
    loop: api.LoopStatus | None = None
    decisions: deque[api.Decision] = field(default_factory=lambda: deque(maxlen=KEPT_DECISIONS))
    note: str = ""

    def decided(self, decision: api.Decision) -> None:
        """Take a decision in; a decision that ends later comes again with its outcome."""
        kept = [one for one in self.decisions if one.id != decision.id]
        ordered = sorted([*kept, decision], key=lambda one: one.id, reverse=True)
        self.decisions = deque(ordered[:KEPT_DECISIONS], maxlen=KEPT_DECISIONS)

    def title(self) -> str:
        """One line above the tables."""
        parts = [self.url]
        if self.loop is not None:
            parts.append(f"{self.loop.state.value}, policy {self.loop.policy}")
        if self.window is not None:
            parts.append(f"window {self.window.number}, epoch {self.window.epoch}")
            parts.append(f"use {self.window.utilisation:.0%}, engines {self.window.engine_utilisation:.0%}")
            if self.window.jain is not None:
                parts.append(f"Jain {self.window.jain:.3f}")
        if self.note:
            parts.append(self.note)
        return "  |  ".join(parts)


def tenant_rows(view: View) -> list[list[str]]:
    """One row a tenant; a dash where there is no figure yet."""
    return [_tenant_row(tenant, view.window) for tenant in view.tenants]


def _tenant_row(tenant: api.TenantView, window: api.WindowReport | None) -> list[str]:
    figures = tenant.figures
    per_second = window.clock_hz / window.cycles if window is not None and window.cycles else None
    microseconds = 1e6 / window.clock_hz if window is not None and window.clock_hz else None

    def rate(value: float | None) -> str:
        return quantity(None if value is None or per_second is None else value * per_second, "B/s")

    def latency(cycles: float | None) -> str:
        return "-" if cycles is None or microseconds is None else f"{cycles * microseconds:.1f} us"

    row = tenant.row
    return [
        str(tenant.tenant), tenant.name, tenant.tenant_class.value,
        rate(figures.bytes_in if figures else None), rate(tenant.forecast_bytes),
        f"{tenant.share:.1%}", str(row.pages), str(row.slots.bit_count()), f"{row.host_share / 256:.0%}",
        rate(figures.bytes_out if figures else None),
        latency(figures.latency_mean if figures else None), latency(figures.latency_max if figures else None),
        str(figures.slo_misses) if figures else "-", str(figures.drops) if figures else "-",
        ", ".join(one.resource for one in tenant.bottlenecks) or "-",
    ]


def decision_rows(decisions: Iterable[api.Decision]) -> list[list[str]]:
    """One row a decision: what changed, why, and how it ended."""
    return [
        [str(one.id), str(one.window), one.source, one.outcome.value, changes(one.changes),
         one.reason + (f" [{one.detail}]" if one.detail else "")]
        for one in decisions
    ]


def changes(rows: Sequence[api.RowChange], limit: int = 3) -> str:
    """The first few changes of a decision, and how many more there are."""
    if not rows:
        return "nothing"
    shown = ", ".join(f"t{one.tenant} {one.field} {one.before}->{one.after}" for one in rows[:limit])
    return shown + (f" and {len(rows) - limit} more" if len(rows) > limit else "")


def plain(view: View) -> str:
    """Everything as text."""
    parts = [view.title(), "", plain_table(TENANTS, tenant_rows(view), right=TENANTS_RIGHT)]
    if view.decisions:
        parts += ["", plain_table(DECISIONS, decision_rows(view.decisions), right=(0, 1))]
    else:
        parts += ["", "no decision yet"]
    return "\n".join(parts)
