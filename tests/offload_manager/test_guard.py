"""When a committed table is held responsible for what its windows show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from offload_manager.guard import Figures, accused_tenants, measure, verdict
from offload_manager.policy_spec import GuardSpec
from tests.offload_manager.views import CYCLES, equal_table, profiles, row, traffic, window

SPEC = GuardSpec(miss_ratio_worse=0.05, batch_worse=0.2, demand_grew=0.25)
BEFORE = Figures(offered=10.0, latency_rate=2.0, batch_rate=8.0, batch_held=0.0, miss_ratio=0.02)


@pytest.mark.parametrize(("change", "worse"), [
    ({}, None),
    ({"miss_ratio": 0.06}, None),
    ({"miss_ratio": 0.08}, "misses"),
    ({"miss_ratio": 0.5, "offered": 12.4}, "misses"),
    ({"miss_ratio": 0.5, "offered": 12.6}, None),  # the load grew
    ({"batch_rate": 6.0}, None),  # it wanted less: nobody held it up
    ({"batch_rate": 6.0, "batch_held": 0.2}, "batch"),
    ({"batch_rate": 6.5, "batch_held": 0.2}, None),  # within the margin
    ({"batch_rate": 6.0, "batch_held": 0.2, "latency_rate": 3.5}, None),  # the latency class took it
    ({"batch_rate": 6.0, "batch_held": 0.2, "latency_rate": 2.5}, "batch"),
    ({"batch_rate": 6.0, "batch_held": 0.2, "offered": 13.0}, None),
])
def test_verdict(change: dict[str, float], worse: str | None) -> None:
    found = verdict(BEFORE, replace(BEFORE, **change), SPEC)
    assert (found is None) == (worse is None)
    if worse and found:
        assert worse in found


def test_nothing_is_compared_with_silence() -> None:
    assert verdict(replace(BEFORE, offered=0.0), replace(BEFORE, offered=0.0, miss_ratio=1.0), SPEC) is None


@pytest.mark.parametrize(("change", "accused"), [
    ({}, []), ({"weight": 10_000}, [1]), ({"weight": 30_000}, []), ({"pages": 2}, [1]), ({"pages": 9}, []),
    ({"rate": 100}, [1]), ({"host_share": 1}, [1]), ({"ports": 0b0111}, [1]),
])
def test_only_a_tenant_that_had_to_give_accuses_the_table(change: dict[str, int], accused: list[int]) -> None:
    who = profiles({1: 1000})
    before = equal_table(who)
    before = before.with_rows({1: replace(before.rows[1], pages=4)})
    after = before.with_rows({1: replace(before.rows[1], **change)})
    assert accused_tenants(before, after, who) == accused
    assert accused_tenants(before, before.with_rows({2: replace(before.rows[2], weight=1)}), who) == []


def test_figures_are_rates_over_all_windows_and_misses_of_the_accused() -> None:
    who = profiles({1: 1000, 2: 1000})
    rows = [traffic(0.1, backpressure_cycles=CYCLES // 4), traffic(0.2, slo_misses=7), traffic(0.2, slo_misses=90),
            row()]
    figures = measure([window(rows), window(rows, 1)], who, [1])
    assert figures.batch_rate == pytest.approx(0.8, rel=0.01)
    assert figures.latency_rate == pytest.approx(3.2, rel=0.01)
    assert figures.offered == pytest.approx(4.0, rel=0.01)
    assert figures.batch_held == 0.25
    assert figures.miss_ratio == pytest.approx(7 / traffic(0.2).packets_out)
