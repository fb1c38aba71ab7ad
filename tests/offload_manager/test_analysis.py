"""What a window says: bottlenecks, patterns, utilisation, fairness, forecasts."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from offload_manager.analysis import Analysis, access_pattern, analyse, demand_of, weighted_jain
from offload_manager.forecast import Trend
from tests.offload_manager.views import CYCLES, LIMITS, equal_table, profiles, row, traffic, window


def analysed(*rows: object, slo: int = 1000, rate: int = 1 << 16, pages: int = 0) -> Analysis:
    """Analysis of one window; the table has this rate and these pages in row 1."""
    who = profiles({1: slo})
    table = equal_table(who)
    table = table.with_rows({1: replace(table.rows[1], rate=rate, pages=pages)})
    return analyse(window(rows), None, table, who, LIMITS)  # type: ignore[arg-type]


HELD = CYCLES // 2


def test_tenant_held_up_on_a_busy_output_is_limited_by_bandwidth() -> None:
    result = analysed(row(), traffic(0.5, backpressure_cycles=HELD), traffic(0.5), row())
    assert result.limits_of(1) == {"bandwidth"}
    assert result.limits_of(2) == set()
    assert "held up in 50%" in result.bottlenecks[0].reason


def test_tenant_at_its_shaper_is_limited_by_rate() -> None:
    result = analysed(row(), traffic(0.245, backpressure_cycles=HELD), row(), row(), rate=1 << 14)
    assert result.limits_of(1) == {"rate"}


def test_tenant_on_busy_engines_is_limited_by_engine() -> None:
    result = analysed(row(), traffic(0.2, backpressure_cycles=HELD, engine_cycles=2 * CYCLES), row(), row())
    assert result.limits_of(1) == {"engine"}
    assert result.engine_utilisation == 1.0


def test_tenant_with_full_quota_is_limited_by_pages() -> None:
    result = analysed(row(), traffic(0.2, backpressure_cycles=HELD, queue_depth_max=30), row(), row(), pages=8)
    assert result.limits_of(1) == {"pages"}


def test_drops_are_a_lack_of_pages() -> None:
    assert analysed(row(), traffic(0.2, drops=5), row(), row()).limits_of(1) == {"pages"}


def test_misses_over_one_in_sixteen_are_a_latency_bottleneck() -> None:
    packets = traffic(0.2).packets_out
    assert analysed(row(), traffic(0.2, slo_misses=packets // 16), row(), row()).limits_of(1) == set()
    assert analysed(row(), traffic(0.2, slo_misses=packets // 15), row(), row()).limits_of(1) == {"latency"}
    assert analysed(row(), row(), traffic(0.2, slo_misses=packets), row()).limits_of(2) == set()  # no objective


def test_pressed_host_is_named() -> None:
    result = analysed(row(flags=250 << 8), row(flags=250 << 16), row(flags=200 << 8), row())
    assert [result.limits_of(t) for t in range(3)] == [{"host_cpu"}, {"host_memory"}, set()]


@pytest.mark.parametrize(("requests", "sequential", "pattern"), [
    (0, 0, "idle"), (10, 7, "sequential"), (10, 3, "random"), (10, 5, "mixed"), (10, 6, "mixed"), (10, 4, "mixed"),
])
def test_access_pattern(requests: int, sequential: int, pattern: str) -> None:
    assert access_pattern(row(requests=requests, sequential=sequential)) == pattern


def test_utilisation_counts_every_output() -> None:
    result = analysed(*[traffic(0.5)] * 4)
    assert result.utilisation == pytest.approx(0.5, abs=0.01)


def test_demand_of_a_held_up_tenant_is_more_than_it_got() -> None:
    free, held = (demand_of(traffic(0.2, backpressure_cycles=b), LIMITS, CYCLES) for b in (0, HELD))
    assert held.bytes == pytest.approx(2 * free.bytes)
    stalled = demand_of(traffic(0.2, backpressure_cycles=CYCLES), LIMITS, CYCLES)
    assert stalled.bytes == pytest.approx(4 * free.bytes)


def test_weighted_jain() -> None:
    assert weighted_jain([10, 20, 30], [1, 2, 3]) == pytest.approx(1.0)
    assert weighted_jain([10, 0, 0, 0], [1, 1, 1, 1]) == pytest.approx(0.25)
    assert weighted_jain([10, 20], [1, 1]) == pytest.approx(0.9)
    assert weighted_jain([10], [1]) is None
    assert weighted_jain([0, 0], [1, 1]) == 1.0


def test_jain_of_a_window_is_over_tenants_backlogged_throughout() -> None:
    who = profiles()
    busy = [traffic(0.2, depth=3, backpressure_cycles=HELD), traffic(0.4, depth=3, backpressure_cycles=HELD),
            traffic(0.9), row()]
    first, second = window(busy), window(busy, 1)
    assert analyse(first, None, equal_table(who), who, LIMITS).jain is None
    # Tenant 0 had nothing waiting when the window began: it may not have been backlogged throughout.
    fresh = window([replace(busy[0], queue=0), *busy[1:]])
    assert analyse(second, fresh, equal_table(who), who, LIMITS).jain is None
    assert analyse(second, first, equal_table(who), who, LIMITS).jain == pytest.approx(0.9, abs=0.001)


def test_trend_follows_a_ramp_and_forecasts_it() -> None:
    trend = Trend(0.5, 0.5)
    for value in range(0, 1000, 10):
        trend.update(value)
    assert trend.ahead(1) == pytest.approx(1000, rel=0.01)
    assert trend.ahead(5) == pytest.approx(1040, rel=0.01)


def test_trend_starts_at_the_first_value_and_is_never_negative() -> None:
    trend = Trend()
    trend.update(500)
    assert trend.ahead() == 500
    for _ in range(20):
        trend.update(0)
        assert trend.ahead(50) >= 0


@pytest.mark.parametrize("seed", range(3))
def test_trend_matches_holts_equations(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.random() * 100 for _ in range(50)]
    trend = Trend(0.3, 0.2)
    level, slope = values[0], 0.0
    trend.update(values[0])
    for value in values[1:]:
        trend.update(value)
        before = level
        level = 0.3 * value + 0.7 * (level + slope)
        slope = 0.2 * (level - before) + 0.8 * slope
        assert (trend.level, trend.slope) == pytest.approx((level, slope))
