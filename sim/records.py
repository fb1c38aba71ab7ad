"""What goes into a board and what comes out of it: layouts of records, names of counters, and where every packet is.

The layouts are those of the C++ structures (`sim/board/`). Packets are numpy arrays of `PACKET`; what became of them
comes back as arrays of `COMPLETION`, `TWIN`, `FAULT`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: One packet to send. `offset` >= 0 points into the payload bytes given with the packets, else the payload is made
#: from `seed`. For frames from the network `tenant`, `destination` and `flow_class` are what the classifier should
#: decide; for the host port they are the header. `arrival` is a device cycle.
PACKET = np.dtype([
    ("arrival", "<u8"), ("request", "<u8"), ("seed", "<u8"), ("offset", "<i8"), ("length", "<u2"),
    ("flow_hash", "<u2"), ("tenant", "u1"), ("port", "u1"), ("destination", "u1"), ("flow_class", "u1"),
    ("vlan", "<u2"), ("reserved", "<u2"), ("request_index", "<u4"),
])
#: One finished packet: its number, `Outcome` (as `path`), output port, admission epoch; cycles of its arrival, of
#: its header taken, and of its last beat out (or of the end of its processing by the twin).
COMPLETION = np.dtype([
    ("index", "<u4"), ("path", "u1"), ("output", "u1"), ("epoch", "u1"), ("tenant", "u1"), ("arrival", "<u8"),
    ("admitted", "<u8"), ("done", "<u8"),
])
#: One request processed by the host's software twin (a model of its cores).
TWIN = np.dtype([
    ("index", "<u4"), ("crc", "<u4"), ("arrived", "<u8"), ("started", "<u8"), ("done", "<u8"), ("core", "<u4"),
    ("tenant", "<u4"),
])
#: One thing that must not happen; `index` is 2**32 - 1 when no packet can be named.
FAULT = np.dtype([
    ("cycle", "<u8"), ("index", "<u4"), ("kind", "u1"), ("output", "u1"), ("tenant", "u1"), ("source", "u1"),
])
ACCESS = np.dtype([("address", "<u4"), ("data", "<u4"), ("write_mask", "<u4"), ("status", "<u4"), ("cycle", "<u8")])
#: What a table grants one tenant, as far as the scoreboard checks it.
GRANT = np.dtype([("ports", "<u2"), ("weight", "<u2")])
WRITE = 0x10F  # write_mask of a whole word
ACCESS_LIMIT = 64  # cycles that an access is waited for; the bus contract says 16
NO_PACKET = 2**32 - 1
MAX_TENANTS = 64

STATS = (
    "cycle", "packets", "waiting", "sources_idle", "in_flight", "twin_waiting", "completions", "twins", "faults",
    "windows", "windows_queued", "interrupts", "framing_errors", "last_arrival",
    "path_0", "forwarded", "engine", "host_twin", "no_slot", "path_5", "path_6", "path_7",
    "fault_0", "duplicated", "reordered", "corrupted", "misrouted", "wrong_result", "unexpected", "wrong_header",
    "stream_contract", "outside_epoch", "dropped_though_granted",
    "first_interrupt", "first_window", "first_epoch", "first_fault", "first_link",
)
TENANT_STATS = ("offered_packets", "offered_bytes", "taken_packets", "done_packets", "done_bytes",
                "header_wait_cycles", "backlog")
FAULT_NAMES = ("duplicated", "reordered", "corrupted", "misrouted", "wrong_result", "unexpected", "wrong_header",
               "stream_contract", "outside_epoch", "dropped_though_granted")
TRIGGERS = ("interrupt", "window", "epoch", "fault", "link")


class Outcome(IntEnum):
    """How a packet ended."""

    FORWARDED = 1
    ENGINE = 2
    HOST_TWIN = 3
    NO_SLOT = 4


class Stop(IntFlag):
    """What ends `Board.advance` before its cycles are over."""

    NOTHING = 0
    WINDOW = 1
    INTERRUPT = 2
    LINK = 4
    DRAINED = 8
    FAULT = 16


class Ready(IntEnum):
    """When a sink takes a beat. RANDOM: in `a` of 65536 cycles; PERIODIC: `a` cycles ready, then `b` not."""

    ALWAYS = 0
    RANDOM = 1
    PERIODIC = 2
    NEVER = 3


@dataclass(frozen=True)
class Account:
    """Where every packet is. `lost` is what neither came out nor was dropped by policy or cut off: must be 0."""

    offered: int
    waiting: int
    taken: int
    delivered: int
    dropped_by_policy: int
    cut_off: int
    lost: int
    duplicated: int
    reordered: int
    corrupted: int
    misrouted: int
    wrong_result: int
    unexpected: int
    wrong_header: int
    stream_contract: int
    outside_epoch: int
    dropped_though_granted: int

    @property
    def clean(self) -> bool:
        """Nothing lost, duplicated, reordered, corrupted or misrouted, no contract broken, no grant overstepped."""
        return self.lost == 0 and not any(asdict(self)[name] for name in FAULT_NAMES)

    def __str__(self) -> str:
        wrong = ", ".join(f"{value} {name}" for name, value in asdict(self).items()
                          if name in ("lost", *FAULT_NAMES) and value)
        return (f"{self.offered} offered, {self.delivered} delivered, {self.dropped_by_policy} dropped by policy, "
                f"{self.cut_off} cut off, {self.waiting} waiting; " + (wrong or "nothing wrong"))
