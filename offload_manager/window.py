"""Windows as the manager uses them: the link's own `Window` and `WindowRow`, and figures derived from them."""

from __future__ import annotations

from device_link.window import Window, WindowRow

__all__ = ["BURST_PARTS", "Window", "WindowRow", "burst_bytes", "latency_mean", "miss_ratio", "window_end"]

BURST_UNIT = 64  # bytes; see `snapshot[t].queue.burst` in the register map
BURST_PARTS = 16  # the window is divided into this many for the burst figure


def window_end(window: Window) -> int:
    """First device cycle after the window."""
    return window.start + window.cycles


def latency_mean(row: WindowRow) -> float:
    """Mean latency in cycles of the packets that left; 0 when none did."""
    return row.latency_sum / row.packets_out if row.packets_out else 0.0


def miss_ratio(row: WindowRow) -> float:
    """Part of the packets that left over the tenant's objective."""
    return row.slo_misses / row.packets_out if row.packets_out else 0.0


def burst_bytes(row: WindowRow) -> int:
    """Most bytes admitted in one sixteenth of the window (in steps of 64, saturating)."""
    return row.burst * BURST_UNIT
