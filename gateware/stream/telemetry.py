"""What travels on the telemetry stream: window snapshots, word by word (`docs/reference/link-protocol.md`)."""

from amaranth.lib import data

__all__ = ["TELEMETRY_WORD"]

#: One transfer: a word of a window, `last` on its final one.
TELEMETRY_WORD = data.StructLayout({"data": 32, "last": 1})
