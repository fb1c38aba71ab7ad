"""Engine time: how fairly, how quickly after a change, and how completely the engine slots are shared out.

The gateware (crosspoint, engine scheduler, engine array; a shard that takes as long as each request says) runs in
Verilator; round robin, plain weighted round robin and a lifetime average are ideal models on the same arrivals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from _engine_column import Arrivals, EngineColumn, Service
from _engine_models import MODELS, simulate
from _figures import Figure, arguments, machine, progress, report

from gateware.config import DeviceConfig

BIN = 100
SHORT = 32       # cycles of the shortest requests
BACKLOGGED = 8   # requests that wait: what is on its way between host, slots and back is not counted as a backlog
RATIOS = (1, 4, 16, 64)
WEIGHTS = (4096, 2048, 1024, 1024, 4096, 2048, 1024, 1024)
GUESTS = (2048, 2048)  # weights of tenants that come and go
TARGET = 0.99
WARM_UP = 5000    # cycles in which the host port fills the queues of all tenants


@dataclass(frozen=True)
class Case:
    """What arrives for tenants of `weights` within `cycles`; `slots` are the masks that they own."""

    arrivals: list[Arrivals]
    weights: tuple[int, ...]
    cycles: int
    slots: tuple[int, ...] = ()

    @property
    def window(self) -> int:
        """Cycles over which shares are judged, as whole bins."""
        largest = max(int(one.costs.max()) for one in self.arrivals)
        cycles = max(10_000, 10 * largest * sum(self.weights) / min(self.weights))
        return -(-int(cycles) // BIN) * BIN


def costs_of(rng: np.random.Generator, longest: int, total: int) -> np.ndarray:
    """Service times of half to all of `longest`, together at least `total` cycles."""
    return rng.integers(longest // 2, longest, total // (longest // 2) + 1, endpoint=True)


def saturating(rng: np.random.Generator, longest: int, work: int) -> Arrivals:
    """More requests from the start than are served."""
    costs = costs_of(rng, longest, work)
    return Arrivals(np.zeros(len(costs), np.int64), costs)


def visiting(rng: np.random.Generator, longest: int, share: float, cycles: int, pause: int) -> Arrivals:
    """Bursts that last about `pause` at `share` of the engines, and pauses as long on average."""
    times, costs, now = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], int(rng.exponential(pause))
    while now < cycles:
        burst = costs_of(rng, longest, int(share * rng.exponential(pause)) + BACKLOGGED * longest)
        times.append(np.full(len(burst), now))
        costs.append(burst)
        now += int(burst.sum() / share + rng.exponential(pause))
    return Arrivals(np.concatenate(times), np.concatenate(costs))


def mixed(ratio: int, seed: int, slots: int, windows: int) -> Case:
    """Eight tenants that are always backlogged, short and long requests at each weight, and two that come and go."""
    rng = np.random.default_rng([seed, ratio])
    weights = WEIGHTS + GUESTS
    longest = [SHORT] * 4 + [SHORT * ratio] * 4 + [SHORT, SHORT * ratio]
    window = max(10_000, int(10 * SHORT * ratio * sum(weights) / min(weights)))
    cycles = windows * window // BIN * BIN
    arrivals = []
    for tenant, (weight, cost) in enumerate(zip(weights, longest, strict=True)):
        share = slots * weight / sum(weights)
        arrivals.append(saturating(rng, cost, int(3 * share * cycles)) if tenant < len(WEIGHTS)
                        else visiting(rng, cost, share, cycles, 2 * window))
    return Case(arrivals, weights, cycles)


def check_windows(windows: int, slots: int, seed: int) -> None:
    """End the program if a run is too short to judge: no window behind the warm-up, or tenants that never come."""
    def can_be_judged(number: int) -> bool:
        return number > 1 and all(
            len(one.costs) for ratio in RATIOS for one in mixed(ratio, seed, slots, number).arrivals)

    if not can_be_judged(windows):
        least = next(number for number in count(max(windows, 1) + 1) if can_be_judged(number))
        raise SystemExit(f"engines.py: --windows {windows} is too few with --seed {seed}: tenants that come and go"
                         f" would not come; the next number that will do is {least}")


def jain_of_windows(case: Case, service: Service) -> np.ndarray:
    """Weighted Jain index of each window, over the tenants that are backlogged throughout it; 1 where these are few."""
    span = case.window // service.bin
    total = np.concatenate([np.zeros((1, service.busy.shape[1])), np.cumsum(service.busy, 0)])
    idle = np.concatenate([np.zeros((1, service.busy.shape[1])),
                           np.cumsum(service.waiting < BACKLOGGED, 0)])
    got = (total[span:] - total[:-span]) / np.array(case.weights)
    counted = idle[span:] == idle[:-span]
    got = np.where(counted, got, 0)
    count = counted.sum(1)
    squares = np.maximum(count * (got ** 2).sum(1), 1e-12)
    return np.where(count > 1, got.sum(1) ** 2 / squares, 1.0)


Serve = Callable[[Case], Service]


def fairness(systems: dict[str, Serve], slots: int, windows: int, seed: int) -> list[Figure]:
    """One row a ratio of service times."""
    figures = []
    for ratio in RATIOS:
        case = mixed(ratio, seed, slots, windows)
        progress(f"fairness at 1:{ratio}: {case.cycles:,} cycles, windows of {case.window:,}")
        start = WARM_UP // BIN
        worst = {name: float(jain_of_windows(case, serve(case))[start:].min()) for name, serve in systems.items()}
        figures.append(Figure("engines.jain_worst", worst.pop("gateware"), "index", worst, (">=", TARGET), {
            "service_time_ratio": f"1:{ratio}", "window_cycles": case.window, "cycles": case.cycles,
            "tenants": len(case.weights), "slots": slots, "seed": seed}))
    return figures


def fairness_beside_an_owner(gateware: Serve, slots: int, windows: int, seed: int) -> Figure:
    """Tenants that share what another tenant, which owns a slot and is always backlogged there, leaves to them."""
    rng = np.random.default_rng(seed)
    long = SHORT * RATIOS[-1]
    weights, longest = (1024, 1024, 1024, 2048), (SHORT * 8, SHORT, long, SHORT * 8)
    cycles = windows * 10 * long * sum(weights[1:]) // min(weights) // BIN * BIN
    case = Case([saturating(rng, cost, slots * cycles) for cost in longest], weights, cycles, (1,))
    progress(f"fairness beside an owner: {cycles:,} cycles")
    served = gateware(case)
    others = Case(case.arrivals[1:], weights[1:], cycles)
    shared = Service(BIN, served.busy[:, 1:], served.waiting[:, 1:], served.ends[1:])
    start = WARM_UP // BIN
    worst = {name: float(jain_of_windows(others, simulate(
        make, others.arrivals, others.weights, slots - 1, cycles, BIN))[start:].min())
        for name, make in MODELS.items()}
    return Figure("engines.jain_worst", float(jain_of_windows(others, shared)[start:].min()), "index", worst,
                  (">=", TARGET), {"service_time_ratio": f"1:{RATIOS[-1]}", "case": "one_owns_a_slot",
                                   "window_cycles": others.window, "cycles": cycles, "tenants": len(weights),
                                   "slots": slots, "seed": seed})


CHANGES = ("short_to_long", "long_to_short", "idle_to_backlogged", "alone_to_crowded")


def changing(kind: str, ratio: int, seed: int, slots: int) -> tuple[Case, int, int]:
    """Four tenants of equal weight: the case, and the tenant and request with which something changes.

    Tenant 0 changes; the others stay as they are: one short, one long, one in between. `alone_to_crowded`: tenant 0 has
    the engines for itself until the others come.
    """
    rng = np.random.default_rng([seed, ratio])
    weights = (1024,) * 4
    long = SHORT * ratio
    window = max(10_000, 40 * long)
    cycles = 12 * window // BIN * BIN
    work = slots * cycles
    moment = cycles // 2 + int(rng.integers(window // 4))
    others = [saturating(rng, cost, work) for cost in (SHORT, long, int((SHORT * long) ** 0.5))]
    if kind == "alone_to_crowded":
        later = [Arrivals(one.cycles + moment, one.costs) for one in others]
        return Case([saturating(rng, long, work), *later], weights, cycles), 1, 0
    before, after = {"short_to_long": (SHORT, long), "long_to_short": (long, SHORT),
                     "idle_to_backlogged": (long, long)}[kind]
    first, second = costs_of(rng, before, work // 8), costs_of(rng, after, work)
    times = np.zeros(len(first) + len(second), np.int64)
    if kind == "idle_to_backlogged":
        first = first[:len(first) // 2]  # done long before the rest comes
        times = np.repeat([0, moment], [len(first), len(second)])
    return Case([Arrivals(times, np.concatenate([first, second])), *others], weights, cycles), 0, len(first)


def change_of(case: Case, service: Service, tenant: int, index: int) -> int | None:
    """The bin in which request `index` of `tenant` could begin at the earliest; None if it was never served."""
    if index >= len(service.ends[tenant]):
        return None
    before = int(service.ends[tenant][index - 1]) if index else 0
    return max(int(case.arrivals[tenant].cycles[index]), before) // BIN


def recovery_of(case: Case, service: Service, tenant: int, index: int) -> float:
    """Cycles from the change until every window of `case.window` that begins later is fair, to the end of the run;
    infinite if there is none. A window is that of the fairness target, and so is what is fair."""
    start = change_of(case, service, tenant, index)
    if start is None:
        return float("inf")
    fair = jain_of_windows(case, service) >= TARGET
    unfair = np.flatnonzero(~fair[start:])
    if len(unfair) == 0:
        return 0.0
    last = int(unfair[-1])
    return float("inf") if start + last + 1 >= len(fair) else (last + 1) * float(BIN)


def lag_of(case: Case, service: Service, tenant: int, index: int) -> float:
    """Most engine time that any tenant was behind its share of what all got since the change, within one window, in
    longest service times. Who had saved up, or has to pay back, is seen here. All have requests all the time."""
    start = change_of(case, service, tenant, index)
    if start is None:
        return float("inf")
    got = np.cumsum(service.busy[start:start + case.window // service.bin], 0)
    shares = np.array(case.weights) / sum(case.weights)
    longest = max(int(one.costs.max()) for one in case.arrivals)
    return float((got.sum(1, keepdims=True) * shares - got).max()) / longest


def recovery(systems: dict[str, Serve], config: DeviceConfig, seeds: Sequence[int]) -> list[Figure]:
    """Two rows a kind of change: the worst of all seeds."""
    figures = []
    to_us = 1e6 / config.clock_hz
    for kind in CHANGES:
        worst, lags = dict.fromkeys(systems, 0.0), dict.fromkeys(systems, 0.0)
        for seed in seeds:
            case, tenant, index = changing(kind, RATIOS[-1], seed, config.slots)
            progress(f"recovery, {kind}, seed {seed}: {case.cycles:,} cycles")
            for name, serve in systems.items():
                service = serve(case)
                worst[name] = max(worst[name], recovery_of(case, service, tenant, index) * to_us)
                lags[name] = max(lags[name], lag_of(case, service, tenant, index))
        limit = 10 + 2 * SHORT * RATIOS[-1] * to_us
        conditions = {"change": kind, "service_time_ratio": f"1:{RATIOS[-1]}", "changes": len(seeds),
                      "window_cycles": case.window, "slots": config.slots}
        figures.append(Figure("engines.recovery_us", worst.pop("gateware"), "us", worst, ("<=", limit), conditions))
        figures.append(Figure("engines.lag_after_change", lags.pop("gateware"), "longest services", lags, None,
                              conditions))
    return figures


def conserving(serve: Serve, config: DeviceConfig, seed: int) -> list[Figure]:
    """Engine time used while requests wait for every slot, over all there is."""
    rng = np.random.default_rng(seed)
    slots, cycles = config.slots, 400_000
    long = SHORT * RATIOS[-1]
    every = (1 << slots) - 1
    cases: dict[str, tuple[list[int], tuple[int, ...]]] = {
        "one_tenant": ([SHORT], ()),
        "short": ([SHORT] * 4, ()),
        "short_and_long": ([SHORT, long] * 2, ()),
        "one_owns_a_slot": ([SHORT, long, SHORT, long], (1,)),
        "all_owned": ([long, SHORT], (1, every & ~1)),
    }
    figures = []
    for name, (longest, owned) in cases.items():
        case = Case([saturating(rng, cost, slots * cycles) for cost in longest], (1024,) * len(longest), cycles, owned)
        progress(f"work conservation: {name}")
        used = float(serve(case).busy.sum()) / (slots * cycles)
        conditions = {"case": name, "shortest_request_cycles": SHORT // 2, "slots": slots, "cycles": cycles}
        figures.append(Figure("engines.work_conserving", used, "ratio", {"work_conserving_models": 1.0},
                              (">=", TARGET), conditions))
    return figures


def main() -> None:
    """Build the column, measure, report."""
    options = arguments(__doc__.splitlines()[0],
                        slots={"type": int, "default": 2, "help": "engine slots (default %(default)s)"},
                        windows={"type": int, "default": 6, "help": "length of a fairness run (default %(default)s)"},
                        seed={"type": int, "default": 1, "help": "default %(default)s"},
                        changes={"type": int, "default": 3, "help": "of each kind (default %(default)s)"})
    check_windows(options.windows, options.slots, options.seed)
    config = DeviceConfig(ports=2, slots=options.slots, pages=256)
    column = EngineColumn(config)

    def gateware(case: Case) -> Service:
        return column.run(case.arrivals, case.weights, case.slots, case.cycles, BIN)

    def model(name: str) -> Serve:
        return lambda case: simulate(MODELS[name], case.arrivals, case.weights, config.slots, case.cycles, BIN)

    systems: dict[str, Serve] = {"gateware": gateware, **{name: model(name) for name in MODELS}}
    figures = fairness(systems, config.slots, options.windows, options.seed)
    if config.slots > 1:
        figures.append(fairness_beside_an_owner(gateware, config.slots, options.windows, options.seed))
    figures += recovery(systems, config, range(options.seed, options.seed + options.changes))
    figures += conserving(gateware, config, options.seed)
    shared = {**machine(), "clock_hz": config.clock_hz}
    report([Figure(one.figure, one.value, one.unit, one.reference, one.target, {**one.conditions, **shared})
            for one in figures], as_json=options.json)


if __name__ == "__main__":
    main()
