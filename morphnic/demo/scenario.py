"""What the demo plays: the workload, who is in which class, and the two policies that are compared.

With `MORPHNIC_DATA` (or `--trace`) the block requests and the capture are recorded ones, compressed in time to the
stated load; without, bursty requests are generated. Either way the input is named with its SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gateware.config import PAGE_BEATS, DeviceConfig
from morphnic.errors import InputError
from sim import workloads
from sim.workloads import FlowClass, Workload

__all__ = ["CLASSES", "OBJECTIVES_US", "POLICIES", "Scenario", "make_scenario", "policy_text"]

BLOCK_TRACE = "mqsim_tpcc-small.trace"
CAPTURE = "pcapplusplus_example.pcap"
CAPTURE_LOAD = 0.1  # of one network port
TENANTS = 16
GENERATED_SIZES = [4096, 8192, 16384]

#: Half of the tenants care for latency, the others for throughput. Frames of the capture belong to tenants as well,
#: but take another way through the device, so they are judged by themselves.
CLASSES: dict[str, frozenset[int]] = {"latency": frozenset(range(8)), "batch": frozenset(range(8, 16))}
OBJECTIVES_US = {"latency": 200.0, "batch": 5_000.0, "network": 100.0}

#: Name of each run -> what is changed in the shipped policy file. A hard partition: each tenant has its part of the
#: pages and of every port's rate, and nobody uses what another leaves.
POLICIES: dict[str, dict[str, Any] | None] = {
    "static partition": {
        "policy": {"kind": "static", "weights": "equal", "partition": True},
        "defaults": {"rate": 100 / TENANTS, "max_host_share": 0}},
    "the loop": None,  # what the manager ships with
}


@dataclass(frozen=True)
class Scenario:
    """Input of a demo run: merged workload, and what of it is shown as what."""

    config: DeviceConfig
    workload: Workload
    block: Workload
    capture: Workload | None
    load: float

    @property
    def largest_packet_pages(self) -> int:
        """Pages of a crosspoint that the largest packet takes: so many must stay in the pool."""
        beats = -(-int(self.workload.packets["length"].max()) // self.config.beat_bytes)
        return int(-(-beats // PAGE_BEATS))

    @property
    def inputs(self) -> list[tuple[str, str]]:
        """Name and description of each input, with its digest."""
        return [(part.name, f"{len(part.requests):,} requests, {part.bytes_offered:,} bytes, sha256 {part.sha256}")
                for part in (self.block, self.capture) if part is not None]

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """What was done to the input, by name."""
        rows = [("load offered to the engines", f"{self.load:g} of {self.config.engine_beats:g} beats a cycle")]
        for part in (self.block, self.capture):
            if part is not None and "compression" in part.meta:
                rows.append((f"{part.name}: time compressed", f"{part.meta['compression']:,.1f} times"))
        return [*rows, ("device", f"{self.config}")]


def make_scenario(config: DeviceConfig, *, trace: Path | None, data: Path | None, requests: int, load: float,
                  seed: int) -> Scenario:
    """The scenario; `InputError` names a file that is missing or wrong.

    trace: a block trace of the user's own; data: folder of recorded inputs; requests: how many block requests.
    """
    path = trace or (data / BLOCK_TRACE if data is not None else None)
    if path is None:
        block = _generated(config, requests, load, seed)
    else:
        recorded = workloads.read_trace(path).excerpt(count=requests)
        streams = {stream: index % config.tenants for index, stream in enumerate(recorded.streams)}
        block = workloads.from_requests(recorded, config, load=load, capacity=config.engine_beats, tenants=streams,
                                        flow_class=_flow_classes(config))
    capture = None
    if trace is None and data is not None and (data / CAPTURE).exists():
        capture = _capture(config, data / CAPTURE, block.last_arrival)
    merged = workloads.merge("demo", [part for part in (block, capture) if part is not None])
    return Scenario(config, merged, block, capture, load)


def _flow_classes(config: DeviceConfig) -> dict[int, int]:
    return {tenant: FlowClass.REQUEST_LATENCY if tenant in CLASSES["latency"] else FlowClass.REQUEST_BATCH
            for tenant in range(config.tenants)}


def _generated(config: DeviceConfig, requests: int, load: float, seed: int) -> Workload:
    """Bursts of small and medium requests, all tenants alike, as many as the requests asked for on average."""
    if config.tenants < TENANTS:
        raise InputError(f"the demo needs a device with {TENANTS} tenants, not {config.tenants}")
    span = int(requests * np.mean(GENERATED_SIZES) / config.beat_bytes / load / config.engine_beats)
    kinds = _flow_classes(config)
    streams = [workloads.on_off(seed=seed, stream=tenant, count=requests, burst=4, size=GENERATED_SIZES,
                                sequential_share=0.5) for tenant in range(TENANTS)]
    return workloads.offering(workloads.interleave(streams, f"generated-seed{seed}"), config, load=load, span=span,
                              tenants=range(TENANTS), flow_class=kinds)


def _capture(config: DeviceConfig, path: Path, span: int) -> Workload:
    """As much of the capture, from its start, as fits the block requests' time at `CAPTURE_LOAD`."""
    frames = workloads.read_pcap(path)
    made = workloads.from_frames(frames, config, port=config.net_ports[0], destination=config.net_ports[-1],
                                 tenants=range(config.tenants), load=CAPTURE_LOAD)
    keep = made.packets["arrival"] <= span
    requests = made.requests[: int(keep.sum())]
    return Workload(made.name, made.sha256, made.packets[keep], requests, made.payload,
                    {**made.meta, "requests": len(requests)})


def classifier_entries(config: DeviceConfig, *, vlan_base: int) -> list[dict[str, Any]]:
    """Fields of the classifier entry of each tenant: its VLAN at the first network port, out at the last."""
    return [{"key_lo": {"key": vlan_base + tenant}, "key_hi": {"key": 0},
             "action": {"enable": 1, "kind": 1, "port": config.net_ports[0], "tenant": tenant,
                        "destination": config.net_ports[-1], "flow_class": FlowClass.BEST_EFFORT}}
            for tenant in range(min(config.tenants, config.classifier_entries))]


def policy_text(default: str, changes: dict[str, Any] | None) -> str:
    """The shipped policy file with the demo's tenants, and with other values in some of its sections."""
    document = yaml.safe_load(default)
    for section, values in (changes or {}).items():
        document[section] = {**document[section], **values} if section == "defaults" else values
    document["tenants"] = {
        tenant: {"name": f"disk{tenant}", "class": name, "slo_us": OBJECTIVES_US[name]}
        for name, members in CLASSES.items() for tenant in sorted(members)}
    return yaml.safe_dump(document, sort_keys=False)
