"""Does the loop earn its existence? Latency tenants beside batch tenants on the simulated device.

On the same arrivals: a hard static partition, equal weights with no loop at all, each policy, the shipped default at
each decision latency, and an ideal work-conserving server computed offline. Every commit is charged its decision
latency in device time; `measured` is what the decision took on this machine, its write-ahead included (decision
record 0010). The shipped default at `measured` carries the targets.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
from _figures import Figure, arguments, machine, progress, report
from _mixture import BATCH_TENANTS, LATENCY_TENANTS, OBJECTIVE_US, Mixture, ideal_latency, mixtures

from device_link import Device
from gateware.config import DeviceConfig
from offload_manager.allocation import CREDIT_PAGES
from offload_manager.api import TenantClass
from offload_manager.loop import ControlLoop, LoopSettings
from offload_manager.policy_file import PolicyFile, PolicySource
from offload_manager.policy_spec import LatencyTargetSpec, MaxMinSpec, StaticSpec, TenantSpec
from offload_manager.store import MemoryStore
from offload_manager.timing import DecisionLatency
from sim.board import Board
from sim.harness import device_model
from sim.inprocess import BoardTransport

CONFIG = DeviceConfig()
LATENCIES = ("measured", "0", "50us", "500us", "5ms")
DEFAULT = "default (shipped)"
STATIC = StaticSpec(kind="static", weights="equal", partition=True)
EQUAL = StaticSpec(kind="static", weights="equal")


@dataclass(frozen=True)
class Outcome:
    """What one run gave: shares of late requests, cycles, and bytes of the batch class done by the last arrival."""

    misses: float
    p99: float
    batch_bytes: int
    commits: int
    rollbacks: int
    unclean: int


def policies(only_default: bool) -> dict[str, PolicyFile]:
    """Every policy that runs, by name; the tenants' classes and objectives are the same in each."""
    tenants = {t: TenantSpec(**{"class": TenantClass.LATENCY}, slo_us=OBJECTIVE_US) for t in LATENCY_TENANTS}
    tenants |= {t: TenantSpec(**{"class": TenantClass.BATCH}) for t in BATCH_TENANTS}
    shipped = PolicyFile.default().with_tenants(tenants)
    # No loop: nothing moves to the host either.
    still = replace(shipped, spec=shipped.spec.model_copy(update={
        "host_shift": shipped.spec.host_shift.model_copy(update={"high": 1.0, "target": 1.0})}))
    hard = replace(still, spec=still.spec.model_copy(update={
        "defaults": still.spec.defaults.model_copy(update={"rate": 100 / CONFIG.tenants})}))
    chosen = {"static partition": hard.with_policy(STATIC), "equal weights": still.with_policy(EQUAL),
              DEFAULT: shipped}
    if not only_default:
        chosen |= {"maxmin": shipped.with_policy(MaxMinSpec(kind="maxmin")),
                   "latency_target": shipped.with_policy(LatencyTargetSpec(kind="latency_target"))}
    return chosen


def run(model: object, config: DeviceConfig, mixture: Mixture, policy: PolicyFile, latency: str) -> Outcome:
    """Play the mixture to its end under the policy."""
    with Board(config, model=model, log_inputs=False) as board, BoardTransport(board) as transport:
        device = Device(transport)
        settings = LoopSettings(DecisionLatency.parse(latency), packet_pages=CREDIT_PAGES)
        loop = ControlLoop(device, PolicySource(limits_of(device), policy=policy), MemoryStore(), settings)
        loop.start()
        begin = board.cycle
        first = board.load(mixture.workload.packets, mixture.workload.payload, at=begin)
        limit = begin + 3 * mixture.span
        while board.stats()["completions"] < len(mixture.workload.packets) and board.cycle < limit:
            if loop.step() is None:
                raise RuntimeError(f"no window came at cycle {board.cycle}")
        completions = board.completions()
        account = board.account()
        unclean = sum(getattr(account, name) for name in ("duplicated", "reordered", "corrupted", "wrong_result"))
        return _outcome(config, mixture, mixture.workload.completed(completions, first, shift=begin), loop, unclean)


def limits_of(device: Device) -> object:
    from offload_manager.driver import AllocationDriver

    return AllocationDriver(device, 1, packet_pages=CREDIT_PAGES).limits


def _outcome(config: DeviceConfig, mixture: Mixture, latency: np.ndarray, loop: ControlLoop, unclean: int) -> Outcome:
    rows = mixture.workload.requests
    members = np.isin(rows["tenant"], LATENCY_TENANTS)
    objective = OBJECTIVE_US * config.clock_hz / 1e6
    own = latency[members]
    done = latency >= 0
    in_time = done & ~members & (rows["arrival"].astype(np.int64) + latency <= mixture.span)
    late = float(np.mean((own < 0) | (own > objective)))
    p99 = float(np.percentile(own[own >= 0], 99, method="higher")) if (own >= 0).any() else float("nan")
    return Outcome(late, p99, int(rows["size"][in_time].sum()), loop.commits, loop.rollbacks, unclean)


def ratio(a: float, b: float) -> float:
    """a/b; 1 when both are 0, infinite when only b is."""
    return a / b if b else (1.0 if a == 0 else float("inf"))


def figures_of(mixture: Mixture, name: str, latency: str, result: Outcome, base: dict[str, Outcome], ideal: float,
               clock_hz: int) -> list[Figure]:
    """The four figures of one run; targets stand at the shipped default with the measured latency."""
    static, equal = base["static partition"], base["equal weights"]
    bound = name == DEFAULT and latency == "measured"
    conditions = {"trace": mixture.name, "load": mixture.load, "policy": name, "decision_latency": latency,
                  "objective_us": OBJECTIVE_US, "span_cycles": mixture.span, "commits": result.commits,
                  "rollbacks": result.rollbacks, "input_sha256": mixture.workload.sha256[:16],
                  "unclean_packets": result.unclean}
    micros = 1e6 / clock_hz

    def figure(kind: str, value: float, reference: dict[str, float], target: tuple[str, float] | None) -> Figure:
        return Figure(f"closed_loop.{kind}", value, "ratio", reference, target if bound else None, conditions)

    return [
        figure("slo_misses_over_equal_weights", ratio(result.misses, equal.misses),
               {"equal_weights_misses": equal.misses, "misses": result.misses, "design_target": 0.5}, ("<=", 1.0)),
        figure("p99_over_static", ratio(result.p99, static.p99),
               {"static_p99_us": static.p99 * micros, "p99_us": result.p99 * micros}, None),
        figure("p99_over_ideal", ratio(result.p99, ideal), {"ideal_p99_us": ideal * micros}, None),
        figure("batch_throughput", ratio(result.batch_bytes, equal.batch_bytes),
               {"equal_weights_bytes": float(equal.batch_bytes)}, (">=", 0.95)),
    ]


def main() -> None:
    """Run everything and report."""
    options = arguments(__doc__.splitlines()[0],
                        span={"type": int, "default": 4_000_000, "help": "cycles of arrivals (default %(default)s)"},
                        loads={"type": float, "nargs": "+", "default": [0.5, 0.7, 0.85], "help": "offered loads"},
                        quick={"action": "store_true", "help": "baselines and shipped default only"})
    config = CONFIG
    model = device_model(config)
    found: list[Figure] = []
    for load in options.loads:
        for mixture in mixtures(config, load, options.span):
            ideal = float(np.percentile(ideal_latency(mixture.workload, LATENCY_TENANTS,
                                                      config.engine_beats * config.beat_bytes), 99, method="higher"))
            base: dict[str, Outcome] = {}
            for name, policy in policies(options.quick or mixture.name == "generated").items():
                each = LATENCIES if name == DEFAULT and mixture.name != "generated" and not options.quick else (
                    "measured",)
                for latency in each:
                    started = time.monotonic()
                    base[name] = result = run(model, config, mixture, policy, latency)
                    progress(f"{mixture.name} load {load:g} {name} {latency}: misses {result.misses:.2%}, "
                             f"p99 {result.p99 / config.clock_hz * 1e6:.0f} us, {time.monotonic() - started:.0f} s")
                    if len(base) >= 2:
                        found += figures_of(mixture, name, latency, result, base, ideal, config.clock_hz)
    found = [replace(one, conditions={**one.conditions, **machine()}) for one in found]
    report(found, as_json=options.json)


if __name__ == "__main__":
    main()
