"""Policies on constructed windows: who gets more, who keeps what, and that nothing flaps."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from device_link import WindowRow
from offload_manager.allocation import Guarantee, Limits, check
from offload_manager.policy import BestOf, LatencyTarget, MaxMin, Policy, Proposal, Static, WindowView
from offload_manager.policy.host_shift import HostShift
from offload_manager.policy.maxmin import dominant_fill
from offload_manager.policy.score import rate_beside, score, serve
from offload_manager.policy_file import PolicyFile
from offload_manager.profile import quotas_in_order
from tests.offload_manager.views import CAPACITY, CYCLES, LIMITS, Viewer, equal_table, profiles, row, traffic

SLO = 1000


def every_policy() -> list[Policy]:
    """One of each, and the shipped default."""
    return [Static(), Static("configured", partition=True), MaxMin(), LatencyTarget(),
            PolicyFile.default().make_policy()]


def starved(misses: float = 0.5) -> object:
    """A latency tenant that misses its objective."""
    base = traffic(0.1)
    return replace(base, slo_misses=int(base.packets_out * misses), latency_max=10 * SLO)


def test_latency_target_gives_starved_latency_tenant_more_each_window() -> None:
    viewer, policy = Viewer(profiles({1: SLO})), LatencyTarget(boost_min=4, boost_max=64)
    shares = []
    for _ in range(4):
        shares.append(policy.evaluate(viewer.view([row(), starved(), traffic(0.9), traffic(0.9)])).allocation.share(1))
    assert shares == sorted(shares)
    assert shares[0] > 0.5
    assert shares[-1] > shares[0]


def test_latency_target_leaves_batch_its_part_at_the_highest_boost() -> None:
    viewer, policy = Viewer(profiles({1: SLO})), LatencyTarget(boost_max=1024, batch_share=0.1)
    for _ in range(20):
        proposal = policy.evaluate(viewer.view([row(), starved(), traffic(0.9), traffic(0.9)]))
    assert proposal.allocation.share(0) + proposal.allocation.share(2) + proposal.allocation.share(3) >= 0.0999


def test_latency_target_returns_boost_slowly_after_calm_windows() -> None:
    viewer, policy = Viewer(profiles({1: SLO})), LatencyTarget(hold_windows=2, decay=0.5, boost_min=8)
    calm = [row(), traffic(0.1, latency=50), traffic(0.5), traffic(0.5)]
    raised = policy.evaluate(viewer.view([row(), starved(), traffic(0.9), traffic(0.9)])).allocation.share(1)
    held = [policy.evaluate(viewer.view(calm)).allocation.share(1) for _ in range(2)]
    assert held == [raised, raised]
    later = [policy.evaluate(viewer.view(calm)).allocation.share(1) for _ in range(12)]
    assert later == sorted(later, reverse=True)
    assert later[-1] < raised
    assert later[-1] == pytest.approx(8 / 11, abs=0.01)  # boost_min beside three batch tenants


def test_latency_target_holds_boost_while_worst_packet_is_close_to_objective() -> None:
    viewer, policy = Viewer(profiles({1: SLO})), LatencyTarget(hold_windows=0, decay=0.5)
    raised = policy.evaluate(viewer.view([row(), starved(), row(), row()])).allocation.share(1)
    close = [row(), traffic(0.1, latency_max=int(0.9 * SLO)), row(), row()]
    assert [policy.evaluate(viewer.view(close)).allocation.share(1) for _ in range(5)] == [raised] * 5


def test_latency_target_gives_pages_to_latency_class_then_to_those_who_send() -> None:
    def pages(*rows: WindowRow) -> list[int]:
        table = LatencyTarget(page_part=0.5).evaluate(Viewer(profiles({1: SLO, 2: SLO})).view(rows)).allocation
        return [r.pages for r in table.rows]

    assert pages(*[row()] * 4) == [0, 2, 2, 0]
    assert pages(row(), row(), row(), traffic(0.5)) == [0, 2, 2, 28]
    assert pages(row(), traffic(0.1), row(), traffic(0.5)) == [0, 16, 2, 14]
    assert pages(traffic(0.1), traffic(0.1), row(), traffic(0.5)) == [10, 10, 2, 10]


@pytest.mark.parametrize(("packet_pages", "pool"), [(2, 4), (12, 24), (16, 32)])
def test_latency_target_leaves_two_largest_packets_to_the_pool(packet_pages: int, pool: int) -> None:
    viewer = Viewer(profiles({1: SLO}))
    view = replace(viewer.view([traffic(0.5)] * 4), limits=replace(LIMITS, packet_pages=packet_pages))
    table = LatencyTarget().evaluate(view).allocation
    assert sum(r.pages for r in table.rows) == LIMITS.pages - pool


def test_pause_between_two_bursts_moves_no_pages() -> None:
    viewer, policy = Viewer(profiles({1: SLO})), LatencyTarget()
    first = policy.evaluate(viewer.view([row(), row(), traffic(0.5), traffic(0.5)])).allocation
    for _ in range(40):
        assert policy.evaluate(viewer.view([row()] * 4)).allocation.same_table(first)


def test_quotas_are_whole_units_within_the_pool_and_never_under_a_guarantee() -> None:
    who = profiles()
    who = (who[0], replace(who[1], guarantee=Guarantee(0, 6)), *who[2:])
    assert quotas_in_order(who, LIMITS, [0, 1, 2, 3], 16) == [2, 6, 2, 2]
    assert quotas_in_order(who, LIMITS, [1, 1, 1, 1, 0], 16) == [2, 8, 0, 0]
    assert quotas_in_order(who, LIMITS, [0, 2, 3], 64 - 6 - 5) == [2, 6, 2, 0]
    assert quotas_in_order(who, LIMITS, [0] * 100, 0) == [42, 6, 0, 0]  # 16 are kept for the largest packet


def test_maxmin_idle_tenant_returns_its_share_but_is_admitted() -> None:
    viewer = Viewer(profiles())
    busy = [traffic(0.3), traffic(0.3), traffic(0.3), traffic(0.3)]
    idle = [row(), traffic(0.3), traffic(0.3), traffic(0.3)]
    policy = MaxMin()
    first = policy.evaluate(viewer.view(busy)).allocation
    for _ in range(10):
        later = policy.evaluate(viewer.view(idle)).allocation
    assert first.share(0) == pytest.approx(0.25, abs=0.01)
    assert 0 < later.rows[0].weight <= LIMITS.weight_capacity * 0.011
    assert later.share(1) == pytest.approx(0.33, abs=0.01)


def test_maxmin_limits_heavy_tenant_to_what_the_light_ones_leave() -> None:
    table = MaxMin().evaluate(Viewer(profiles()).view(
        [traffic(0.1), traffic(0.1), traffic(0.1), traffic(3.0)])).allocation
    assert table.share(3) == pytest.approx(0.7, abs=0.02)
    assert table.share(0) == pytest.approx(0.1, abs=0.01)


def test_dominant_fill_equalises_dominant_shares_over_resources() -> None:
    # The example of the paper: 9 CPUs, 18 GB; tasks <1, 4> and <3, 1>: 3 and 2 tasks.
    granted = dominant_fill([(100 / 9, 400 / 18), (300 / 9, 100 / 18)], [1, 1])
    assert granted == pytest.approx([0.03, 0.02], rel=1e-6)


def test_dominant_fill_follows_priorities() -> None:
    granted = dominant_fill([(2.0,), (2.0,)], [3, 1])
    assert granted == pytest.approx([0.375, 0.125])


def test_dominant_fill_with_room_grants_everything() -> None:
    assert dominant_fill([(0.2, 0.1), (0.3, 0.9), (0.0, 0.0)], [1, 1, 1]) == pytest.approx([1, 1, 0])


def test_serve_is_work_conserving() -> None:
    assert serve([10, 50, 100], [1, 1, 1], 100) == pytest.approx([10, 45, 45])
    assert sum(serve([10, 20], [1, 9], 100)) == 30


@pytest.mark.parametrize("seed", range(8))
def test_guarantees_and_rules_always_hold(seed: int) -> None:
    rng = random.Random(seed)
    limits = Limits(tenants=16, ports=4, slots=2, pages=64)
    who = tuple(
        replace(p, guarantee=Guarantee(rng.randrange(0, 4000), rng.choice([0, 0, 1, 3])),
                priority=rng.choice([0.5, 1, 4]), admitted=rng.random() > 0.1)
        for p in profiles({t: SLO for t in range(16) if rng.random() < 0.4}, limits=limits))
    who = tuple(p if p.admitted else replace(p, guarantee=Guarantee()) for p in who)
    policies = every_policy()
    viewer = Viewer(who, limits)
    for _ in range(12):
        rows = [
            traffic(rng.choice([0, 0, 0.02, 0.3, 1.5]), slo_misses=rng.randrange(50),
                    engine_cycles=rng.randrange(2 * CYCLES), queue_depth_max=rng.randrange(200),
                    backpressure_cycles=rng.randrange(CYCLES + 1))
            for _ in range(16)]
        view = viewer.view(rows)
        proposals = [policy.evaluate(view) for policy in policies]
        for proposal in proposals:
            check(proposal.allocation, limits, view.guarantees)
            assert all((r.weight > 0) == p.admitted for r, p in zip(proposal.allocation.rows, who, strict=True))
        viewer.allocation = rng.choice(proposals).allocation


@pytest.mark.parametrize("index", range(5))
def test_stable_input_settles_on_one_table(index: int) -> None:
    policy, viewer = every_policy()[index], Viewer(profiles({1: SLO}))
    rows = [row(), traffic(0.1), traffic(0.6, engine_cycles=CYCLES), traffic(0.2)]
    tables = []
    for _ in range(80):
        viewer.allocation = policy.evaluate(viewer.view(rows)).allocation
        tables.append(viewer.allocation)
    assert all(t.same_table(tables[-1]) for t in tables[-30:])


@pytest.mark.parametrize("index", range(5))
def test_same_windows_give_same_proposals(index: int) -> None:
    def run() -> list[Proposal]:
        policy, viewer = every_policy()[index], Viewer(profiles({1: SLO}))
        rng = random.Random(5)
        return [policy.evaluate(viewer.view([traffic(rng.random()) for _ in range(4)])) for _ in range(10)]
    assert run() == run()


def test_static_is_equal_whatever_the_load() -> None:
    table = Static().evaluate(Viewer(profiles({1: SLO})).view([starved()] * 4)).allocation
    assert {r.weight for r in table.rows} == {LIMITS.weight_capacity // 4}
    assert sum(r.pages for r in table.rows) == 0


def test_static_partition_divides_pages_but_leaves_room_for_the_largest_packet() -> None:
    table = Static(partition=True).evaluate(Viewer(profiles()).view([row()] * 4)).allocation
    assert [r.pages for r in table.rows] == [12] * 4


# --- host share -------------------------------------------------------------------------------------------------


def engines(busy: float, host_cpu: int = 0) -> list[object]:
    """Batch tenants 2 and 3 and latency tenant 1 keep the engines busy to `busy`."""
    each = int(busy * CYCLES * LIMITS.slots / 3)
    return [row(), *(traffic(0.2, engine_cycles=each, flags=host_cpu << 8) for _ in range(3))]


def settle(shift: HostShift, demand: float, viewer: Viewer, steps: int) -> list[list[int]]:
    """Shares over windows in which the engines see what the host does not take."""
    history = []
    for _ in range(steps):
        rows = [
            r if t == 0 else replace(r, engine_cycles=min(
                int(r.engine_cycles * (256 - viewer.allocation.rows[t].host_share) / 256),
                int(CYCLES * LIMITS.slots / 3)))
            for t, r in enumerate(engines(demand))]
        shares = shift.shares(viewer.view(rows))
        viewer.allocation = viewer.allocation.with_rows({
            t: replace(r, host_share=s) for t, (r, s) in enumerate(
                zip(viewer.allocation.rows, shares, strict=True))})
        history.append(shares)
    return history


def test_saturated_engines_move_batch_work_to_the_host() -> None:
    shares = HostShift().shares(Viewer(profiles({1: SLO}, max_host_share=128)).view(engines(1.0)))
    assert shares[0] >= 0
    assert shares[1] == 0  # the latency class stays on the engines
    assert shares[2] == shares[3] > 0


def test_work_comes_back_when_engines_have_room() -> None:
    viewer = Viewer(profiles({1: SLO}, max_host_share=128))
    up = settle(HostShift(), 1.0, viewer, 5)
    assert up[-1][2] > 0
    down = settle(HostShift(), 0.4, viewer, 20)
    assert down[-1] == [0, 0, 0, 0]


def test_host_share_settles_under_constant_demand() -> None:
    viewer = Viewer(profiles({1: SLO}, max_host_share=256))
    history = settle(HostShift(), 1.0, viewer, 40)
    assert all(shares == history[-1] for shares in history[-20:])


def test_pressed_host_gets_no_work() -> None:
    view = Viewer(profiles({1: SLO})).view(engines(1.0, host_cpu=250))
    assert HostShift().shares(view) == [0, 0, 0, 0]


# --- chooser ----------------------------------------------------------------------------------------------------


class Fixed:
    """A policy with a given score."""

    def __init__(self, name: str, scores: list[float]) -> None:
        self.name, self._scores = name, iter(scores)

    def evaluate(self, view: WindowView) -> Proposal:
        return Proposal(view.allocation, f"as {self.name} says", next(self._scores), self.name)


def test_best_of_takes_the_best_score_and_says_so() -> None:
    chosen = BestOf([Fixed("a", [0.1]), Fixed("b", [0.9])]).evaluate(Viewer(profiles()).view([row()] * 4))
    assert chosen.policy == "b"
    assert "a 0.100, b 0.900" in chosen.reason


def test_best_of_does_not_alternate_between_equals() -> None:
    policy = BestOf([Fixed("a", [0.50, 0.49, 0.50, 0.40]), Fixed("b", [0.50, 0.50, 0.49, 0.50])], margin=0.05)
    viewer = Viewer(profiles())
    assert [policy.evaluate(viewer.view([row()] * 4)).policy for _ in range(4)] == ["a", "a", "a", "b"]


def test_score_prefers_headroom_for_latency_and_service_for_batch() -> None:
    who = profiles({1: SLO})
    view = Viewer(who).view([row(), traffic(0.3, burst=CAPACITY // 16 // 64), traffic(0.9), traffic(0.9)])
    table = equal_table(who)
    boosted = table.with_rows({1: replace(table.rows[1], weight=40000)})
    assert score(view, boosted) > score(view, table)
    calm = Viewer(who).view([row(), traffic(0.01), traffic(0.9), traffic(0.9)])  # headroom is 1 in both tables
    starving = table.with_rows({t: replace(table.rows[t], weight=0) for t in (2, 3)})
    assert score(calm, starving) < score(calm, table)


@pytest.mark.parametrize("seed", range(4))
def test_rate_of_a_tenant_that_takes_all_it_gets_is_that_of_max_min(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        count = rng.randint(1, 8)
        demands = [rng.choice([0.0, rng.random() * 2]) for _ in range(count)]
        weights = [rng.choice([0.0, 1.0, rng.random() * 50]) for _ in range(count)]
        tenant = rng.randrange(count)
        greedy = [9.0 if t == tenant else demand for t, demand in enumerate(demands)]
        assert rate_beside(tenant, demands, weights, 1.0) == pytest.approx(serve(greedy, weights, 1.0)[tenant])


def test_score_meets_a_burst_with_the_forecast_of_others_not_with_their_bursts() -> None:
    who = profiles({1: SLO, 2: SLO})
    spread = traffic(0.05, burst=CAPACITY // 2 // 16 // 64)
    view = Viewer(who).view([row(), spread, spread, traffic(0.9)])
    equal = equal_table(who)
    weights = {1: 8000, 2: 56000, 3: 1000}
    uneven = equal.with_rows({t: replace(equal.rows[t], weight=weight) for t, weight in weights.items()})
    assert score(view, uneven) > score(view, equal)


def test_score_counts_what_engines_can_serve() -> None:
    who = profiles({1: SLO})
    rows = [row(), traffic(0.05, burst=CAPACITY // 3 // 16 // 64), traffic(0.3), traffic(0.3)]
    # The same bytes, but the two slots were busy all the time: two thirds of the port is all that there is.
    engines = [replace(one, engine_cycles=2 * CYCLES * one.bytes_in // sum(r.bytes_in for r in rows)) for one in rows]
    table = equal_table(who)
    boosted = table.with_rows({1: replace(table.rows[1], weight=60000)})
    free, bound = Viewer(who).view(rows), Viewer(who).view(engines)
    assert score(free, table) > score(free, boosted)  # nobody needs a boost: it only moves weights
    assert score(bound, boosted) > score(bound, table)


def test_shipped_default_favours_latency_class_at_once() -> None:
    policy = PolicyFile.default().make_policy()
    proposal = policy.evaluate(Viewer(profiles({1: SLO})).view([row(), traffic(0.2), traffic(0.7), traffic(0.7)]))
    assert proposal.allocation.share(1) > 0.5
