"""The fabric alone in a C++ rig: traffic, sinks and a complete check of what comes out, at a million cycles a second.

For benches and statistical tests of `gateware.fabric`; the device has the board (`sim.board`). One process a `Rig`;
results are the same for the same seed and calls.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gateware.config import DeviceConfig

from .build import Harness, Port, Progress, build, cached_verilog, print_progress, to_verilog

_ROOT = Path(__file__).parent.parent
_SOURCES = (_ROOT / "sim" / "rig" / "rig.cpp", _ROOT / "sim" / "board" / "bits.hpp")
ANY = -1  # tenant or destination: drawn for each packet

RECORD = np.dtype([("done", "u8"), ("latency", "u4"), ("beats", "u4"), ("tenant", "u1"), ("input", "u1"),
                   ("output", "u1"), ("cut", "u1"), ("unused", "u4")])


@dataclass(frozen=True)
class Flow:
    """What one source offers at one input.

    window: beats that it keeps in the fabric at most (0: no limit). interval: mean cycles between packets (0: always
    one waits). on, off: it offers for `on` cycles, then pauses for `off`. sizes: of its packets, drawn evenly.
    """

    input: int
    tenant: int
    destination: int
    sizes: Sequence[int] = (16,)
    window: int = 0
    interval: int = 0
    on: int = 0
    off: int = 0


class _CFlow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("input", "tenant", "destination", "window", "interval", "on",
                                                    "off")] + [("sizes", ctypes.c_int32 * 4)]


@dataclass(frozen=True)
class Row:
    """A row of the allocation."""

    weight: int = 4096
    rate: int = 1 << 16
    burst: int = 512
    pages: int = 2
    ports: int = 0xFF
    slots: int = 0
    host_share: int = 0


class Rig:
    """One fabric, after reset; its engines' port is a port like the others, unless `want` says less."""

    def __init__(self, config: DeviceConfig, *, seed: int = 1, progress: Progress = print_progress) -> None:
        self.config = config
        self._library = _library(config, progress)
        self._rig = ctypes.c_void_p(self._library.rig_new(seed))

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._library.rig_free(self._rig)

    def commit(self, rows: Sequence[Row]) -> None:
        """Make `rows`, one a tenant, the active table; a cycle a row passes."""
        for tenant, row in enumerate(rows):
            self._library.rig_row(self._rig, tenant, (ctypes.c_uint32 * 7)(*astuple(row)))
        self._library.rig_commit(self._rig, sum(row.pages for row in rows))

    def offer(self, *flows: Flow) -> None:
        """Add sources."""
        for flow in flows:
            sizes = (ctypes.c_int32 * 4)(*flow.sizes)
            entry = _CFlow(flow.input, flow.tenant, flow.destination, flow.window, flow.interval, flow.on, flow.off,
                           sizes)
            self._library.rig_flow(self._rig, ctypes.byref(entry))

    def quiet(self) -> None:
        """Remove all sources; what they have offered goes on."""
        self._library.rig_quiet(self._rig)

    def sink(self, output: int, *, every: int = 1, stuck: bool = False) -> None:
        """The sink of `output` takes a beat in every `every`-th cycle, or none at all."""
        self._library.rig_sink(self._rig, output, every, stuck)

    def want(self, packets: int) -> None:
        """How many packets may be on the way to the engines at any time (`wanted` of the fabric's `engine` port)."""
        self._library.rig_want(self._rig, packets)

    def sample(self, every: int) -> None:
        """From now on, count beats by output and tenant in windows of `every` cycles; forget what was counted."""
        self._library.rig_sample(self._rig, every)

    def run(self, cycles: int) -> None:
        """Let `cycles` pass."""
        self._library.rig_run(self._rig, cycles)

    def drain(self, limit: int = 1_000_000) -> None:
        """Stop offering and run until nothing is inside; raises RuntimeError when something stays."""
        self.quiet()
        end = self.cycle + limit
        while self.inside:
            if self.cycle >= end:
                raise RuntimeError(f"{self.inside} packets are still in the fabric after {limit} cycles")
            self.run(1000)

    @property
    def cycle(self) -> int:
        return int(self._library.rig_cycle(self._rig))

    @property
    def faults(self) -> int:
        """Packets and beats that were not as expected: lost, repeated, out of order, altered."""
        return int(self._library.rig_faults(self._rig))

    @property
    def drops(self) -> int:
        return int(self._library.rig_drops(self._rig))

    @property
    def admitted(self) -> int:
        return int(self._library.rig_admitted(self._rig))

    @property
    def inside(self) -> int:
        """Packets that were offered and have not left."""
        return int(self._library.rig_inside(self._rig))

    def starved(self, output: int) -> int:
        """Cycles since `sample` in which a packet for `output` was inside, its sink ready, and no beat there."""
        return int(self._library.rig_starved(self._rig, output))

    def samples(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]:
        """Beats, and whether the tenant had a packet inside throughout, both by [window, output, tenant]."""
        data, full = ctypes.POINTER(ctypes.c_uint32)(), ctypes.POINTER(ctypes.c_uint8)()
        count = self._library.rig_samples(self._rig, ctypes.byref(data), ctypes.byref(full))
        shape = (-1, self.config.ports, self.config.tenants)
        if not count:
            return np.zeros((0, *shape[1:]), np.uint32), np.zeros((0, *shape[1:]), bool)
        return (np.ctypeslib.as_array(data, (count,)).reshape(shape).copy(),
                np.ctypeslib.as_array(full, (count,)).reshape(shape).astype(bool))

    def records(self) -> npt.NDArray[Any]:
        """Packets that have come out since `sample`, a `RECORD` each; latency counts from when it was offered."""
        data = ctypes.c_void_p()
        count = self._library.rig_records(self._rig, ctypes.byref(data))
        if not count:
            return np.zeros(0, RECORD)
        return np.frombuffer(ctypes.string_at(data, count * RECORD.itemsize), RECORD)


def _bindings(ports: Sequence[Port], config: DeviceConfig) -> str:
    """Text of `rig_ports.h`: sizes, and ports by number."""
    members = {port.name: port.member for port in ports}

    def table(prefix: str, names: Sequence[str]) -> list[str]:
        lines = []
        for name in names:
            each = [f"t.{members[f'{prefix}__{port}__{name}']}" for port in range(config.ports)]
            chain = each[-1]
            for port in reversed(range(config.ports - 1)):
                chain = f"(i == {port} ? {each[port]} : {chain})"
            lines.append(f"inline auto& {prefix}__{name}(Vtop& t, unsigned i) {{ return {chain}; }}")
        return lines

    pins = ["allocation__bank", "allocation__tenant", "allocation__row", "allocation__write", "allocation__active_bank",
            "allocation__epoch", "allocation__sum_pages", "engine__eligible", "engine__wanted"]
    packet = [f"{stream}__{pin}" for stream in ("header", "data") for pin in ("payload", "valid", "ready")]
    from gateware.fabric.events import MOST_WANTED

    lines = ["#pragma once", f"#define RIG_MOST_WANTED {MOST_WANTED}",
             f"#define RIG_PORTS {config.ports}", f"#define RIG_TENANTS {config.tenants}",
             f"#define RIG_WIDTH {config.data_width}",
             *(f"inline auto& {name}(Vtop& t) {{ return t.{members[name]}; }}" for name in pins),
             *table("inputs", packet), *table("outputs", packet), *table("ingress", ["admit", "drop"]),
             "#define RIG_IN(t, i, name) inputs__##name(t, i)", "#define RIG_OUT(t, i, name) outputs__##name(t, i)",
             "#define RIG_INGRESS(t, i, name) ingress__##name(t, i)", "#define RIG_PIN(t, name) name(t)"]
    return "\n".join(lines) + "\n"


@cache
def _library(config: DeviceConfig, progress: Progress) -> ctypes.CDLL:
    def elaborate() -> str:
        from gateware.fabric.fabric import Fabric

        return to_verilog(Fabric(config))

    sources = sorted((_ROOT / "gateware").rglob("*.py"))
    verilog = cached_verilog(["fabric", config.digest()], sources, elaborate, progress,
                             what="the fabric")
    harness = Harness("rig", _SOURCES, lambda ports: {"rig_ports.h": _bindings(ports, config)},
                      version=config.digest() + Path(__file__).read_text())
    library = ctypes.CDLL(str(build(verilog, harness, progress=progress, what="the fabric's rig").library))
    library.rig_new.restype = ctypes.c_void_p
    library.rig_new.argtypes = [ctypes.c_uint64]
    for name in ("cycle", "faults", "drops", "admitted", "starved", "inside", "samples", "records"):
        getattr(library, f"rig_{name}").restype = ctypes.c_uint64
    library.rig_run.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
    return library
