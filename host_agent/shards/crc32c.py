"""The software twin of the CRC-32C shard (shard 1): the same response as the engine slot, byte for byte.

A response is 16 bytes: 0..7 the request's first eight bytes (zeros where the request is shorter), 8..11 the
CRC-32C (Castagnoli) of the whole payload, little-endian, 12 status (0 done), 13 shard id, 14..15 zero.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import google_crc32c

__all__ = ["RESPONSE_BYTES", "SHARD_ID", "Throughput", "WorkerPool", "process"]

SHARD_ID = 1
STATUS_DONE = 0
RESPONSE_BYTES = 16
_RESPONSE = struct.Struct("<8sIBBH")


def process(payload: bytes) -> bytes:
    """Response to one request packet's payload."""
    request_word = payload[:8].ljust(8, b"\0")
    return _RESPONSE.pack(request_word, google_crc32c.value(payload), STATUS_DONE, SHARD_ID, 0)


@dataclass(frozen=True)
class Throughput:
    """What a pool did since it was made: requests, payload bytes, and the seconds in which any worker worked."""

    requests: int
    bytes: int
    busy_s: float

    @property
    def bytes_per_second(self) -> float | None:
        """Payload rate while at work; None before the first request."""
        return self.bytes / self.busy_s if self.busy_s > 0 else None


class WorkerPool:
    """Processes batches of requests on the host's cores and measures its own throughput.

    Responses come in the order of the requests. Threads share the payloads without copying them; how much a second
    one brings depends on whether the CRC library lets go of the interpreter's lock, so throughput is measured and
    never computed from the number of workers. A batch is cut into one piece a worker: a packet takes about a
    microsecond, so that handing over single packets would cost more than the work.
    """

    def __init__(self, workers: int | None = None) -> None:
        count = len(os.sched_getaffinity(0)) if workers is None else workers
        if count < 1:
            raise ValueError(f"workers must be at least 1, not {count!r}")
        self.workers = count
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="shard-crc32c")
        self._lock = threading.Lock()
        self._active = 0
        self._since = 0.0
        self._requests = self._bytes = 0
        self._busy = 0.0

    def process(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Responses to a batch."""
        if not payloads:
            return []
        size = -(-len(payloads) // self.workers)
        pieces = [payloads[start:start + size] for start in range(0, len(payloads), size)]
        self._start()
        done = False
        try:
            responses = [one for piece in self._executor.map(_process_piece, pieces) for one in piece]
            done = True
        finally:
            self._stop(payloads if done else ())
        return responses

    @property
    def throughput(self) -> Throughput:
        """Measured since the pool was made; time without a batch does not count."""
        with self._lock:
            running = time.perf_counter() - self._since if self._active else 0.0
            return Throughput(self._requests, self._bytes, self._busy + running)

    def _start(self) -> None:
        with self._lock:
            if self._active == 0:
                self._since = time.perf_counter()
            self._active += 1

    def _stop(self, payloads: Iterable[bytes]) -> None:
        with self._lock:
            self._active -= 1
            if self._active == 0:
                self._busy += time.perf_counter() - self._since
            for payload in payloads:
                self._requests += 1
                self._bytes += len(payload)

    def close(self) -> None:
        """Finish what is being done and end the workers."""
        self._executor.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _process_piece(payloads: Sequence[bytes]) -> list[bytes]:
    return [process(payload) for payload in payloads]
