"""Moves processing between the engines and the host's software twin (`host_share`), for any policy.

Work of batch tenants goes to the host when the engines are busy to more than `high`, as much as brings them to
`target`; it comes back in steps while the engines would stay below `target` with it. Tenants of the latency class
stay on the engines, and nothing goes to a host whose CPU is pressed.
"""

from __future__ import annotations

from dataclasses import dataclass

from offload_manager.allocation import FULL_HOST_SHARE
from offload_manager.analysis import HOST_PRESSED
from offload_manager.policy.base import WindowView


@dataclass(frozen=True, slots=True)
class HostShift:
    """Parameters: fractions of the engines' time, and `step` in 1/256 of a tenant's packets for processing."""

    high: float = 0.85
    target: float = 0.75
    step: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.target <= self.high <= 1:
            raise ValueError(f"target must be in (0, high={self.high!r}], not {self.target!r}")
        if not 1 <= self.step <= FULL_HOST_SHARE:
            raise ValueError(f"step must be in 1..{FULL_HOST_SHARE}, not {self.step!r}")

    def shares(self, view: WindowView) -> list[int]:
        """`host_share` of every tenant for the next window."""
        current = [row.host_share for row in view.allocation.rows]
        base = [profile.host_share for profile in view.profiles]
        movable = [
            t for t, profile in enumerate(view.profiles)
            if not profile.is_latency and profile.max_host_share > base[t]
            and view.window.rows[t].host_cpu <= HOST_PRESSED * 255
        ]
        wanted = self._wanted(view, current, movable)
        result = list(base)
        for t in movable:
            top = view.profiles[t].max_host_share
            goal = min(top, max(base[t], -(-int(wanted * FULL_HOST_SHARE) // self.step) * self.step))
            if goal > current[t]:
                saturated = view.analysis.engine_utilisation > self.high
                result[t] = goal if saturated else max(base[t], current[t])
            else:
                # Back by one step a window: the demand that returns is an estimate.
                result[t] = max(goal, current[t] - self.step, base[t])
        return result

    def _wanted(self, view: WindowView, current: list[int], movable: list[int]) -> float:
        """The part of the movable work that the host should do, 0..1."""
        capacity = view.window.cycles * view.limits.slots
        whole = [
            # What the engines did for a tenant is the part that the host did not get. A tenant whose work is
            # all on the host shows nothing: it counts as one step's worth, so that some of it comes back to be seen.
            demand.engine_cycles * FULL_HOST_SHARE / max(self.step, FULL_HOST_SHARE - share)
            for demand, share in zip(view.forecast, current, strict=True)
        ]
        mobile = sum(whole[t] for t in movable)
        if mobile <= 0:
            return 0.0
        return min(1.0, max(0.0, (sum(whole) - self.target * capacity) / mobile))
