"""Percentiles from the analyzer's bins, against exact ones."""

import random

import pytest

from device_link.histogram import BINS, bin_bounds, percentile, since
from morphnic.errors import InputError
from tests.gateware.analyzer.model import latency_bin


def histogram(latencies):
    counts = [0] * BINS
    for latency in latencies:
        counts[latency_bin(latency)] += 1
    return counts


def test_bins_follow_each_other_and_hold_what_the_device_counts_in_them():
    bounds = [bin_bounds(number) for number in range(BINS - 8)]
    assert [high for _, high in bounds[:-1]] == [low for low, _ in bounds[1:]]
    for number, (low, high) in enumerate(bounds):
        assert latency_bin(low) == latency_bin(high - 1) == number


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_percentile_is_within_7_percent(seed, share):
    rng = random.Random(seed)
    shape = [lambda: rng.lognormvariate(5, 1), lambda: rng.expovariate(1 / 300), lambda: rng.choice([8, 9, 4000, 4090]),
             lambda: rng.uniform(3, 100_000)][seed]
    latencies = sorted(int(shape()) for _ in range(4001))
    exact = latencies[max(0, -int(-share * len(latencies) // 1) - 1)]
    assert percentile(histogram(latencies), share) == pytest.approx(exact, rel=0.07)


def test_counters_that_wrapped_are_subtracted_modulo():
    assert since([2] * BINS, [0xFFFF_FFFF] * BINS) == [3] * BINS


def test_empty_histogram_says_what_to_do():
    with pytest.raises(InputError, match="longer"):
        percentile([0] * BINS, 0.5)


@pytest.mark.parametrize("call", [lambda: percentile([0], 0.5), lambda: percentile([1] * BINS, 1.5),
                                  lambda: bin_bounds(BINS)])
def test_arguments_are_checked(call):
    with pytest.raises(ValueError, match="must"):
        call()
