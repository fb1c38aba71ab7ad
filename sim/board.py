"""`Board`: the simulated device with everything around it, in this process.

The C++ board (`sim/board/`) drives the Verilated device cycle by cycle; this class talks to it in batches through
ctypes, which releases the GIL. One thread at a time may use a board. The same calls give the same bytes.

Packets are numpy arrays of `PACKET`; what became of them comes back as arrays of `COMPLETION`, `TWIN`, `FAULT`
(`sim.records`, all of whose names are here too).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gateware.config import DeviceConfig
from morphnic.errors import InputError, LinkError, LinkTimeout, MorphnicError

from .build import Model, Progress, Variant, print_progress
from .harness import device_model
from .input_log import InputLog
from .records import (
    ACCESS,
    ACCESS_LIMIT,
    COMPLETION,
    FAULT,
    FAULT_NAMES,
    GRANT,
    MAX_TENANTS,
    NO_PACKET,
    PACKET,
    STATS,
    TENANT_STATS,
    TRIGGERS,
    TWIN,
    WRITE,
    Account,
    Array,
    Outcome,
    Ready,
    Stop,
)
from .viewer import write_save_file
from .wrapper import WAVE_SCOPE

__all__ = [
    "ACCESS", "ACCESS_LIMIT", "COMPLETION", "FAULT", "FAULT_NAMES", "GRANT", "MAX_TENANTS", "NO_PACKET",
    "PACKET", "STATS", "TENANT_STATS", "TRIGGERS", "TWIN", "WRITE", "Account", "Array", "Board", "Outcome",
    "Ready", "Stop",
]

TAIL_CYCLES = 2_000
_PAYLOAD_ROOM = 4160  # the largest packet, rounded up as the board writes it

_P, _S, _U32, _U64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint64
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "create": (_P, (_U64, _U32)), "destroy": (None, (_P,)), "cycle": (_U64, (_P,)), "device_cycle": (_U64, (_P,)),
    "epoch": (_U32, (_P,)), "interrupt": (_U32, (_P,)), "advance": (_U64, (_P, _U64, _U32)),
    "access": (None, (_P, _P, _S, _U32)), "load": (_U64, (_P, _P, _S, _P, _S, _U64)),
    "sink": (None, (_P, _U32, _U32, _U32, _U32, _U64)), "twin": (None, (_P, _U32, _U32, _U32)),
    "link_write": (None, (_P, ctypes.c_char_p, _S)), "link_waiting": (_S, (_P,)), "link_unsent": (_S, (_P,)),
    "link_read": (None, (_P, _P, _S)), "link_mode": (None, (_P, _U32, _U32, _U32)),
    "window_words": (_S, (_P,)), "window_take": (None, (_P, _P)), "payload": (_U32, (_P, _U32, _P)),
    "completions": (_S, (_P, _S, _P, _S)), "twins": (_S, (_P, _S, _P, _S)), "faults": (_S, (_P, _S, _P, _S)),
    "unfinished": (_S, (_P, _P, _S)),
    "stats": (None, (_P, _P)), "tenants": (None, (_P, _P)), "ports": (None, (_P, _P)),
    "announce": (None, (_P, _P, _S, _U32)), "storm": (None, (_P, _P, _P)), "settle_drops": (None, (_P,)),
    "pcie": (_U32, (_P,)), "pcie_access": (None, (_P, _P, _S, _U32)), "pcie_map": (None, (_P, _U64, _U64, _P, _U32)),
    "pcie_configure": (None, (_P, _U32, _U32, _U32, _U32)), "pcie_unmap": (_U32, (_P, _U64)),
    "pcie_reset": (_U32, (_P, _U32)), "pcie_faults": (_U64, (_P,)), "pcie_messages": (_S, (_P, _P, _S)),
    "trace_start": (_U32, (_P, ctypes.c_char_p)), "trace_stop": (None, (_P,)),
}


def _library(model: Model) -> dict[str, Any]:
    library = ctypes.CDLL(str(model.library))
    functions = {}
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, f"board_{name}")
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions


class Board:
    """A device and its surroundings. Created in reset state at cycle 0; `close()` frees the model.

    component: makes the top level, by default the device itself. model: an already built one (saves the elaboration).
    log_inputs: keep what `waveform` needs to repeat the run.
    """

    def __init__(self, config: DeviceConfig | None = None, *, component: Callable[[], Any] | None = None,
                 model: Model | None = None, variant: Variant = Variant.FAST, uid: int = 1, boot_nonce: int = 1,
                 log_inputs: bool = True, progress: Progress = print_progress) -> None:
        self.config = config or DeviceConfig()
        self.uid, self.boot_nonce = uid, boot_nonce
        self._component, self._progress = component, progress
        self.model = model or device_model(self.config, component=component, variant=variant, progress=progress)
        self._call = _library(self.model)
        self._log = InputLog(keep=log_inputs)
        self._handle: Any = self._call["create"](uid, boot_nonce)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the model; the board cannot be used afterwards."""
        if self._handle is not None:
            self._call["destroy"](self._handle)
            self._handle = None

    def reset(self, *, boot_nonce: int | None = None) -> None:
        """Start again from power-on: the device, the queues, the records and the clock."""
        self._call["destroy"](self._open)
        self.boot_nonce = self.boot_nonce + 1 if boot_nonce is None else boot_nonce
        self._handle = self._call["create"](self.uid, self.boot_nonce)
        self._log.clear()

    @property
    def _open(self) -> Any:
        if self._handle is None:
            raise MorphnicError("the board is closed; make a new one")
        return self._handle

    # Time

    @property
    def cycle(self) -> int:
        """Cycles since reset."""
        return int(self._call["cycle"](self._open))

    @property
    def device_cycle(self) -> int:
        """The device's own cycle counter."""
        return int(self._call["device_cycle"](self._open))

    @property
    def epoch(self) -> int:
        """Epoch of the allocation in force."""
        return int(self._call["epoch"](self._open))

    @property
    def interrupt(self) -> bool:
        """Level of the interrupt line."""
        return bool(self._call["interrupt"](self._open))

    def advance(self, cycles: int, stop: Stop = Stop.NOTHING) -> int:
        """Run for `cycles`, or until something in `stop` happens. Returns the cycles run."""
        if cycles < 0:
            raise ValueError(f"cycles must be at least 0, not {cycles!r}")
        done = int(self._call["advance"](self._open, cycles, int(stop)))
        if done:
            self._log.advanced(done)
        return done

    # Registers

    def access(self, accesses: Array) -> Array:
        """Carry out `ACCESS` rows in order; the same rows with data, status (0, 1 error, 2 no answer) and cycle."""
        rows = np.ascontiguousarray(accesses, dtype=ACCESS).copy()
        self._log.note("access", rows.copy())
        self._call["access"](self._open, rows.ctypes.data, len(rows), ACCESS_LIMIT)
        return rows

    def read(self, address: int) -> int:
        """The register at a *word* address. A bus error or no answer raises."""
        return int(self._one(address, 0, 0)["data"])

    def write(self, address: int, value: int, mask: int = 15) -> None:
        """Write the register at a *word* address; `mask` enables bytes."""
        self._one(address, value, 0x100 | mask)

    def _one(self, address: int, data: int, write_mask: int) -> Any:
        if not 0 <= address < 1 << 16:
            raise ValueError(f"address must be a word address in 0..65535, not {address!r}")
        row = self.access(np.array([(address, data & 0xFFFFFFFF, write_mask, 0, 0)], dtype=ACCESS))[0]
        what = "write to" if write_mask else "read of"
        if row["status"] == 2:
            raise LinkTimeout(f"{what} register 0x{address * 4:05x}: no answer within {ACCESS_LIMIT} cycles")
        if row["status"] == 1:
            raise LinkError(f"{what} register 0x{address * 4:05x} was refused: no such register, or not allowed")
        return row

    # PCI Express

    def pcie_call(self, name: str, *arguments: Any) -> Any:
        """A function of the root complex (`sim.root_complex`). What it does is not repeated for a waveform."""
        self._log.give_up()
        return self._call[f"pcie_{name}" if name else "pcie"](self._open, *arguments)

    # Traffic

    def load(self, packets: Array, payload: bytes = b"", *, at: int = 0) -> int:
        """Queue packets (`PACKET`); arrivals count from cycle `at`. Returns the number of the first one.

        Within each queue (a tenant of the host port, or a network port) arrivals must not decrease; the array is
        sorted by arrival here, keeping the order of equal ones. Numbers follow the sorted order.
        """
        rows = np.ascontiguousarray(packets, dtype=PACKET)
        self._check(rows, payload)
        if len(rows) and np.any(np.diff(rows["arrival"].astype(np.int64)) < 0):
            rows = np.ascontiguousarray(rows[np.argsort(rows["arrival"], kind="stable")])
        if len(rows) and int(rows["arrival"][0]) + at < self._last_arrival():
            raise ValueError(f"packets must not arrive before those already loaded (cycle {self._last_arrival()})")
        self._log.note("load", rows.copy(), payload, at=at)
        return int(self._call["load"](self._open, rows.ctypes.data, len(rows), payload, len(payload), at))

    def _last_arrival(self) -> int:
        return self.stats()["last_arrival"]

    def _check(self, rows: Array, payload: bytes) -> None:
        sources = [self.config.host_port, *self.config.net_ports]
        limits: list[tuple[Array, str]] = [
            ((rows["length"] >= 1) & (rows["length"] <= self.config.max_packet_bytes),
             f"length must be in 1..{self.config.max_packet_bytes}"),
            (rows["tenant"] < self.config.tenants, f"tenant must be below {self.config.tenants}"),
            (np.isin(rows["port"], sources), f"port must be one of {sources}"),
            (rows["destination"] < 16, "destination must be below 16"),
            (rows["flow_class"] < 16, "flow_class must be below 16"),
            ((rows["offset"] < 0) | (rows["offset"] + rows["length"] <= len(payload)),
             f"offset + length must be within the payload of {len(payload)} bytes"),
        ]
        for good, rule in limits:
            if not np.all(good):
                index = int(np.argmin(good))
                fields = dict(zip(PACKET.names or (), rows[index].tolist(), strict=True))
                raise InputError(f"packet {index}: {rule}; it is {fields}")

    def sink(self, port: int, ready: Ready, a: int = 0, b: int = 0, *, seed: int = 1) -> None:
        """Set when the sink of `port` (0: the host, then the network ports) takes beats."""
        if not 0 <= port < self.config.ports - 1:
            raise ValueError(f"port must be in 0..{self.config.ports - 2}, not {port!r}")
        self._log.note("sink", port, ready, a, b, seed=seed)
        self._call["sink"](self._open, port, int(ready), a, b, seed)

    def twin(self, *, cores: int, cycles_per_packet: int, cycles_per_byte: float) -> None:
        """Parameters of the host's software twin: a model, first come first served over `cores`."""
        if cores < 1:
            raise ValueError(f"cores must be at least 1, not {cores!r}")
        self._log.note("twin", cores=cores, cycles_per_packet=cycles_per_packet, cycles_per_byte=cycles_per_byte)
        self._call["twin"](self._open, cores, cycles_per_packet, round(cycles_per_byte * 256))

    # The serial link

    def link_write(self, data: bytes) -> None:
        """Queue bytes for the device's serial link."""
        self._log.note("link_write", data)
        self._call["link_write"](self._open, data, len(data))

    def link_read(self) -> bytes:
        """All bytes that the device has sent on its serial link so far."""
        size = int(self._call["link_waiting"](self._open))
        buffer = (ctypes.c_uint8 * size)()
        self._log.note("link_read")
        self._call["link_read"](self._open, buffer, size)
        return bytes(buffer)

    @property
    def link_unsent(self) -> int:
        """Bytes that the device has not taken yet."""
        return int(self._call["link_unsent"](self._open))

    def link_mode(self, *, pins: bool = False, divisor: float = 0, cycles_per_byte: int = 0) -> None:
        """Attach the link at the byte stream (optionally paced), or bit by bit at the pins.

        divisor: cycles a bit, to an eighth; by default those of the device's rate after reset.
        """
        self._log.note("link_mode", pins=pins, divisor=divisor, cycles_per_byte=cycles_per_byte)
        self._call["link_mode"](self._open, int(pins), round(8 * divisor), cycles_per_byte)

    # What came out

    def windows(self) -> list[Array]:
        """Window snapshots (32-bit words) that the device pushed since the last call."""
        found = []
        while size := int(self._call["window_words"](self._open)):
            words = np.empty(size, dtype=np.uint32)
            self._call["window_take"](self._open, words.ctypes.data)
            found.append(words)
        return found

    def completions(self, since: int = 0) -> Array:
        """Finished packets (`COMPLETION`), from the one numbered `since` in order of completion."""
        return self._records("completions", COMPLETION, since)

    def twins(self, since: int = 0) -> Array:
        """Requests that the host's software twin finished (`TWIN`)."""
        return self._records("twins", TWIN, since)

    def payload(self, index: int) -> bytes:
        """Bytes of the packet that was loaded as number `index`."""
        loaded = self.stats()["packets"]
        if not 0 <= index < loaded:
            raise ValueError(f"index must be below the {loaded} packets loaded, not {index!r}")
        buffer = np.empty(_PAYLOAD_ROOM, dtype=np.uint8)
        length = int(self._call["payload"](self._open, index, buffer.ctypes.data))
        return buffer[:length].tobytes()

    def faults(self, since: int = 0) -> Array:
        """What went wrong (`FAULT`), the first 10,000."""
        return self._records("faults", FAULT, since)

    def _records(self, name: str, dtype: np.dtype[Any], since: int) -> Array:
        room = max(self.stats()[name] - since, 0)
        rows = np.empty(room, dtype=dtype)
        count = int(self._call[name](self._open, since, rows.ctypes.data, room))
        return rows[:count]

    def unfinished(self, limit: int = 1 << 20) -> Array:
        """Numbers of packets that the device took and that did not come out (yet, or ever)."""
        rows = np.empty(limit, dtype=np.uint32)
        return rows[:int(self._call["unfinished"](self._open, rows.ctypes.data, limit))].copy()

    def stats(self) -> dict[str, int]:
        """All counters, by name (`STATS`). A `first_` figure that did not happen is 2**64 - 1."""
        values = np.zeros(len(STATS), dtype=np.uint64)
        self._call["stats"](self._open, values.ctypes.data)
        return dict(zip(STATS, values.tolist(), strict=True))

    def tenants(self) -> Array:
        """Counters a tenant (`TENANT_STATS`); `backlog` is what has arrived and waits at the host port."""
        values = np.zeros((MAX_TENANTS, len(TENANT_STATS)), dtype=np.uint64)
        self._call["tenants"](self._open, values.ctypes.data)
        rows = np.empty(self.config.tenants, dtype=[(name, "<u8") for name in TENANT_STATS])
        for column, name in enumerate(TENANT_STATS):
            rows[name] = values[:self.config.tenants, column]
        return rows

    def ports(self) -> Array:
        """Packets and beats that left on the host port and each network port: a row a port."""
        values = np.zeros((self.config.ports - 1, 2), dtype=np.uint64)
        self._call["ports"](self._open, values.ctypes.data)
        return values

    def drain(self, limit: int, *, quiet: int = 20_000) -> bool:
        """Run until every packet came out; False when nothing finished for `quiet` cycles after the last arrival.

        Packets that the device dropped never come out: then the answer is False, and `account` tells. Some cycles
        more are run at the end, in which a duplicate of the last packet would appear.
        """
        end = self.cycle + limit
        while self.cycle < end:
            before = self.stats()
            self.advance(min(quiet, end - self.cycle), Stop.DRAINED)
            now = self.stats()
            if not (now["waiting"] or now["in_flight"] or now["twin_waiting"]) and now["sources_idle"]:
                self.advance(TAIL_CYCLES)
                return True
            changed = any(before[name] != now[name] for name in ("completions", "waiting", "in_flight"))
            if not changed and now["cycle"] > now["last_arrival"]:
                return False
        return False

    def account(self, *, dropped: int = 0, cut: int = 0) -> Account:
        """Where every packet is, given what the device's own counters say it dropped by policy and cut off."""
        stats = self.stats()
        tenants = self.tenants()
        taken, done = int(tenants["taken_packets"].sum()), int(tenants["done_packets"].sum())
        gone = stats["in_flight"] + stats["twin_waiting"]
        return Account(
            offered=stats["packets"], waiting=stats["packets"] - taken, taken=taken, delivered=done,
            dropped_by_policy=dropped, cut_off=cut, lost=gone - dropped - cut,
            **{name: stats[name] for name in FAULT_NAMES},
        )

    # Epochs and commits

    def announce(self, grants: Array, *, in_force: bool = False) -> None:
        """Say what the next epoch grants (`GRANT`, a tenant each), or the one in force, from which on packets are
        checked: each must leave by an output that the table of the epoch in its header grants, in that epoch's time.
        """
        rows = np.ascontiguousarray(grants, dtype=GRANT)
        self._log.note("announce", rows.copy(), in_force=in_force)
        self._call["announce"](self._open, rows.ctypes.data, len(rows), int(in_force))

    def storm(self, plan: ctypes.Structure, outcome: ctypes.Structure) -> None:
        """Carry out a plan of random commits (`sim.storm`) while the traffic flows; fills in `outcome`."""
        self._log.note("storm", plan, outcome)
        self._call["storm"](self._open, ctypes.addressof(plan), ctypes.addressof(outcome))

    def settle_drops(self) -> None:
        """Once nothing is in the device: check that no packet of the host port was dropped that was granted."""
        self._log.note("settle_drops")
        self._call["settle_drops"](self._open)

    # Waveforms

    def trigger_cycle(self, name: str) -> int:
        """Cycle in which `name` (`TRIGGERS`) happened for the first time."""
        if name not in TRIGGERS:
            raise ValueError(f"trigger must be one of {', '.join(TRIGGERS)}, not {name!r}")
        cycle = self.stats()[f"first_{name}"]
        if cycle == 2**64 - 1:
            raise InputError(f"trigger {name!r} has not happened by cycle {self.cycle}; advance further first")
        return cycle

    def waveform(self, path: str | Path, *, start: int | None = None, cycles: int = 1000,
                 trigger: str | None = None, before: int = 100) -> tuple[int, int]:
        """Write a VCD of `cycles` from `start`, or from `before` cycles ahead of a trigger; the span written.

        A save file for the viewer is beside it, with the suffix `.gtkw` (see `sim/viewer.py`).
        The run so far is repeated in the trace build with the same inputs: it must be in the past.
        """
        if (start is None) == (trigger is None):
            raise ValueError("exactly one of start and trigger must be given")
        first = max(self.trigger_cycle(trigger) - before, 0) if trigger is not None else int(start or 0)
        if not self._log.complete:
            raise InputError("inputs were not logged (switched off, or too many): no waveform of this run")
        if not 0 <= first < self.cycle:
            raise InputError(f"cycle {first} has not happened yet (now {self.cycle}); advance first")
        end = min(first + cycles, self.cycle)
        target = Path(path)
        if not target.parent.is_dir():
            raise InputError(f"{target}: the folder does not exist: make it, or name another")
        with Board(self.config, component=self._component, variant=Variant.TRACE, uid=self.uid,
                   boot_nonce=self.boot_nonce, log_inputs=False, progress=self._progress) as again:
            self._log.repeat(again, lambda: again._start_trace(target), first, end)
            again._call["trace_stop"](again._open)
            write_save_file(target, again.model.verilog, WAVE_SCOPE)
        return first, end

    def _start_trace(self, path: Path) -> None:
        if self._call["trace_start"](self._open, str(path).encode()):
            raise InputError(f"{path} cannot be written")
