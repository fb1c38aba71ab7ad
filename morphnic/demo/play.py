"""Plays a scenario once: brings device, manager and agent up, lets them work, and collects what happened.

The processes are the same that an operator starts: a simulated device in lockstep, a manager that owns it and grants
its time, an agent that reports this host. They live in a folder of their own and never meet other instances.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

import device_link
from device_link import rundir
from gateware.config import DeviceConfig
from morphnic.errors import MorphnicError
from offload_manager.api import Outcome
from offload_manager.store import Record, SqliteStore
from sim.options import parameters_of

from .metrics import Requests, run_figures
from .report import AllocationPoint, RunReport
from .scenario import CLASSES, OBJECTIVES_US, Scenario, classifier_entries, policy_text
from .supervisor import Supervisor
from .twin import HostWork, process_on_host

__all__ = ["Play", "play"]

DEVICE = "demo"
POLL_SECONDS = 0.2
#: Cycle from which the workload's arrivals count: the manager has installed its first table by then. Before, only
#: tenant 0 is granted anything, and what others send is dropped.
FIRST_ARRIVAL = 300_000
STALL_SECONDS = 120.0  # without one more packet done; a guard against hanging, not a figure
INTEGRITY = ("lost", "duplicated", "reordered", "corrupted", "misrouted", "wrong_result", "unexpected", "wrong_header")

Progress = Callable[[float], None]


class IntegrityBroken(MorphnicError):
    """A packet was lost, duplicated, reordered or corrupted."""


@dataclass(frozen=True)
class Play:
    """Where and how a scenario is played. `policy` replaces the section of the shipped policy file (None: as it is)."""

    name: str
    policy: dict[str, Any] | None
    folder: Path
    decision_latency: str
    seed: int


def play(scenario: Scenario, settings: Play, progress: Progress) -> RunReport:
    """Play the scenario; raises `EnvironmentFault` when a process fails, `MorphnicError` when nothing moves."""
    folder = settings.folder
    folder.mkdir(parents=True)
    store_path, completions = folder / "manager.db", folder / "completions.npy"
    default = resources.files("offload_manager").joinpath("policies/default.yaml").read_text(encoding="utf-8")
    (folder / "policy.yaml").write_text(policy_text(default, settings.policy))
    scenario.workload.save(folder / "workload.npz")
    environment = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("STATE", "CONFIG")}
    with Supervisor(folder, {**environment, "XDG_RUNTIME_DIR": str(folder)}) as processes:
        socket = _start_device(processes, scenario.config, settings)
        with device_link.open(f"sim://{socket}", writer=True) as device:
            _prepare(device, scenario, folder / "workload.npz")
        _start_manager(processes, scenario, settings, store_path)
        _start_agent(processes, folder)
        # A reader beside the manager: it watches, and its accesses move device time only at the very end.
        with device_link.open(f"sim://{socket}", timeout=30.0) as device:
            account = _watch(device, processes, scenario, progress)
            # The records are written while time stands: the manager, which grants it, is stopped first.
            for name in ("host agent", "manager"):
                processes.stop(name)
            device.transport.control({"op": "records", "kind": "completions", "path": str(completions)})
            host = process_on_host(device, scenario.workload, folder)
    store = SqliteStore(store_path)
    try:
        records = list(reversed(store.records(limit=100_000)))
    finally:
        store.close()
    return _report(scenario, settings.name, np.load(completions), account, records, host)


def _start_device(processes: Supervisor, config: DeviceConfig, settings: Play) -> Path:
    base = settings.folder / "morphnic" / DEVICE
    parameters = [f"--set={parameter}" for parameter in parameters_of(config)]
    processes.start(
        "simulated device", "sim.server",
        ["--name", DEVICE, "--mode", "lockstep", "--seed", str(settings.seed), "--no-pty", *parameters],
        ready=lambda: (base / rundir.READY_NAME).exists(), timeout=1800.0)
    return base / "device.sock"


def _prepare(device: device_link.Device, scenario: Scenario, workload: Path) -> None:
    """Tell the classifier whose frames are whose, and load the workload: it begins when time does."""
    if scenario.capture is not None:
        base = scenario.capture.meta["vlan_base"]
        for index, entry in enumerate(classifier_entries(scenario.config, vlan_base=base)):
            block = device.classifier[index]
            device.write([(getattr(block, register), fields) for register, fields in entry.items()])
    device.transport.control({"op": "load", "path": str(workload), "at": FIRST_ARRIVAL}, timeout=60.0)


def _start_manager(processes: Supervisor, scenario: Scenario, settings: Play, store: Path) -> None:
    ready = settings.folder / "manager.json"
    processes.start(
        "manager", "offload_manager",
        ["--device", f"sim://{DEVICE}", "--listen", f"unix:{settings.folder / 'manager.sock'}",
         "--store", str(store), "--policy", str(settings.folder / "policy.yaml"), "--largest-packet-pages",
         str(scenario.largest_packet_pages),
         "--decision-latency", settings.decision_latency, "--ready-file", str(ready)],
        ready=ready.exists)


def _start_agent(processes: Supervisor, folder: Path) -> None:
    """The agent has no ready file of its own: it is up when its log says that it collects."""
    def ready() -> bool:
        log = processes.log("host agent")
        return log.exists() and "collecting" in log.read_text(errors="replace")

    processes.start("host agent", "morphnic",
                    ["agent", "run", "--manager-url", f"unix:{folder / 'manager.sock'}", "--interval", "1"],
                    ready=ready)


def _watch(device: device_link.Device, processes: Supervisor, scenario: Scenario, progress: Progress) -> dict[str, Any]:
    """Wait until every packet is delivered, dropped or cut off; returns the account of all of them."""
    total, seen, moved = len(scenario.workload.packets), -1, time.monotonic()
    while True:
        processes.check()
        stats = device.transport.control({"op": "traffic"})["stats"]
        done = stats["completions"]
        progress(done / total)
        if done != seen:
            seen, moved = done, time.monotonic()
        idle = not stats["waiting"] and stats["sources_idle"] and not stats["twin_waiting"]
        if idle and stats["cycle"] > stats["last_arrival"]:
            account: dict[str, Any] = device.transport.control({"op": "account"})
            if account["delivered"] + account["dropped_by_policy"] + account["cut_off"] >= total:
                progress(1.0)
                return account
        if time.monotonic() - moved > STALL_SECONDS:
            raise MorphnicError(f"no packet moved for {STALL_SECONDS:g} s: {done} of {total} done, {stats}; "
                                f"see {processes.log('manager')}")
        time.sleep(POLL_SECONDS)


def _requests(scenario: Scenario, completions: Any) -> Requests:
    made = scenario.workload.requests
    latency = scenario.workload.completed(completions, shift=FIRST_ARRIVAL)
    arrival = made["arrival"].astype(np.int64) + FIRST_ARRIVAL
    return Requests(arrival=arrival, done=np.where(latency >= 0, arrival + latency, -1),
                    tenant=made["tenant"].astype(np.int64), size=made["size"].astype(np.int64))


def _report(scenario: Scenario, name: str, completions: Any, account: dict[str, Any],
            records: list[Record], host: HostWork) -> RunReport:
    requests = _requests(scenario, completions)
    config = scenario.config
    block = len(scenario.block.requests)
    # The capture's frames are tenants' too, but of a class of their own: shift them behind the real tenants.
    tenant = requests.tenant.copy()
    tenant[block:] += config.tenants
    shown = Requests(requests.arrival, requests.done, tenant, requests.size)
    classes = {key: set(members) for key, members in CLASSES.items()}
    if scenario.capture is not None:
        classes["network"] = {config.tenants + t for t in range(config.tenants)}
    objectives = {key: round(OBJECTIVES_US[key] * config.clock_hz / 1e6) for key in classes}
    block_only = Requests(*(column[:block] for column in (requests.arrival, requests.done, requests.tenant,
                                                          requests.size)))
    figures = run_figures(shown, classes, objectives, weights=dict.fromkeys(range(config.tenants), 1.0),
                          capacity=config.engine_beats * config.beat_bytes, bottleneck=block_only)
    decided = [record.decision for record in records if record.decision.source == "loop"]
    return RunReport(
        name=name, figures=figures, requests=shown, classes=classes, allocations=_timeline(config.tenants, records),
        decisions=tuple((d.window, str(d.outcome), d.reason) for d in decided),
        reallocations=sum(d.outcome in (Outcome.CONFIRMED, Outcome.ROLLED_BACK, Outcome.AWAITING) for d in decided),
        rollbacks=sum(d.outcome is Outcome.ROLLED_BACK for d in decided),
        host_work=host,
        checks={check: int(account[check]) for check in INTEGRITY} | {"wrong_on_host": host.wrong})


def _timeline(tenants: int, records: list[Record]) -> tuple[AllocationPoint, ...]:
    """Each table that came into force, and the old one again where a decision was rolled back."""
    first = records[0].before if records else None
    points = [AllocationPoint(0, 0, tuple(row.weight for row in first.rows) if first else (1,) * tenants)]
    for record in records:
        decision = record.decision
        if decision.timing.commit_cycle is None:
            continue
        points.append(AllocationPoint(decision.timing.commit_cycle, decision.epoch or 0,
                                      tuple(row.weight for row in record.after.rows)))
        if decision.outcome is Outcome.ROLLED_BACK:
            points.append(AllocationPoint(decision.timing.commit_cycle + 1, decision.epoch or 0,
                                          tuple(row.weight for row in record.before.rows)))
    return tuple(points)
