"""The input of the closed-loop bench: latency tenants (TPC-C) beside batch tenants (web search), and the ideal.

Both traces are compressed in time so that together they offer a stated load to the engines over the same span; the
batch trace's payload is scaled. What was done is in the workload's `meta`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateware.config import DeviceConfig
from sim import workloads
from sim.workloads import FlowClass, Workload

LATENCY_TENANTS = tuple(range(1, 12))
BATCH_TENANTS = tuple(range(12, 16))
LATENCY_PART = 0.3  # of the offered load
BATCH_PAYLOAD_SCALE = 1.0
OBJECTIVE_US = 100.0  # of a whole request of the latency class


@dataclass(frozen=True)
class Mixture:
    """One workload, with its two parts' numbers of requests."""

    name: str
    load: float
    span: int
    workload: Workload


def recorded(config: DeviceConfig, folder: Path, load: float, span: int) -> Mixture:
    """From the recorded traces."""
    latency = workloads.read_mqsim(folder / "mqsim_tpcc-small.trace")
    batch = workloads.read_mqsim(folder / "mqsim_wsrch-small.trace").scale_sizes(BATCH_PAYLOAD_SCALE)
    busy = sorted(batch.streams, key=lambda stream: -int((batch.rows["stream"] == stream).sum()))[:3]
    parts = [
        workloads.offering(latency, config, load=load * LATENCY_PART, span=span, tenants=LATENCY_TENANTS,
                           flow_class=FlowClass.REQUEST_LATENCY),
        workloads.offering(batch.excerpt(streams=busy), config, load=load * (1 - LATENCY_PART), span=span,
                           tenants=BATCH_TENANTS, flow_class=FlowClass.REQUEST_BATCH)]
    return Mixture("tpcc+wsrch", load, span, workloads.merge("tpcc+wsrch", parts))


def generated(config: DeviceConfig, load: float, span: int, seed: int = 7) -> Mixture:
    """From the generators: what the shipped policy's parameters were chosen on."""
    parts = []
    for tenants, part, kind, size, burst, number in (
            (LATENCY_TENANTS, LATENCY_PART, FlowClass.REQUEST_LATENCY, [4096, 8192, 16384], 4, 1),
            (BATCH_TENANTS, 1 - LATENCY_PART, FlowClass.REQUEST_BATCH, [8192, 32768], 8, 2)):
        streams = [workloads.on_off(seed=seed + number, stream=tenant, count=5_000, burst=burst, size=size)
                   for tenant in tenants]
        parts.append(workloads.offering(workloads.interleave(streams, f"on-off-{number}"), config, load=load * part,
                                        span=span, tenants=tenants, flow_class=kind))
    return Mixture("generated", load, span, workloads.merge(f"generated-seed{seed}", parts))


def mixtures(config: DeviceConfig, load: float, span: int) -> list[Mixture]:
    """The mixture of the recorded traces where `MORPHNIC_DATA` has them, and the generated one."""
    folder = os.environ.get("MORPHNIC_DATA")
    found = [recorded(config, Path(folder), load, span)] if folder else []
    return [*found, generated(config, load, span)]


def ideal_latency(workload: Workload, members: tuple[int, ...], capacity: float) -> np.ndarray:
    """Latency in cycles of each request of `members` on an ideal server, in order of arrival.

    Service model: one work-conserving server of `capacity` bytes a cycle that serves the members first, preempting
    everybody else at no cost, first come first served among them: Lindley's recursion on their requests alone. Nothing
    is added for the fabric, the engines or the segmentation. A reference, not a bound: for the mean, and for p99,
    an order by remaining size does better than first come first served.
    """
    rows = workload.requests[np.isin(workload.requests["tenant"], members)]
    rows = rows[np.argsort(rows["arrival"], kind="stable")]
    latency = np.empty(len(rows))
    free = 0.0
    for index, (arrival, size) in enumerate(zip(rows["arrival"].tolist(), rows["size"].tolist(), strict=True)):
        free = max(free, float(arrival)) + size / capacity
        latency[index] = free - arrival
    return latency
