"""The engine bench: its models serve what they say, and its index sees what is unfair."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))  # bench scripts import each other as scripts do

from _engine_column import Arrivals, Service
from _engine_models import MODELS, simulate
from engines import BIN, Case, jain_of_windows, lag_of, recovery_of


def backlog(cost, count=2000):
    return Arrivals(np.zeros(count, np.int64), np.full(count, cost))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("servers", [1, 3])
def test_models_conserve_work_and_do_each_request_once(name, servers):
    rng = np.random.default_rng(1)
    arrivals = [Arrivals(np.sort(rng.integers(0, 50_000, 40)), rng.integers(10, 900, 40)) for _ in range(4)]
    service = simulate(MODELS[name], arrivals, [3, 1, 1, 2], servers, 200_000, BIN)
    for tenant, one in enumerate(arrivals):
        assert service.busy[:, tenant].sum() == one.costs.sum()
        assert len(service.ends[tenant]) == 40
    assert service.busy.sum(1).max() <= servers * BIN
    full = simulate(MODELS[name], [backlog(100)] * 4, [3, 1, 1, 2], servers, 10_000, BIN)
    assert (full.busy.sum(1) == servers * BIN).all()


@pytest.mark.parametrize(("name", "shares"), [
    ("round_robin", [10 / 11, 1 / 11]), ("wrr", [10 / 13, 3 / 13]), ("lifetime_average", [0.25, 0.75])])
def test_models_share_as_they_are_known_to(name, shares):
    service = simulate(MODELS[name], [backlog(200, 4000), backlog(20, 40_000)], [1, 3], 1, 400_000, BIN)
    busy = service.busy.sum(0)
    assert busy / busy.sum() == pytest.approx(shares, abs=0.01)


def service_of(rates, waiting=100):
    """A made-up course: cycles a bin for each tenant."""
    busy = np.array(rates, np.int64)
    return Service(BIN, busy, np.full_like(busy, waiting), [np.array([0])] * busy.shape[1])


def test_index_is_one_for_weighted_shares_and_sees_one_window_that_is_not():
    case = Case([backlog(100), backlog(100)], (1, 3), 100_000)
    fair = np.tile([25, 75], (400, 1))
    assert jain_of_windows(case, service_of(fair)).min() == pytest.approx(1)
    unfair = fair.copy()
    unfair[200:300] = [75, 25]
    found = jain_of_windows(case, service_of(unfair))
    assert found.argmin() == 200
    assert found.min() == pytest.approx((75 + 25 / 3) ** 2 / 2 / (75 ** 2 + (25 / 3) ** 2))


def test_index_counts_only_tenants_that_are_backlogged_throughout():
    case = Case([backlog(100)] * 3, (1, 1, 1), 100_000)
    course = service_of(np.tile([50, 50, 0], (400, 1)))
    assert jain_of_windows(case, course).max() < 0.7
    course.waiting[:, 2] = 0
    assert jain_of_windows(case, course).min() == pytest.approx(1)


def test_recovery_ends_with_the_last_unfair_window():
    case = Case([backlog(100), backlog(100)], (1, 1), 100_000)
    course = np.tile([50, 50], (600, 1))
    course[300:304] = [100, 0]
    served = service_of(course)
    ends = [np.array([30_000, 30_100]), np.array([0])]
    served = Service(BIN, served.busy, served.waiting, ends)
    assert recovery_of(case, served, 0, 1) == 0, "four bins in a hundred are within the tolerance"
    course[300:340] = [100, 0]
    assert 2000 < recovery_of(case, Service(BIN, course, served.waiting, ends), 0, 1) <= 4000
    course[300:600] = [100, 0]
    assert recovery_of(case, Service(BIN, course, served.waiting, ends), 0, 1) == float("inf")


def test_lag_is_what_the_worst_off_is_behind_since_the_change_in_longest_services():
    case = Case([backlog(100), backlog(500)], (1, 3), 100_000)
    course = np.tile([25, 75], (600, 1))
    course[290:300] = [100, 0]     # before the change: not counted
    ends = [np.array([30_000, 30_100]), np.array([0])]
    assert lag_of(case, Service(BIN, course, np.full_like(course, 100), ends), 0, 1) == pytest.approx(0)
    course[310:330] = [100, 0]
    course[340:] = [0, 100]
    lag = lag_of(case, Service(BIN, course, np.full_like(course, 100), ends), 0, 1)
    # First tenant 1 is 20 * 75 behind; the window of 20,000 cycles ends 160 bins after the tables have turned.
    assert lag == pytest.approx(max(20 * 75, 160 * 25 - 20 * 75) / 500)
    assert lag_of(case, Service(BIN, course, np.full_like(course, 100), ends), 0, 2) == float("inf")
