"""The closed loop on a modelled device: baseline, commit, measurement, rollback, hysteresis, charges, reload."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from device_link import Transport, WindowRow
from device_link.linked import SessionTransport
from device_link.pcie.transport import BarTransport
from morphnic.errors import AllocationRefused, LinkError
from offload_manager.allocation import reset_allocation
from offload_manager.api import HostPressure, LoopState, Outcome, TenantClass
from offload_manager.driver import AllocationDriver, Phase
from offload_manager.loop import ControlLoop, LoopSettings, StepResult, change_size
from offload_manager.policy import Proposal, WindowView
from offload_manager.policy_file import PolicyFile, PolicySource
from offload_manager.policy_spec import TenantSpec
from offload_manager.store import MemoryStore, Store
from offload_manager.timing import DecisionLatency
from tests.gateware.manager.model import ResourceManagerModel
from tests.offload_manager.modelled import ModelTransport, modelled_device, quiet, transport_of
from tests.offload_manager.views import CYCLES, LIMITS, row, traffic

SLO_US = 10.0  # 1,000 cycles


def policy(**loop: object) -> PolicyFile:
    """The shipped default, with tenant 1 in the latency class and some loop parameters changed."""
    default = PolicyFile.default()
    spec = default.spec.model_copy(update={"loop": default.spec.loop.model_copy(update=loop)})
    return replace(default, spec=spec).with_tenants({
        1: TenantSpec.model_validate({"class": "latency", "slo_us": SLO_US})})


def busy(number: int, model: ResourceManagerModel) -> Sequence[WindowRow]:
    """A small latency tenant beside two heavy batch tenants."""
    return [row(), traffic(0.1), traffic(0.4), traffic(0.4)]


def make(workload: Callable[[int, ResourceManagerModel], Sequence[WindowRow]] = busy, *,
         latency: str = "0", store: Store | None = None, source: PolicySource | None = None,
         **loop: object) -> ControlLoop:
    """A started loop over a new modelled device."""
    control = ControlLoop(
        modelled_device(workload), source or PolicySource(LIMITS, policy=policy(**loop)), store or MemoryStore(),
        LoopSettings(decision_latency=DecisionLatency.parse(latency), token=7))
    control.start()
    return control


def steps(control: ControlLoop, count: int) -> list[StepResult]:
    """That many windows."""
    results = [control.step() for _ in range(count)]
    assert all(results)
    return [result for result in results if result is not None]


def outcomes(control: ControlLoop) -> list[tuple[str, Outcome]]:
    """Source and outcome of every decision, oldest first."""
    return [(r.decision.source, r.decision.outcome) for r in reversed(control.store.records())]


def test_start_installs_configured_table_on_a_device_after_reset() -> None:
    control = make()
    table = control.driver.read_active()
    assert {r.weight for r in table.rows} == {LIMITS.weight_capacity // 4}
    assert outcomes(control) == [("baseline", Outcome.CONFIRMED)]
    assert control.driver.state().active_tag == control.tag == 1
    assert control.driver.read_guarantees()[0].weight == 66
    assert int(control.device.objective[1].slo.read()) == 1000


def test_baseline_comes_before_any_change() -> None:
    control = make(baseline_windows=3)
    results = steps(control, 3)
    assert [r.state for r in results] == [LoopState.BASELINE, LoopState.BASELINE, LoopState.RUNNING]
    baseline = control.store.baseline()
    assert baseline is not None
    assert baseline.windows == 3
    assert baseline.tenants[2].bytes_per_window == pytest.approx(0.4 * CYCLES * 8, rel=0.01)
    assert control.commits == 1


def test_loop_commits_measures_and_confirms() -> None:
    control = make()
    steps(control, 12)
    assert outcomes(control)[1] == ("loop", Outcome.CONFIRMED)
    active = control.driver.read_active()
    assert active.share(1) > 0.5
    assert control.driver.state().phase is Phase.IDLE
    record = control.store.record(control.driver.state().active_tag)
    assert record is not None
    assert record.after.same_table(active)
    assert "objectives held" in record.decision.reason


def test_stable_load_leads_to_one_commit_only() -> None:
    control = make()
    steps(control, 60)
    assert outcomes(control) == [("baseline", Outcome.CONFIRMED), ("loop", Outcome.CONFIRMED)]


def test_table_is_rolled_back_when_it_makes_latency_worse() -> None:
    def workload(number: int, model: ResourceManagerModel) -> Sequence[WindowRow]:
        # Tenant 1 misses whenever it has less than the share that the configured table gave it.
        total = sum(r["weight"] for r in model.active_table)
        starved = model.active_table[1]["weight"] < total // 5
        packets = traffic(0.1).packets_out
        return [row(), traffic(0.1, slo_misses=packets // 2 if starved else 0), traffic(0.8), traffic(0.8)]

    from offload_manager.policy_spec import MaxMinSpec
    control = make(workload, source=PolicySource(LIMITS, policy=policy().with_policy(MaxMinSpec(kind="maxmin"))))
    before = control.driver.read_active()
    steps(control, 12)
    decision = control.store.records()[0].decision
    assert decision.outcome is Outcome.ROLLED_BACK
    assert "misses of the latency class rose from 0.0% to 50.0%" in decision.detail
    assert control.driver.read_active().same_table(before)
    assert control.rollbacks == 1


def test_table_is_rolled_back_when_batch_loses_and_nobody_gains() -> None:
    def workload(number: int, model: ResourceManagerModel) -> Sequence[WindowRow]:
        if model.active_table[1]["weight"] > 30000:
            return [row(), traffic(0.1), *[traffic(0.2, backpressure_cycles=CYCLES // 2)] * 2]
        return busy(number, model)

    control = make(workload)
    steps(control, 12)
    assert outcomes(control)[1] == ("loop", Outcome.ROLLED_BACK)
    assert "the batch class fell" in control.store.records()[0].decision.detail


def test_table_that_was_rolled_back_is_not_tried_again_for_a_while() -> None:
    def workload(number: int, model: ResourceManagerModel) -> Sequence[WindowRow]:
        if model.active_table[1]["weight"] > 30000:
            return [row(), traffic(0.1), *[traffic(0.2, backpressure_cycles=CYCLES // 2)] * 2]
        return busy(number, model)

    control = make(workload)
    retry = control.spec.guard.retry_windows
    steps(control, retry // 2)
    assert control.rollbacks == 1
    steps(control, retry)
    assert control.rollbacks == 2


def test_growing_load_is_no_reason_to_roll_back() -> None:
    def workload(number: int, model: ResourceManagerModel) -> Sequence[WindowRow]:
        grown = model.active_table[1]["weight"] > 30000
        return [row(), traffic(0.9 if grown else 0.1),
                *[traffic(0.2 if grown else 0.4, backpressure_cycles=CYCLES // 2 if grown else 0)] * 2]

    control = make(workload)
    steps(control, 12)
    assert control.rollbacks == 0


def test_starved_latency_tenant_gets_more_by_further_commits() -> None:
    def workload(number: int, model: ResourceManagerModel) -> Sequence[WindowRow]:
        missing = number > 10
        packets = traffic(0.1).packets_out
        return [row(), traffic(0.1, slo_misses=packets if missing else 0), traffic(0.4), traffic(0.4)]

    control = make(workload)
    steps(control, 10)
    before = control.active.rows[2].weight
    steps(control, 30)
    # What the others have together goes down to the part that the batch class keeps (here 5 %).
    assert control.active.rows[2].weight < 0.75 * before


@pytest.mark.parametrize(("text", "charge"), [("0", 0), ("50us", 5_000), ("500us", 50_000), ("5ms", 500_000)])
def test_commit_is_charged_its_decision_latency(text: str, charge: int) -> None:
    control = make(latency=text)
    transport = transport_of(control.device)
    decision = next(r.decision for r in (control.step() for _ in range(10)) if r and r.decision)
    timing = decision.timing
    assert timing.charged_cycles == charge
    assert timing.commit_cycle is not None
    # The window's push takes up to one step of slack; the transaction itself takes no time in the model.
    assert charge <= timing.commit_cycle - timing.window_cycle <= charge + 1024
    assert charge == 0 or charge in transport.granted


def test_measured_latency_is_charged_in_cycles_of_the_device() -> None:
    control = make(latency="measured")
    decision = next(r.decision for r in (control.step() for _ in range(10)) if r and r.decision)
    assert decision.timing.charged_cycles >= decision.timing.decide_ns * LIMITS.clock_hz // 1_000_000_000 > 0


def test_windows_that_end_during_a_slow_decision_are_observed_but_not_decided_upon() -> None:
    control = make(latency="5ms")
    results = steps(control, 30)
    numbers = [r.window.number for r in results]
    assert numbers == list(range(30))
    assert outcomes(control)[1] == ("loop", Outcome.CONFIRMED)


def test_windows_from_before_the_commit_do_not_count_against_the_table() -> None:
    seen: list[int] = []

    def workload(number: int, model: ResourceManagerModel) -> Sequence[WindowRow]:
        # While the decision is being made the batch class is starved for a while; under the new table it is not.
        if model.state == 2:
            seen.append(number)
            return [row(), traffic(0.1), *[traffic(0.05, backpressure_cycles=CYCLES // 2)] * 2]
        return busy(number, model)

    control = make(workload, latency="5ms")
    steps(control, 30)
    assert len(seen) >= 4
    assert control.rollbacks == 0


def test_device_never_runs_far_past_the_window_that_is_waited_for() -> None:
    control = make()
    steps(control, 1)  # where the first window ends is not known before
    for result in (control.step() for _ in range(5)):
        assert result is not None
        past = transport_of(control.device).model.cycle - result.window.start - CYCLES
        assert 0 <= past <= control.time.SLACK


def test_same_windows_give_same_decisions() -> None:
    def run() -> list[tuple[int, str, list[list[int]]]]:
        control = make(latency="50us")
        steps(control, 25)
        return [(r.decision.timing.commit_cycle or 0, r.decision.reason, r.after.to_lists())
                for r in control.store.records()]
    assert run() == run()


def test_paused_loop_observes_and_changes_nothing() -> None:
    control = make()
    control.paused = True
    results = steps(control, 10)
    assert results[-1].state is LoopState.PAUSED
    assert control.commits == 1
    control.paused = False
    steps(control, 3)
    assert control.commits == 2


class Alternating:
    """A policy that wants another table in every window."""

    name = "alternating"

    def evaluate(self, view: WindowView) -> Proposal:
        first, second = (3000, 28000) if view.window.number % 2 else (28000, 3000)
        rows = {t: replace(view.allocation.rows[t], weight=w) for t, w in ((2, first), (3, second))}
        return Proposal(view.allocation.with_rows(rows), "for the sake of change", 1.0, self.name)


@pytest.mark.parametrize("interval", [0, 3, 5])
def test_minimal_interval_between_a_settled_table_and_the_next(interval: int) -> None:
    control = make(min_interval_windows=interval, measure_windows=1)
    control._policy = Alternating()
    steps(control, 40)
    commits = sorted(r.decision.timing.commit_cycle or 0 for r in control.store.records()
                     if r.decision.source == "loop")
    assert len(commits) > 2
    # One window is measured, then the interval; the commit comes at the end of a window.
    assert min(b - a for a, b in itertools.pairwise(commits)) >= (1 + interval) * CYCLES


def test_late_manager_finds_its_table_rolled_back_by_the_device() -> None:
    control = make()
    while not control.awaiting:
        control.step()
    transport_of(control.device).model.tick(control.device.rm.confirm_left.read().cycles + 1)
    steps(control, 4)
    decision = control.store.records()[0].decision
    assert decision.outcome is Outcome.ROLLED_BACK
    assert "deadline" in decision.detail
    assert control.active.same_table(control.driver.read_active())


def test_deposed_loop_stops_with_the_remedy() -> None:
    control = make()
    AllocationDriver(control.device, token=8).claim()
    with pytest.raises(AllocationRefused, match="another manager owns the device"):
        steps(control, 10)
    assert outcomes(control)[-1] == ("loop", Outcome.REFUSED)


def test_refusal_of_the_device_is_recorded_and_not_repeated_at_once() -> None:
    control = make()
    steps(control, 2)
    # Another process raised a guarantee behind the manager's back.
    transport_of(control.device).model.guarantees[3] = (30000, 0)
    steps(control, 10)
    assert outcomes(control)[1:] == [("loop", Outcome.REFUSED)]
    assert "below guarantee: tenant 3" in control.store.records()[0].decision.detail
    assert control.refusals == 1


def test_commit_that_finds_old_packets_is_tried_again_later() -> None:
    control = make()
    steps(control, 2)
    model = transport_of(control.device).model
    model.in_flight[(model.epoch - 1) % 256] = 4
    steps(control, 3)
    assert set(outcomes(control)[1:]) == {("loop", Outcome.REFUSED)}
    model.in_flight.clear()
    steps(control, 8)
    assert outcomes(control)[-1] == ("loop", Outcome.CONFIRMED)


def test_first_window_may_be_much_longer_than_the_new_length() -> None:
    control = ControlLoop(modelled_device(busy), PolicySource(LIMITS, policy=policy()), MemoryStore(),
                          LoopSettings(window_cycles=2048, token=7))
    control.start()
    assert [r.window.cycles for r in steps(control, 3)] == [100_000, 2048, 2048]


def test_manager_started_again_within_a_long_window_waits_for_its_end() -> None:
    transport = ModelTransport(busy)
    for token in (7, 8):  # the first has set its length, and ends before any window has
        control = ControlLoop(modelled_device(transport=transport), PolicySource(LIMITS, policy=policy()),
                              MemoryStore(), LoopSettings(window_cycles=2048, token=token))
        control.start()
    assert [r.window.cycles for r in steps(control, 2)] == [100_000, 2048]


@pytest.mark.parametrize(("link", "expected"), [(SessionTransport, 1), (BarTransport, 0)])
def test_only_what_brings_windows_to_this_link_is_switched_on(link: type[Transport], expected: int) -> None:
    """Over PCIe nothing is pushed, and a serial line is somebody else's."""
    transport = ModelTransport(busy)
    transport.window_switches = link.window_switches
    ControlLoop(modelled_device(transport=transport), PolicySource(LIMITS, policy=policy()), MemoryStore(),
                LoopSettings(window_cycles=2048, token=7)).start()
    written = {name: transport.memory.get(transport.map.register(name).address, 0)
               for name in ("analyzer.control", "link.control")}
    assert written == dict.fromkeys(written, expected)
    assert transport.memory[transport.map.register("analyzer.window").address] == 2048


def test_no_window_in_granted_time_is_an_error() -> None:
    control = make()
    transport = transport_of(control.device)
    transport._windows = lambda timeout: []  # type: ignore[method-assign]
    with pytest.raises(LinkError, match="no window came"):
        control.step()


def test_window_numbers_are_the_correlation_of_logs(caplog: pytest.LogCaptureFixture) -> None:
    from morphnic.log import current_window
    control = make()
    seen: list[int | None] = []
    original = control._policy.evaluate
    control._policy.evaluate = lambda view: (seen.append(current_window()), original(view))[1]  # type: ignore[method-assign]
    steps(control, 3)
    assert seen == [0, 1, 2]


def test_changed_policy_file_is_adopted_while_running(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(PolicyFile.default().text)
    source = PolicySource(LIMITS, path)
    control = make(source=source)
    steps(control, 4)
    path.write_text(PolicyFile.default().text + "  1: {class: latency, slo_us: 20}\n")
    steps(control, 1)
    assert source.generation == 2
    assert control.profiles[1].tenant_class is TenantClass.LATENCY
    assert int(control.device.objective[1].slo.read()) == 2000


def test_broken_policy_file_keeps_the_last_good_one(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(PolicyFile.default().text)
    source = PolicySource(LIMITS, path)
    control = make(source=source)
    good = source.current
    for broken in ("policy: [", PolicyFile.default().text.replace("hysteresis: 0.25", "hysteresis: 7"), "\0"):
        path.write_text(broken)
        steps(control, 2)
        assert source.current is good
        assert source.error is not None
        assert "last good policy stays" in source.error
    path.unlink()
    steps(control, 1)
    assert source.current is good
    path.write_text(PolicyFile.default().text.replace("name: default", "name: better"))
    steps(control, 1)
    assert source.current.spec.name == "better"
    assert source.error is None


def test_host_figures_reach_the_device() -> None:
    control = make()
    control.set_host_figures({2: HostPressure(tenant=2, cpu_pressure=1.0, memory_pressure=0.5)})
    value = control.device.objective[2].host.read()
    assert (value.cpu, value.memory) == (255, 128)


def test_quiet_device_is_left_alone_after_the_first_table() -> None:
    control = make(quiet)
    steps(control, 30)
    assert control.commits <= 2


def test_change_size_sees_each_kind_of_change() -> None:
    control = make(quiet)
    table = control.active
    first = table.rows[1]
    assert change_size(table, table, 64) == 0
    assert change_size(table, table.with_rows({1: replace(first, weight=first.weight // 2)}), 64) > 0.4
    assert change_size(table, table.with_rows({1: replace(first, pages=first.pages + 16)}), 64) == 0.5
    held = table.with_rows({1: replace(first, pages=8)})
    assert change_size(held, held.with_rows({1: replace(first, pages=24)}), 64) == 0.125
    assert change_size(table, table.with_rows({1: replace(first, host_share=128)}), 64) == 0.5
    assert change_size(table, table.with_rows({1: replace(first, ports=1)}), 64) == 1
    assert change_size(table, reset_allocation(LIMITS), 64) == 1
