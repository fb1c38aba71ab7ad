"""`Workload`: packets for the board, made from requests or frames; all of it on whole numpy arrays.

Time is compressed so that the offered load is what was asked for, and requests are cut into packets; both are told in
`meta`. The first packet of a request carries its opcode, the others `SEGMENT`; `sequence` counts a tenant's packets.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gateware.config import CREDIT_BEATS, DeviceConfig
from morphnic.errors import InputError

from .board import PACKET
from .requests import Array, Requests, interleave, on_off, poisson
from .traces import Frames, read_mqsim, read_msr, read_pcap, read_trace, read_vscsi

__all__ = ["PROCESS", "WORKLOAD_REQUEST", "FlowClass", "Frames", "Requests", "Workload", "from_frames", "from_requests",
           "interleave", "merge", "offering", "on_off", "poisson", "read_mqsim", "read_msr", "read_pcap", "read_trace",
           "read_vscsi"]

SCHEMA = 1
PROCESS = 15
SEQUENCES = 1 << 24
LBA_MASK = (1 << 36) - 1
VLAN_BASE = 100  # frames of tenant t are tagged with this + t
READ, WRITE, SEGMENT = 1, 2, 0
_TAIL = 16  # bytes: no packet of a request is shorter, so that each holds its request word


class FlowClass:
    """Flow classes as numbers; the enumeration is `gateware.stream.packet.FlowClass`."""

    BEST_EFFORT, LATENCY, BATCH, REALTIME = 0, 1, 2, 3
    REQUEST, REQUEST_LATENCY, REQUEST_BATCH = 8, 9, 10


#: One request of a workload: its packets are `first_packet` to `first_packet + packets - 1` of the unsorted count.
WORKLOAD_REQUEST = np.dtype([
    ("arrival", "<u8"), ("lba", "<u8"), ("size", "<u8"), ("packets", "<u4"), ("tenant", "u1"), ("opcode", "u1"),
    ("flow_class", "u1"), ("reserved", "u1"),
])


@dataclass(frozen=True)
class Workload:
    """Packets (`sim.board.PACKET`) sorted by arrival, their payload, the requests they belong to, and where from.

    sha256: of the input (a file, or the parameters of a generator). meta: what was done to it.
    """

    name: str
    sha256: str
    packets: Array
    requests: Array
    payload: bytes = b""
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes_offered(self) -> int:
        """Bytes of all packets."""
        return int(self.packets["length"].astype(np.int64).sum())

    @property
    def last_arrival(self) -> int:
        """Cycle in which the last packet arrives."""
        return int(self.packets["arrival"].max(initial=0))

    def save(self, path: str | Path) -> Path:
        """Write a file that `load` and the simulated device read."""
        header = json.dumps({"schema": SCHEMA, "name": self.name, "sha256": self.sha256, "meta": self.meta})
        with open(path, "wb") as file:
            np.savez(file, packets=self.packets, requests=self.requests,
                     payload=np.frombuffer(self.payload, np.uint8),
                     header=np.frombuffer(header.encode(), np.uint8))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Workload:
        """Read what `save` wrote; raises `InputError`."""
        try:
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(file["header"].tobytes())
                arrays = {name: file[name] for name in ("packets", "requests", "payload")}
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such workload file") from error
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: no workload file ({error})") from error
        if header.get("schema") != SCHEMA:
            raise InputError(f"{path}: schema {header.get('schema')!r}, this software knows {SCHEMA}; make it again")
        if arrays["packets"].dtype != PACKET or arrays["requests"].dtype != WORKLOAD_REQUEST:
            raise InputError(f"{path}: made by another version; make it again")
        return cls(header["name"], header["sha256"], arrays["packets"], arrays["requests"],
                   arrays["payload"].tobytes(), header["meta"])

    def completed(self, completions: Array, first: int = 0, *, shift: int = 0) -> Array:
        """Latency in cycles of each request, or -1 while a packet of it is missing.

        completions: `Board.completions`; first: number of this workload's first packet there; shift: the `at` of load.
        """
        index = completions["index"].astype(np.int64) - first
        mine = (index >= 0) & (index < len(self.packets))
        request = self.packets["request_index"][index[mine]]
        finished = np.bincount(request, minlength=len(self.requests))
        done = np.zeros(len(self.requests), np.int64)
        np.maximum.at(done, request, completions["done"][mine].astype(np.int64))
        latency = done - self.requests["arrival"].astype(np.int64) - shift
        return np.where(finished == self.requests["packets"], latency, -1)


def from_requests(requests: Requests, config: DeviceConfig, *, load: float | None = None, capacity: float = 1.0,
                  compression: float | None = None, tenants: Mapping[int, int] | None = None,
                  destination: int | Mapping[int, int] = PROCESS,
                  flow_class: int | Mapping[int, int] = FlowClass.REQUEST_LATENCY, segment: int | None = None,
                  seed: int = 1) -> Workload:
    """A workload at the host port.

    load: offered beats a cycle over `capacity` beats a cycle: time is compressed to it; or `compression` says how
    much faster than recorded. tenants: stream to tenant (default: the same number). destination, flow_class: one for
    all or a tenant each. segment: most bytes of a packet (default `CREDIT_BEATS`, for which credit is promised).
    """
    if (load is None) == (compression is None):
        raise ValueError("exactly one of load and compression must be given")
    segment = min(CREDIT_BEATS * config.beat_bytes, config.max_packet_bytes) if segment is None else segment
    if not 2 * _TAIL <= segment <= config.max_packet_bytes:
        raise ValueError(f"segment must be in {2 * _TAIL}..{config.max_packet_bytes}, not {segment!r}")
    rows = requests.rows
    tenant = _tenant_of(requests, tenants, config)
    lengths, owner, position = cut(rows["size"], segment)
    beats = int(((lengths + config.beat_bytes - 1) // config.beat_bytes).sum())
    arrival, factor = _arrivals(requests, config, beats, load, capacity, compression)
    made = np.empty(len(rows), WORKLOAD_REQUEST)
    made["arrival"], made["lba"], made["size"], made["tenant"] = arrival, rows["lba"], rows["size"], tenant
    made["packets"] = np.bincount(owner, minlength=len(rows))
    made["opcode"] = np.where(rows["write"], WRITE, READ)
    made["flow_class"] = _each(flow_class, tenant)
    made["reserved"] = 0
    packets = np.zeros(len(lengths), PACKET)
    packets["arrival"], packets["length"], packets["request_index"] = arrival[owner], lengths, owner
    packets["tenant"], packets["flow_class"] = tenant[owner], made["flow_class"][owner]
    packets["destination"] = _each(destination, tenant)[owner]
    packets["flow_hash"] = (rows["stream"][owner] * 40503) & 0xFFFF
    packets["offset"] = -1
    packets["seed"] = np.random.default_rng(seed).integers(0, 1 << 63, len(lengths), dtype=np.uint64)
    first = position == 0
    lba = rows["lba"][owner] + (position * segment // 512).astype(np.uint64)
    packets["request"] = _request_words(lba, np.where(first, made["opcode"][owner], SEGMENT),
                                        _sequences(packets["tenant"]))
    meta = {**requests.notes, "compression": factor, "segment": segment, "beats": beats, "load": load,
            "capacity": capacity, "seed": seed, "requests": len(rows), "tenants": sorted({int(t) for t in tenant})}
    return Workload(requests.name, requests.sha256, packets, made, b"", meta)


def offering(requests: Requests, config: DeviceConfig, *, load: float, span: int, tenants: Sequence[int],
             flow_class: int | Mapping[int, int]) -> Workload:
    """As many requests, from the first on, as offer `load` of what the engines can do over `span` cycles; at least 8.

    Streams are given to `tenants` in turn. The last arrival is at about `span`, whatever the input's own pace.
    """
    beats = np.cumsum((requests.rows["size"] + config.beat_bytes - 1) // config.beat_bytes)
    part = requests.excerpt(count=max(int(np.searchsorted(beats, load * config.engine_beats * span)), 8))
    mapping = {stream: tenants[index % len(tenants)] for index, stream in enumerate(part.streams)}
    return from_requests(part, config, load=load, capacity=config.engine_beats, tenants=mapping,
                         flow_class=flow_class)


def cut(sizes: Array, segment: int) -> tuple[Array, Array, Array]:
    """Lengths of the packets of requests of `sizes`, the request of each, and its position in it.

    Every packet but the last two of a request is full; none is shorter than 16 bytes.
    """
    sizes = sizes.astype(np.int64)
    counts = np.maximum((sizes + segment - 1) // segment, 1)
    owner = np.repeat(np.arange(len(sizes)), counts)
    ends = np.cumsum(counts)
    position = np.arange(len(owner)) - np.repeat(ends - counts, counts)
    lengths = np.full(len(owner), segment, np.int64)
    lengths[ends - 1] = sizes - (counts - 1) * segment
    short = np.flatnonzero((lengths[ends - 1] < _TAIL) & (counts > 1))
    lengths[ends[short] - 1] += _TAIL
    lengths[ends[short] - 2] -= _TAIL
    return lengths, owner, position


def _tenant_of(requests: Requests, tenants: Mapping[int, int] | None, config: DeviceConfig) -> Array:
    mapping = {stream: stream for stream in requests.streams} if tenants is None else dict(tenants)
    missing = [stream for stream in requests.streams if stream not in mapping]
    if missing:
        raise InputError(f"{requests.name}: stream {missing[0]} has no tenant; give every stream one")
    bad = [stream for stream in requests.streams if not 0 <= mapping[stream] < config.tenants]
    if bad:
        raise InputError(f"{requests.name}: stream {bad[0]} would be tenant {mapping[bad[0]]}, but the device has "
                         f"{config.tenants}; give a mapping of streams to tenants")
    streams = np.array(requests.streams)
    values = np.array([mapping[stream] for stream in requests.streams])
    chosen: Array = values[np.searchsorted(streams, requests.rows["stream"])]
    return chosen


def _arrivals(requests: Requests, config: DeviceConfig, beats: int, load: float | None, capacity: float,
              compression: float | None) -> tuple[Array, float]:
    """Arrival cycle of each request, and how much faster than recorded that is."""
    times = (requests.rows["time"] - requests.rows["time"][0]).astype(np.float64)
    recorded = requests.span * config.clock_hz / 1e9  # cycles
    if load is not None:
        if not (load > 0 and capacity > 0):
            raise ValueError(f"load and capacity must be above 0, not {load!r} and {capacity!r}")
        if recorded <= 0:
            raise InputError(f"{requests.name}: all requests at one time: no load can be set")
        compression = recorded / (beats / (load * capacity))
    if compression is None or not compression > 0:
        raise ValueError(f"compression must be above 0, not {compression!r}")
    cycles = np.floor(times * (config.clock_hz / 1e9) / compression).astype(np.uint64)
    return cycles, float(compression)


def _each(value: int | Mapping[int, int], tenant: Array) -> Array:
    """One value for all, or the value of each tenant."""
    chosen: Array
    if isinstance(value, int):
        chosen = np.full(len(tenant), value)
        return chosen
    missing = sorted({int(one) for one in tenant} - set(value))
    if missing:
        raise ValueError(f"a value for tenant {missing[0]} must be given")
    table = np.zeros(int(tenant.max(initial=0)) + 1, np.int64)
    for key, one in value.items():
        if key < len(table):
            table[key] = one
    chosen = table[tenant]
    return chosen


def _sequences(tenant: Array) -> Array:
    """Running number of each packet among those of its tenant, modulo 2**24."""
    order = np.argsort(tenant, kind="stable")
    ranks = np.empty(len(tenant), np.uint64)
    _, starts, counts = np.unique(tenant[order], return_index=True, return_counts=True)
    ranks[order] = np.arange(len(tenant)) - np.repeat(starts, counts)
    return ranks % np.uint64(SEQUENCES)


def _request_words(lba: Array, opcode: Array, sequence: Array) -> Array:
    words: Array = ((lba.astype(np.uint64) & np.uint64(LBA_MASK)) | opcode.astype(np.uint64) << np.uint64(36)
                    | sequence << np.uint64(40))
    return words


def from_frames(frames: Frames, config: DeviceConfig, *, port: int, destination: int, tenants: Sequence[int],
                load: float | None = None, compression: float | None = None,
                flow_class: int = FlowClass.BEST_EFFORT, tag: bool = True) -> Workload:
    """A workload of captured frames at a network port; each frame is a request of one packet.

    tenants: pairs of IP addresses are given to these in turn. tag: insert a VLAN tag with id 100 + tenant, by which
    the classifier tells them (frames grow by 4 bytes); without it there can be one tenant only.
    """
    if port not in config.net_ports:
        raise ValueError(f"port must be one of {list(config.net_ports)}, not {port!r}")
    if not tag and len(set(tenants)) != 1:
        raise ValueError("without tags there must be one tenant")
    rows = frames.rows
    long = np.flatnonzero(rows["length"] + 4 * tag > config.max_packet_bytes)
    if len(long):
        raise InputError(f"{frames.name}: packet {int(long[0])} has {int(rows['length'][long[0]])} bytes; "
                         f"at most {config.max_packet_bytes - 4 * tag} fit the device")
    tenant = np.array(tenants)[np.maximum(rows["flow"], 0) % len(tenants)]
    payload, offset = (_tagged(frames, tenant) if tag else (frames.payload, rows["offset"]))
    lengths = rows["length"] + 4 * tag
    beats = int(((lengths + config.beat_bytes - 1) // config.beat_bytes).sum())
    times = rows["time"] - rows["time"][0]
    recorded = float(times[-1]) * config.clock_hz / 1e9
    if (load is None) == (compression is None):
        raise ValueError("exactly one of load and compression must be given")
    factor = compression if compression is not None else recorded * float(load or 0) / beats
    if not factor > 0:
        raise InputError(f"{frames.name}: all packets at one time, or no load: time cannot be compressed to it")
    packets = np.zeros(len(rows), PACKET)
    packets["arrival"] = np.floor(times * (config.clock_hz / 1e9) / factor)
    packets["offset"], packets["length"], packets["tenant"], packets["port"] = offset, lengths, tenant, port
    packets["destination"], packets["flow_class"] = destination, flow_class
    packets["request_index"] = np.arange(len(rows))
    made = np.zeros(len(rows), WORKLOAD_REQUEST)
    made["arrival"], made["size"], made["packets"], made["tenant"] = packets["arrival"], lengths, 1, tenant
    made["flow_class"] = flow_class
    meta = {**frames.notes, "compression": factor, "beats": beats, "load": load, "requests": len(rows),
            "vlan_base": VLAN_BASE if tag else None, "tenants": sorted({int(t) for t in tenant})}
    return Workload(frames.name, frames.sha256, packets, made, payload, meta)


def _tagged(frames: Frames, tenant: Array) -> tuple[bytes, Array]:
    """The frames' bytes with a VLAN tag each, and the offsets of the frames in them."""
    rows = frames.rows
    lengths = rows["length"] + 4
    offset = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    source = np.frombuffer(frames.payload, np.uint8)
    out = np.empty(int(lengths.sum()), np.uint8)
    owner = np.repeat(np.arange(len(rows)), rows["length"])
    inside = np.arange(len(owner)) - np.repeat(np.cumsum(rows["length"]) - rows["length"], rows["length"])
    out[offset[owner] + inside + np.where(inside >= 12, 4, 0)] = source[rows["offset"][owner] + inside]
    vlan = VLAN_BASE + tenant
    for place, value in ((12, np.full(len(rows), 0x81)), (13, np.zeros(len(rows), int)), (14, vlan >> 8),
                         (15, vlan & 255)):
        out[offset + place] = value
    return out.tobytes(), offset


def merge(name: str, workloads: Sequence[Workload]) -> Workload:
    """Several workloads as one, by arrival. Sequence numbers of a tenant that occurs in several are counted anew."""
    if not workloads:
        raise ValueError("at least one workload must be given")
    packets = [one.packets.copy() for one in workloads]
    requests = payload = 0
    for one, rows in zip(workloads, packets, strict=True):
        rows["request_index"] += requests
        rows["offset"] = np.where(rows["offset"] >= 0, rows["offset"] + payload, -1)
        requests += len(one.requests)
        payload += len(one.payload)
    joined = np.concatenate(packets)
    joined = joined[np.argsort(joined["arrival"], kind="stable")]
    host = np.flatnonzero(joined["port"] == 0)
    keep = joined["request"][host] & np.uint64((1 << 40) - 1)
    joined["request"][host] = keep | _sequences(joined["tenant"][host]) << np.uint64(40)
    digest = ",".join(one.sha256 for one in workloads)
    return Workload(name, digest, joined, np.concatenate([one.requests for one in workloads]),
                    b"".join(one.payload for one in workloads),
                    {"parts": [{"name": one.name, "sha256": one.sha256, **one.meta} for one in workloads]})
