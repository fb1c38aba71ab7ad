"""The interface of a policy: a view of the newest window in, a proposal out.

Contract: `evaluate` is called once for every window, in order, whether or not its proposals are carried out; it
touches no device and no clock, so that the same views always give the same proposals. The table that it
proposes satisfies `allocation.check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from offload_manager.allocation import Allocation, Guarantee, Limits
from offload_manager.analysis import Analysis
from offload_manager.forecast import Demand
from offload_manager.profile import Profile
from offload_manager.window import Window


@dataclass(frozen=True, slots=True)
class WindowView:
    """What a policy may know.

    allocation: the table in force at the end of the window. forecast: demand expected in the next window.
    """

    window: Window
    allocation: Allocation
    limits: Limits
    profiles: tuple[Profile, ...]
    analysis: Analysis
    forecast: tuple[Demand, ...]

    @property
    def guarantees(self) -> tuple[Guarantee, ...]:
        """The guarantee of every tenant."""
        return tuple(profile.guarantee for profile in self.profiles)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A table, why, and how good its policy's score says it is (see `score.py`)."""

    allocation: Allocation
    reason: str
    score: float
    policy: str = ""


class Policy(Protocol):
    """One way to allocate."""

    @property
    def name(self) -> str:
        """Name in the policy file and in decisions."""
        ...

    def evaluate(self, view: WindowView) -> Proposal:
        """The table for the next window."""
        ...
