"""The figures of a run on cases whose answers are known by hand, and on properties that always hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphnic.demo.metrics import Requests, jain, max_min, run_figures


def requests(rows):
    arrival, done, tenant, size = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    return Requests(arrival=arrival, done=done, tenant=tenant, size=size)


def test_jain_is_one_for_equal_and_one_nth_for_a_single_winner():
    assert jain(np.array([3.0, 3.0, 3.0])) == pytest.approx(1.0)
    assert jain(np.array([9.0, 0.0, 0.0])) == pytest.approx(1 / 3)


def test_max_min_gives_the_small_its_demand_and_shares_the_rest_by_weight():
    shares = max_min(np.array([1.0, 10.0, 10.0]), np.array([1.0, 1.0, 2.0]), 10.0)
    assert shares == pytest.approx([1.0, 3.0, 6.0])


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 10)), min_size=1, max_size=8), st.floats(0, 300))
def test_max_min_never_exceeds_demand_or_capacity_and_wastes_nothing(pairs, capacity):
    demands = np.array([demand for demand, _ in pairs])
    shares = max_min(demands, np.array([weight for _, weight in pairs]), capacity)
    assert (shares <= demands + 1e-6).all()
    assert shares.sum() == pytest.approx(min(capacity, demands.sum()), abs=1e-5)


def test_latency_counts_from_arrival_and_undelivered_requests_miss():
    run = requests([(0, 10, 1, 100), (5, 45, 1, 100), (6, -1, 1, 100), (8, 9, 2, 50)])
    figures = run_figures(run, {"latency": {1}, "batch": {2}}, {"latency": 20, "batch": 20},
                          weights={1: 1.0, 2: 1.0}, capacity=100.0)
    latency, batch = figures.classes
    assert (latency.requests, latency.p50, latency.p99) == (3, 40.0, 40.0)
    assert latency.misses == pytest.approx(2 / 3)
    assert (batch.p50, batch.misses) == (1.0, 0.0)
    assert (figures.offered, figures.delivered, figures.dropped) == (350, 250, 100)


def test_throughput_counts_only_what_was_delivered_while_requests_arrived():
    run = requests([(0, 5, 1, 80), (9, 1000, 1, 80)])
    figures = run_figures(run, {"all": {1}}, {"all": 10}, weights={1: 1.0}, capacity=16.0)
    assert figures.throughput == pytest.approx(8.0)
    assert figures.utilisation == pytest.approx(0.5)
