"""The fabric alone, in the C++ rig: throughput, latency, fairness by cost, isolation, and work conservation.

Every beat that comes out is checked; a fault ends the run. The engines' output is an output like the others here: a
plain sink that wants as many packets on the way as there can be, except in the row that names the window of a device's
engines.
"""

from collections.abc import Sequence

import numpy as np
from _figures import Figure, arguments, machine, progress, report

from gateware.config import DeviceConfig
from gateware.engine.slot import MOST_COMING
from gateware.fabric.events import MOST_WANTED
from gateware.fabric.scheduler import ROUND
from gateware.manager.allocation import FULL_RATE
from offload_manager.allocation import DEFAULT_BURST
from sim.rig import ANY, Flow, Rig, Row

CONFIG = DeviceConfig()
EQUAL = [Row(pages=2)] * CONFIG.tenants
HOST, NET, OUTPUT = 0, 1, 2
WINDOW = 64  # beats that a well-behaved backlogged flow keeps in the fabric
SIZES: dict[str, Sequence[int]] = {"1 beat": (1,), "4 beats": (4,), "16 beats": (16,), "mixture": (1, 4, 16)}


def check(rig: Rig) -> None:
    """Nothing may come out wrong, and everything must."""
    rig.drain()
    if rig.faults:
        raise RuntimeError(f"{rig.faults} faults in the fabric's output")


def begin(rig: Rig, warm_up: int, every: int) -> None:
    """Warm up, and sample from a whole window on: windows end at multiples of their length."""
    rig.run(warm_up)
    rig.run(-rig.cycle % every)
    rig.sample(every)


def throughput(sizes: Sequence[int], cycles: int, *, permutation: bool = False, wanted: int = MOST_WANTED) -> float:
    """Beats a cycle over all outputs, from saturated inputs."""
    with Rig(CONFIG) as rig:
        rig.commit(EQUAL)
        rig.want(wanted)
        ports = range(CONFIG.ports)
        rig.offer(*(Flow(port, ANY, (port + 1) % CONFIG.ports if permutation else ANY, sizes) for port in ports))
        begin(rig, 5000, 1000)
        rig.run(cycles)
        beats = rig.samples()[0].sum()
        check(rig)
    return float(beats) / (cycles // 1000 * 1000)


def unloaded_latency(beats: int) -> float:
    """Cycles from the transfer of the last beat to the offer of the first, packets far apart."""
    with Rig(CONFIG) as rig:
        rig.commit(EQUAL)
        rig.offer(Flow(HOST, 1, OUTPUT, (beats,), interval=200))
        rig.sample(0)
        rig.run(20_000)
        records = rig.records()
        check(rig)
    # Those that came when the one before had long left. From the offer of the first beat to the last beat out; in and
    # out, a beat a cycle.
    found, done = records["latency"].astype(int), records["done"].astype(int)
    alone = found[1:][(done - found)[1:] > done[:-1] + 20]
    return float(alone.max() - 2 * (beats - 1))


def jain(shares: np.ndarray) -> float:
    """Weighted Jain index of service divided by weight."""
    return float(shares.sum() ** 2 / (len(shares) * (shares**2).sum()))


def fairness(ratio: int, cycles: int) -> tuple[float, float, int]:
    """Worst Jain index in any window over the tenants backlogged throughout, work conserved, and the window.

    Eight tenants backlogged throughout, costs from 1 to `ratio` beats a packet, weights 1 to 3; four come and go.
    """
    weights = [1000 * (1 + tenant % 3) for tenant in range(CONFIG.tenants)]
    share = min(weights) / sum(weights[:12])
    window = int(max(10_000, 10 * ratio / share))
    with Rig(CONFIG) as rig:
        rig.commit([Row(weight=weight, pages=1) for weight in weights])
        for tenant in range(8):
            size = 1 if tenant % 2 else ratio
            rig.offer(Flow(tenant % 2, tenant, OUTPUT, (size,), window=ratio + 16))
        for tenant in range(8, 12):
            rig.offer(Flow(tenant % 2, tenant, OUTPUT, ((1, ratio)[tenant // 2 % 2],), window=ratio + 16,
                           on=1700 * (tenant - 7), off=2900))
        step = window // 10
        begin(rig, 20_000, step)
        rig.run(cycles // step * step)
        samples, full = rig.samples()
        conserved = 1 - rig.starved(OUTPUT) / (len(samples) * step)
        check(rig)
    got, full = samples[:, OUTPUT, :8].astype(float), full[:, OUTPUT, :8]
    worst = 1.0
    for first in range(len(got) - 9):
        members = full[first:first + 10].all(axis=0)
        worst = min(worst, jain((got[first:first + 10].sum(axis=0) / weights[:8])[members]))
    if not full.all(axis=1).mean() > 0.9:
        progress(f"fairness 1:{ratio}: backlogged in {full.mean():.0%} of the steps")
    return worst, conserved, window


def conserved_everywhere(cycles: int) -> float:
    """Throughput over that of work-conserving outputs: two ports, every queue backlogged, unequal weights.

    Without windows a header that waits for pages of one output would hold up those behind it, whatever output they are
    for: that is not the outputs' doing.
    """
    config = DeviceConfig(ports=2, tenants=4, pages=32)
    ports, tenants = range(config.ports), range(config.tenants)
    with Rig(config) as rig:
        rig.commit([Row(weight=1000 << tenant, pages=2) for tenant in tenants])
        rig.offer(*(Flow(port, tenant, output, (1, 4, 16), window=32)
                    for port in ports for tenant in tenants for output in ports))
        begin(rig, 5000, 1000)
        rig.run(cycles)
        samples, _ = rig.samples()
        check(rig)
    return float(samples.sum()) / (len(samples) * 1000 * config.ports)


#: What the adversary at the network port and tenants 8 to 11 do; the reference is the first.
ADVERSARIES: dict[str, tuple[list[Flow], set[int]]] = {
    "well-behaved": ([Flow(NET, t, OUTPUT, (16,), window=WINDOW) for t in range(8, 12)], set()),
    "small packets": ([Flow(NET, t, OUTPUT, (1,)) for t in range(8, 12)], set()),
    "large packets": ([Flow(NET, t, OUTPUT, (16,)) for t in range(8, 12)], set()),
    "bursts": ([Flow(NET, t, OUTPUT, (16,), on=3000, off=5000) for t in range(8, 12)], set()),
    "one hot output": ([Flow(port, t, OUTPUT, (16,)) for port in (NET, OUTPUT) for t in range(8, 12)], set()),
    "full buffer": ([Flow(port, t, OUTPUT, (1, 16)) for port in (NET, OUTPUT, 3) for t in range(8, 12)], set()),
    "stalled sink": ([Flow(NET, t, out, (16,)) for t in range(8, 12) for out in (OUTPUT, 3)], {3}),
}
LARGEST = 16  # beats of the largest packet of any of them


def victim_p99(name: str, cycles: int) -> tuple[float, float]:
    """p99 and maximum of the latency of tenant 1's packets from the host, four beats, at half of its share."""
    flows, stuck = ADVERSARIES[name]
    with Rig(CONFIG, seed=5) as rig:
        rig.commit([Row(weight=4096, pages=4)] * CONFIG.tenants)
        for output in stuck:
            rig.sink(output, stuck=True)
        rig.offer(Flow(HOST, 1, OUTPUT, (4,), interval=40), *(flow for flow in flows if flow.tenant != 1))
        rig.run(20_000)
        rig.sample(0)
        rig.run(cycles)
        records = rig.records()
        found = records["latency"][(records["tenant"] == 1) & (records["input"] == HOST)]
        for output in stuck:
            rig.sink(output)
        check(rig)
    return float(np.percentile(found, 99, method="higher")), float(found.max())


SHAPED = (1 / 65536, 1 / 1024, 0.01, 0.1, 0.25, 0.5, 0.9)   # of a beat a cycle


def shaped_error(burst: int, sizes: Sequence[int], rate: float) -> float:
    """How far one tenant's beats, always waiting, are from its rate: of the rate, from a packet's start to another's.

    The bucket is empty at first. While it fills, up to where the output keeps it, the tenant may get less."""
    row = Row(pages=2, rate=round(rate * FULL_RATE), burst=burst)
    with Rig(CONFIG) as rig:
        rig.commit([EQUAL[0], row, *EQUAL[2:]])
        rig.offer(Flow(HOST, 1, OUTPUT, sizes, window=WINDOW))
        rig.run(100_000)
        rig.sample(0)
        rig.run(int(max(400_000, 10 * np.mean(sizes) / rate)))
        records = rig.records()
        rig.commit(EQUAL)   # else the rest would take its time
        check(rig)
    beats = records["beats"].astype(int)
    start = records["done"].astype(int) - beats
    return abs(float(beats[:-1].sum() / (start[-1] - start[0])) * FULL_RATE / row.rate - 1)


def main() -> None:
    """Measure everything and report."""
    options = arguments(__doc__.splitlines()[0],
                        cycles={"type": int, "default": 100_000, "help": "of each throughput (default %(default)s)"})
    cycles, found, base = options.cycles, [], machine()
    plain = {"plain_round_robin_switches": "1.3/2.2/2.5", "model_of_this_topology": 3.8}
    for name, sizes in SIZES.items():
        progress(f"throughput: {name}")
        found.append(Figure("fabric.beats_per_cycle", throughput(sizes, cycles), "beats/cycle", plain, (">=", 3.8),
                            {"traffic": f"uniform, {name}", "engine_window": MOST_WANTED, **base}))
        found.append(Figure("fabric.beats_per_cycle", throughput(sizes, cycles, permutation=True), "beats/cycle",
                            {"ideal": 4.0}, (">=", 3.99),
                            {"traffic": f"permutation, {name}", "engine_window": MOST_WANTED, **base}))
    for beats in (1, 4):
        found.append(Figure("fabric.latency_cycles", unloaded_latency(beats), "cycles",
                            {"cut_through": 4, "voq_prototype": 9}, ("<=", 8), {"packet_beats": beats, **base}))
    for ratio in (1, 4, 16, 64):
        progress(f"fairness at costs 1:{ratio}")
        worst, conserved, window = fairness(ratio, 4 * cycles)
        conditions = {"cost_ratio": f"1:{ratio}", "window_cycles": window, **base}
        found.append(Figure("fabric.jain_worst", worst, "index", {"equal": 1.0}, (">=", 0.99), conditions))
        found.append(Figure("fabric.work_conserving", conserved, "share", {"ideal": 1.0}, (">=", 0.99), conditions))
    found.append(Figure("fabric.work_conserving", conserved_everywhere(cycles), "share", {"ideal": 1.0}, (">=", 0.99),
                        {"traffic": "2 x 2, all backlogged, weights 1:2:4:8", **base}))
    for burst in (DEFAULT_BURST, 512):
        for name, sizes in {"1 beat": (1,), "4 beats": (4,), "mixture": (1, 4, 16)}.items():
            progress(f"shapers: {name}, bursts of {burst}")
            errors = {rate: shaped_error(burst, sizes, rate) for rate in (SHAPED if sizes == (1,) else SHAPED[1:])}
            worst_rate = max(errors, key=lambda rate: errors[rate])
            found.append(Figure("fabric.shaped_error", errors[worst_rate], "of the rate", {"exact": 0.0}, ("<=", 0.001),
                                {"traffic": name, "burst": burst, "worst_rate": worst_rate, **base}))
    reference, worst_reference = victim_p99("well-behaved", 3 * cycles)
    for name in list(ADVERSARIES)[1:]:
        progress(f"isolation: {name}")
        p99, worst = victim_p99(name, 3 * cycles)
        found.append(Figure("fabric.victim_p99", p99 / reference, "ratio",
                            {"well_behaved_p99_cycles": reference, "well_behaved_max_cycles": worst_reference},
                            ("<=", 1.10), {"adversary": name, "p99_cycles": p99, "max_cycles": worst, **base}))
        found.append(Figure("fabric.victim_worst", worst, "cycles", {"well_behaved_max_cycles": worst_reference},
                            ("<=", worst_reference + ROUND + LARGEST),
                            {"adversary": name, "round_cycles": ROUND, "largest_packet": LARGEST, **base}))
    progress("throughput with the window that the engines of a device keep")
    found.append(Figure("fabric.beats_per_cycle", throughput((16,), cycles, wanted=MOST_COMING), "beats/cycle", plain,
                        (">=", 3.8), {"traffic": "uniform, 16 beats", "engine_window": MOST_COMING, **base}))
    report(found, as_json=options.json)


if __name__ == "__main__":
    main()
