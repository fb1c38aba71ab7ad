"""`static`: equal shares, or the shares of the policy file, whatever the windows say."""

from __future__ import annotations

from typing import Literal

from offload_manager.policy.base import Proposal, WindowView
from offload_manager.policy.score import score
from offload_manager.profile import build_table


class Static:
    """The same table for every window.

    weights: "equal", or "configured" for shares in proportion to the tenants' priorities.
    partition: True also divides the pages among the tenants (as far as the largest packet allows) instead of
        leaving them to the shared pool.
    """

    name = "static"

    def __init__(self, weights: Literal["equal", "configured"] = "equal", partition: bool = False) -> None:
        if weights not in ("equal", "configured"):
            raise ValueError(f"weights must be 'equal' or 'configured', not {weights!r}")
        self._equal = weights == "equal"
        self._partition = partition

    def evaluate(self, view: WindowView) -> Proposal:
        """The configured table."""
        n = len(view.profiles)
        shares = [1.0] * n if self._equal else [profile.priority for profile in view.profiles]
        table = build_table(
            view.profiles, view.limits, shares, shares if self._partition else [0.0] * n,
            pool=view.limits.packet_pages, epoch=view.allocation.epoch)
        kind = "equal shares" if self._equal else "shares as configured"
        return Proposal(table, f"{kind}, whatever the load", score(view, table), self.name)
