"""`best_of`: evaluates several policies on every window and takes the proposal with the best score (`score.py`).

A challenger replaces the policy that won before only when it is better by `margin`, so that two policies of about
the same score do not alternate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from offload_manager.policy.base import Policy, Proposal, WindowView


class BestOf:
    """The best of several policies; the first of the list wins ties."""

    name = "best_of"

    def __init__(self, policies: Sequence[Policy], margin: float = 0.02) -> None:
        if not policies:
            raise ValueError(f"policies must have at least one entry, not {policies!r}")
        if margin < 0:
            raise ValueError(f"margin must be at least 0, not {margin!r}")
        self._policies = list(policies)
        self._margin = margin
        self._winner = 0

    def evaluate(self, view: WindowView) -> Proposal:
        """Every policy sees every window, the losers included: their feedback stays current."""
        proposals = [policy.evaluate(view) for policy in self._policies]
        best = max(range(len(proposals)), key=lambda i: (proposals[i].score, -i))
        if proposals[best].score > proposals[self._winner].score + self._margin:
            self._winner = best
        chosen = proposals[self._winner]
        scores = ", ".join(f"{p.policy} {p.score:.3f}" for p in proposals)
        return replace(chosen, reason=f"{chosen.reason} (scores: {scores})")
