"""Allocation policies behind one small interface, and the chooser between them."""

from offload_manager.policy.base import Policy, Proposal, WindowView
from offload_manager.policy.best_of import BestOf
from offload_manager.policy.latency_target import LatencyTarget
from offload_manager.policy.maxmin import MaxMin
from offload_manager.policy.static import Static

__all__ = ["BestOf", "LatencyTarget", "MaxMin", "Policy", "Proposal", "Static", "WindowView"]
