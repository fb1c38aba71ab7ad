"""The host's share of the processing, done by the host's software: the shard that is tenant 0's capacity.

When the loop moves processing to the host, packets leave the device unprocessed. The simulation decides in device time
when the host's cores are done with each (a model, so that a run can be repeated); here their payloads go through the
real software shard, its answers are compared with what the board's scoreboard computed, and its rate is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import device_link
from host_agent.shards.crc32c import WorkerPool
from sim.workloads import Workload

__all__ = ["HostWork", "process_on_host"]

CRC = slice(8, 12)  # of a response


@dataclass(frozen=True)
class HostWork:
    """What the host processed: requests, payload bytes, wrong answers, measured bytes a second (None: no work)."""

    requests: int
    bytes: int
    wrong: int
    bytes_per_second: float | None


def process_on_host(device: device_link.Device, workload: Workload, folder: Path) -> HostWork:
    """Process every packet that went to the host; the workload must be the first that the board loaded."""
    records, bodies = folder / "host.npy", folder / "host.bin"
    device.transport.control({"op": "records", "kind": "twins", "path": str(records), "payloads": str(bodies)})
    rows: Any = np.load(records)
    lengths = workload.packets["length"][rows["index"]].astype(np.int64)
    return _process(_cut(bodies.read_bytes(), lengths.tolist()), rows["crc"].tolist())


def _cut(together: bytes, lengths: list[int]) -> list[bytes]:
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    if (ends[-1] if ends else 0) != len(together):
        raise ValueError(f"payloads must have the {sum(lengths)} bytes of their packets, not {len(together)}")
    return [together[end - length:end] for end, length in zip(ends, lengths, strict=True)]


def _process(payloads: list[bytes], expected: list[int]) -> HostWork:
    with WorkerPool() as pool:
        answers = pool.process(payloads)
        measured = pool.throughput
    wrong = sum(int.from_bytes(answer[CRC], "little") != crc for answer, crc in zip(answers, expected, strict=True))
    return HostWork(len(payloads), measured.bytes, wrong, measured.bytes_per_second if payloads else None)
