"""How well the workload analyzer sees: streams, rates, latencies and forecasts, from the gateware's own blocks.

- `f1_over_offline`: requests that the detector calls sequential or strided, against those that the best offline
  detector of four streams with the same horizon explains (see `_streams.py`); beside it `f1_over_oracle`, against one
  without limits. On traces (`MORPHNIC_DATA`) and on interleavings made for it. With more than four streams at a time
  the device explains requests that the four-stream detector cannot: that counts against it, and has no target.
- `rate_error`, `latency_mean_error`, `percentile_error`: largest relative error over windows, tenants and kinds of
  latency, against the exact figures of the same packets.
- `prediction_over_best`: mean absolute error of the device's forecast of a tenant's bytes in the next window, over that
  of the better of the last value and the exponential average whose gain is best in hindsight. The gains were chosen
  on the generated series, not on the traces. Beside it, over the same best, what no device can do, since it knows the
  whole series in advance: `best_of_grid` is Holt's method with the best of 40 gains; `median_in_hindsight` each
  tenant's best constant, the least error of all where windows do not depend on each other; `linear_in_hindsight` each
  tenant's best linear function of the last two windows, and `linear_in_hindsight_shuffled` the same of the windows in
  random order: as far as the two are equal, it is fitting and not prediction.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from _analyzer import classified, histogram, predicted, windows
from _figures import Figure, arguments, progress, report
from _streams import FAR, UNLIMITED, f1, interleaving, offline

from device_link.histogram import percentile
from gateware.analyzer.pattern import HORIZON
from gateware.config import DeviceConfig
from sim.requests import Requests, digest_of
from sim.traces import read_mqsim

TRACES = {"mqsim_tpcc-small.trace": (1_000_000, 5_000_000), "mqsim_wsrch-small.trace": (100_000_000, 1_000_000_000)}
#: Steps of the streams, share of random requests, whether the streams take turns.
INTERLEAVINGS = (((8,), 0.0, True), ((8,), 0.3, False), ((1000,), 0.1, True), ((8, 300, -500, 4096), 0.1, False))
GAINS = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)
Series = list[np.ndarray]


def traces() -> dict[str, Requests]:
    """The recorded block traces, where `MORPHNIC_DATA` has them."""
    folder = os.environ.get("MORPHNIC_DATA")
    if not folder:
        progress("MORPHNIC_DATA is not set: generated input only")
        return {}
    return {name: read_mqsim(Path(folder) / name) for name in TRACES}


# --- streams ------------------------------------------------------------------------------------------------------


def detection(name: str, requests: Sequence[tuple[int, int]], conditions: dict[str, object],
              target: tuple[str, float] | None) -> list[Figure]:
    """Both F1 figures of (tenant, sector) requests, over all tenants together."""
    tenants = max(tenant for tenant, _ in requests) + 1
    found = classified(requests, max(2, tenants))
    explained: dict[str, list[int]] = {}
    for kind, options in (("offline", {}), ("oracle", {"horizon": FAR, "streams": UNLIMITED})):
        explained[kind] = [0] * len(requests)
        for tenant in range(tenants):
            places = [place for place, (own, _) in enumerate(requests) if own == tenant]
            answers = offline([requests[place][1] for place in places], **options)
            for place, answer in zip(places, answers, strict=True):
                explained[kind][place] = answer
    conditions = {"input": name, "requests": len(requests), "horizon": HORIZON, **conditions}

    def figure(kind: str, bound: tuple[str, float] | None) -> Figure:
        truth = explained[kind]
        alone = {label: f1([one == code for one in found], [one == code for one in truth])
                 for label, code in (("sequential", 1), ("strided", 2))}
        reference = {f"{kind}_explains": sum(map(bool, truth)), "device_explains": sum(map(bool, found)),
                     "f1_sequential": alone["sequential"], "f1_strided": alone["strided"]}
        return Figure(f"analyzer.f1_over_{kind}", f1([bool(one) for one in found], [bool(one) for one in truth]),
                      "ratio", reference, bound, conditions)

    return [figure("offline", target), figure("oracle", None)]


def all_detection(recorded: dict[str, Requests], requests: int) -> list[Figure]:
    """Traces, then interleavings."""
    figures: list[Figure] = []
    for name, trace in recorded.items():
        progress(f"streams of {name}")
        pairs = list(zip(trace.rows["stream"].tolist(), trace.rows["lba"].tolist(), strict=True))
        figures += detection(name, pairs, {"sha256": trace.sha256[:16]}, (">=", 0.99))
    for streams, (steps, noise, in_turn) in itertools.product((1, 4, 6), INTERLEAVINGS):
        parameters = {"streams": streams, "steps": list(steps), "noise": noise, "in_turn": in_turn, "seed": 1}
        sectors = interleaving(1, requests, streams=streams, steps=steps, noise=noise, in_turn=in_turn)
        figures += detection("interleaving", [(0, sector) for sector in sectors],
                             {**parameters, "sha256": digest_of(parameters)[:16]},
                             (">=", 0.99) if streams <= 4 else None)
    return figures


# --- rates and latencies -------------------------------------------------------------------------------------------

LATENCIES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "lognormal": lambda rng, count: rng.lognormal(6, 1, count),
    "exponential": lambda rng, count: rng.exponential(3_000, count),
    "bimodal": lambda rng, count: np.where(
        rng.random(count) < 0.97, rng.normal(60, 5, count), rng.normal(9e4, 5e3, count)),
    "constant": lambda rng, count: np.full(count, 9.0),
}


def relative(found: float, exact: float) -> float:
    """Relative error; 0 when both are 0."""
    return abs(found - exact) / exact if exact else float(found != 0)


def measured(config: DeviceConfig, length: int, count: int) -> list[Figure]:
    """Rates and latencies of every window, with a packet at almost every port in almost every cycle."""
    rng = np.random.default_rng(3)
    kinds = list(LATENCIES)
    packets = []
    for _ in range(count * length):
        tenants = rng.integers(0, config.tenants, config.ports)
        packets.append([
            (int(tenant), int(rng.integers(1, 2049)), max(0, int(LATENCIES[kinds[tenant % len(kinds)]](rng, 1)[0])))
            if rng.random() < 0.95 else None for tenant in tenants])
    progress(f"{count} windows of {length} cycles")
    found = windows(config, length, packets, count)
    rate = mean = highest = 0.0
    for number, window in enumerate(found):
        for tenant, row in enumerate(window.rows):
            own = [event for events in packets[number * length:(number + 1) * length] for event in events
                   if event and event[0] == tenant]
            sizes, latencies = sum(event[1] for event in own), [event[2] for event in own]
            rate = max(rate, relative(row.bytes_in, sizes), relative(row.bytes_out, sizes),
                       relative(row.packets_in, len(own)), relative(row.packets_out, len(own)))
            mean = max(mean, relative(row.latency_sum / max(1, row.packets_out), float(np.mean(latencies))))
            highest = max(highest, relative(row.latency_max, max(latencies)))
    conditions = {"windows": count, "cycles": length, "tenants": config.tenants, "ports": config.ports,
                  "packets": sum(event is not None for events in packets for event in events), "seed": 3}
    return [Figure("analyzer.rate_error", rate, "ratio", {"exact": 0.0}, ("<=", 0.01), conditions),
            Figure("analyzer.latency_mean_error", mean, "ratio", {"exact": 0.0}, ("<=", 0.01), conditions),
            Figure("analyzer.latency_max_error", highest, "ratio", {"exact": 0.0}, ("<=", 0.01), conditions)]


def percentiles(config: DeviceConfig, packets: int) -> list[Figure]:
    """Percentiles from the histogram, one packet a port and cycle."""
    figures = []
    for name, draw in LATENCIES.items():
        progress(f"percentiles of {name} latencies")
        latencies = np.maximum(draw(np.random.default_rng(5), packets), 0).astype(int)
        counts = histogram(config, latencies.tolist())
        errors = {}
        for share in (0.5, 0.9, 0.99, 0.999):
            exact = float(np.percentile(latencies, 100 * share, method="inverted_cdf"))
            errors[f"p{100 * share:g}"] = relative(percentile(counts, share), exact)
        figures.append(Figure("analyzer.percentile_error", max(errors.values()), "ratio", errors, ("<=", 0.07),
                              {"latencies": name, "packets": packets, "counted": sum(counts), "seed": 5}))
    return figures


# --- prediction ----------------------------------------------------------------------------------------------------


def holt(values: np.ndarray, gain: float, slope_gain: float) -> np.ndarray:
    """Forecast after each value; with a slope gain of 0 the exponential average."""
    forecasts = np.empty(len(values))
    level, slope = float(values[0]), 0.0
    forecasts[0] = level
    for place, value in enumerate(values[1:], 1):
        error = value - (level + slope)
        level += slope + gain * error
        slope += gain * slope_gain * error
        forecasts[place] = max(0.0, level + slope)
    return forecasts


def error_of(series: Series, forecasts: Sequence[Sequence[float] | np.ndarray]) -> float:
    """Mean absolute error of the forecasts for the next value."""
    return float(np.mean(np.concatenate([np.abs(values[1:] - np.asarray(forecast)[:-1])
                                         for values, forecast in zip(series, forecasts, strict=True)])))


def median_error(series: Series) -> float:
    """Of each tenant's median over the whole series as the forecast for every window but the first."""
    return float(np.mean(np.concatenate([np.abs(values[1:] - np.median(values)) for values in series])))


def linear_error(series: Series, windows_: int = 2) -> float:
    """Of each tenant's linear function of its last `windows_` values that errs least on the series itself (in absolute
    errors, by least squares weighted again and again)."""
    errors = []
    for values in series:
        wanted = values[windows_:].astype(float)
        inputs = np.stack([np.ones(len(wanted)), *(values[windows_ - 1 - back:len(values) - 1 - back].astype(float)
                                                   for back in range(windows_))], 1)
        weights = np.ones(len(wanted))
        for _ in range(60):
            roots = np.sqrt(weights)
            fit = np.linalg.lstsq(inputs * roots[:, None], wanted * roots, rcond=None)[0]
            error = np.abs(wanted - inputs @ fit)
            weights = 1 / np.maximum(error, 1e-3 * wanted.mean() + 1)
        errors.append(error)
    return float(np.mean(np.concatenate(errors)))


def in_hindsight(series: Series, best: float) -> dict[str, float]:
    """What is reached with knowledge of the series, over `best`."""
    rng = np.random.default_rng(1)
    shuffled = [linear_error([rng.permutation(values) for values in series]) for _ in range(5)]
    return {"median_in_hindsight": median_error(series) / best, "linear_in_hindsight": linear_error(series) / best,
            "linear_in_hindsight_shuffled": float(np.mean(shuffled)) / best}


def prediction(name: str, series: Series, conditions: dict[str, object], target: tuple[str, float] | None) -> Figure:
    """The device's error over that of the better of last value and exponential average."""
    progress(f"prediction of {name}")
    own = error_of(series, predicted([values.tolist() for values in series]))
    last = error_of(series, series)
    averages = {gain: error_of(series, [holt(values, gain, 0) for values in series]) for gain in GAINS}
    grid = min(error_of(series, [holt(values, gain, slope) for values in series])
               for gain, slope in itertools.product((*GAINS, 1, 3 / 4, 3 / 8), GAINS))
    best = min(last, *averages.values())
    reference = {"last_value_bytes": last, "average_bytes": min(averages.values()),
                 "average_gain": min(averages, key=lambda gain: averages[gain]), "device_bytes": own,
                 "over_average_of_gain_1/2": own / min(last, averages[1 / 2]), "best_of_grid": grid / best,
                 **in_hindsight(series, best)}
    return Figure("analyzer.prediction_over_best", own / best, "ratio", reference, target,
                  {"input": name, "series": len(series), "windows": len(series[0]), **conditions})


def generated_series(seed: int, windows_: int) -> dict[str, Series]:
    """Kinds of demand that the gains were chosen on, in bytes a window."""
    rng = np.random.default_rng(seed)
    time = np.arange(windows_)

    def drawn(rates: Sequence[np.ndarray]) -> Series:
        return [rng.poisson(np.maximum(rate, 0)) * 4096 for rate in rates]

    def bursts(rate: float, mean: float) -> np.ndarray:
        lengths = rng.geometric(1 / mean, windows_)
        return np.repeat(np.where(np.arange(windows_) % 2, rate / 20, rate), lengths)[:windows_]

    return {
        "poisson": drawn([np.full(windows_, rate) for rate in (1.0, 5.0, 50.0)]),
        "bursts": drawn([bursts(20, 4), bursts(20, 20), bursts(5, 50)]),
        "ramps": drawn([5 + 0.2 * time, 5 + time, 50 + 10 * np.abs(time % 80 - 40)]),
        "waves": drawn([rate * (1 + 0.8 * np.sin(2 * np.pi * time / period))
                        for rate, period in ((20, 40), (50, 100), (200, 30))]),
        "steps": drawn([np.repeat(rng.integers(1, 100, windows_ // 40 + 1), 40)[:windows_] for _ in range(3)]),
    }


def all_prediction(recorded: dict[str, Requests], windows_: int) -> list[Figure]:
    """Traces with two lengths of a window, then generated series."""
    figures = []
    for name, trace in recorded.items():
        rows = trace.rows
        for nanoseconds in TRACES[name]:
            places = ((rows["time"] - rows["time"].min()) // nanoseconds).astype(int)
            series = [np.bincount(places[rows["stream"] == stream], rows["size"][rows["stream"] == stream],
                                  places.max() + 1).astype(np.int64) for stream in trace.streams]
            figures.append(prediction(name, series, {"window_ms": nanoseconds / 1e6, "sha256": trace.sha256[:16]},
                                      ("<=", 0.8)))
    for name, series in generated_series(7, windows_).items():
        figures.append(prediction(name, series, {"seed": 7}, None))
    return figures


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__.splitlines()[0],
                        only={"choices": ("prediction",), "help": "default: everything"},
                        requests={"type": int, "default": 1500, "help": "of an interleaving; default %(default)s"},
                        packets={"type": int, "default": 20_000, "help": "of a histogram; default %(default)s"})
    config = DeviceConfig(ports=4, tenants=4)
    recorded = traces()
    figures = []
    if options.only != "prediction":
        figures += all_detection(recorded, options.requests)
        # A cycle of the whole analyzer takes milliseconds.
        figures += measured(DeviceConfig(ports=3, tenants=4), 600, 3)
        figures += percentiles(config, options.packets)
    figures += all_prediction(recorded, 400)
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
