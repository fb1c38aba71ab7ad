"""Requests, before they become packets: what a trace or a generator says, in its own time.

`Requests` is a numpy array of `REQUEST` in order of time, with a name, the SHA-256 of its input, and notes on what was
done to it. `stream` is the device or disk of a trace; which tenant it becomes is decided later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from morphnic.errors import InputError

Array = npt.NDArray[Any]

SECTOR = 512
SMALLEST_REQUEST = 16  # bytes: a request word, and room to tell requests apart
LARGEST_REQUEST = 1 << 30

REQUEST = np.dtype([("time", "<i8"), ("stream", "<i8"), ("lba", "<u8"), ("size", "<i8"), ("write", "?")])


@dataclass(frozen=True)
class Requests:
    """Requests sorted by time (ns from an arbitrary origin); `size` in bytes, `lba` in sectors of 512 bytes."""

    rows: Array
    name: str
    sha256: str
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows.dtype != REQUEST:
            raise ValueError(f"rows must have the dtype REQUEST, not {self.rows.dtype!r}")
        if len(self.rows) == 0:
            raise InputError(f"{self.name}: no requests")
        bad = np.flatnonzero((self.rows["size"] < SMALLEST_REQUEST) | (self.rows["size"] > LARGEST_REQUEST))
        if len(bad):
            raise InputError(f"{self.name}: request {int(bad[0])} has {int(self.rows['size'][bad[0]])} bytes; "
                             f"sizes are in {SMALLEST_REQUEST}..{LARGEST_REQUEST}")
        if np.any(np.diff(self.rows["time"]) < 0):
            object.__setattr__(self, "rows", self.rows[np.argsort(self.rows["time"], kind="stable")])

    @property
    def bytes(self) -> int:
        """Sum of the sizes."""
        return int(self.rows["size"].sum())

    @property
    def span(self) -> int:
        """Nanoseconds from the first request to the last."""
        return int(self.rows["time"][-1] - self.rows["time"][0])

    @property
    def streams(self) -> list[int]:
        """The streams that occur, in ascending order."""
        return [int(one) for one in np.unique(self.rows["stream"])]

    def excerpt(self, *, first: int = 0, count: int | None = None, seconds: float | None = None,
                streams: Sequence[int] | None = None) -> Requests:
        """A part: of some streams, from request `first` on, at most `count`, within `seconds`."""
        rows = self.rows if streams is None else self.rows[np.isin(self.rows["stream"], list(streams))]
        rows = rows[first:] if count is None else rows[first:first + count]
        if seconds is not None and len(rows):
            rows = rows[rows["time"] <= rows["time"][0] + int(seconds * 1e9)]
        note = {"first": first, "count": len(rows)}
        return replace(self, rows=rows, notes={**self.notes, "excerpt": note})

    def scale_sizes(self, factor: float) -> Requests:
        """Sizes times `factor`, in whole sectors and at least one."""
        if not factor > 0:
            raise ValueError(f"factor must be above 0, not {factor!r}")
        rows = self.rows.copy()
        rows["size"] = np.maximum(np.rint(rows["size"] * factor / SECTOR).astype(np.int64), 1) * SECTOR
        return replace(self, rows=rows, notes={**self.notes, "payload_scale": factor})


def digest_of(parameters: dict[str, Any]) -> str:
    """SHA-256 of generated input: of the parameters that determine it."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


def poisson(*, seed: int, stream: int = 0, count: int = 1000, rate: float = 10_000.0, size: int | Sequence[int] = 4096,
            write_share: float = 0.5, sequential_share: float = 0.0, name: str | None = None) -> Requests:
    """Requests at random times: `rate` a second; sizes drawn from `size`."""
    gaps = np.random.default_rng([seed, stream, 1]).exponential(1e9 / rate, count)
    parameters = {"generator": "poisson", "seed": seed, "stream": stream, "count": count, "rate": rate,
                  "size": size if isinstance(size, int) else list(size), "write_share": write_share,
                  "sequential_share": sequential_share}
    return _generated(np.cumsum(gaps), parameters, name)


def on_off(*, seed: int, stream: int = 0, count: int = 1000, rate: float = 10_000.0, burst: int = 32,
           on_share: float = 0.2, size: int | Sequence[int] = 4096, write_share: float = 0.5,
           sequential_share: float = 0.0, name: str | None = None) -> Requests:
    """Bursts of `burst` requests on average; `rate` a second over all, all of it within `on_share` of the time.

    Time 0 is anywhere in the alternation, so that streams that differ in their number only do not begin together.
    """
    if not 0 < on_share <= 1:
        raise ValueError(f"on_share must be in 0..1 and above 0, not {on_share!r}")
    rng = np.random.default_rng([seed, stream, 2])
    gaps = rng.exponential(1e9 * on_share / rate, count)
    ends = rng.random(count) < 1 / burst
    pauses = rng.exponential(1e9 * burst * (1 - on_share) / rate, count)
    parameters = {"generator": "on_off", "seed": seed, "stream": stream, "count": count, "rate": rate, "burst": burst,
                  "on_share": on_share, "size": size if isinstance(size, int) else list(size),
                  "write_share": write_share, "sequential_share": sequential_share}
    # A pause has no memory: what is left of one that is under way is distributed as a whole one.
    phase = 0.0 if rng.random() < on_share else rng.exponential(1e9 * burst * (1 - on_share) / rate)
    return _generated(phase + np.cumsum(gaps + np.where(ends, pauses, 0)), parameters, name)


def interleave(parts: Sequence[Requests], name: str) -> Requests:
    """Several inputs as one, in order of time; each keeps its own streams."""
    if not parts:
        raise ValueError("parts must have at least one element")
    rows = np.concatenate([part.rows for part in parts])
    digest = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    return Requests(rows, name, digest, {"inputs": [part.name for part in parts]})


def _generated(times: Array, parameters: dict[str, Any], name: str | None) -> Requests:
    count = len(times)
    rng = np.random.default_rng([parameters["seed"], parameters["stream"], 3])
    rows = np.empty(count, REQUEST)
    rows["time"] = times.astype(np.int64)
    rows["stream"] = parameters["stream"]
    rows["size"] = rng.choice(np.atleast_1d(parameters["size"]), count)
    rows["write"] = rng.random(count) < parameters["write_share"]
    rows["lba"] = rng.integers(0, 1 << 30, count)
    sequential = rng.random(count) < parameters["sequential_share"]
    sectors = (rows["size"] + SECTOR - 1) // SECTOR
    _continue_runs(rows["lba"], sectors, sequential)
    label = name or f"{parameters['generator']}-{parameters['stream']}-seed{parameters['seed']}"
    return Requests(rows, label, digest_of(parameters), {"generated": parameters})


def _continue_runs(lba: Array, sectors: Array, sequential: Array) -> None:
    """Each sequential request begins where the one before it ended."""
    sequential[0] = False
    before = np.concatenate([[0], np.cumsum(sectors)[:-1]])  # sectors of all earlier requests
    start = np.maximum.accumulate(np.where(sequential, 0, np.arange(len(lba))))  # first request of the run
    lba[:] = lba[start] + (before - before[start]).astype(np.uint64)
