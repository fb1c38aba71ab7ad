"""The control loop, in device time: a window in, a table out, its effect measured, kept or rolled back.

    loop = ControlLoop(device, PolicySource(limits), store, LoopSettings())
    loop.start()
    while True:
        result = loop.step()

Each `step` takes one window: analysis and forecast; every policy evaluated; then, by state, the baseline goes on,
a committed table is measured (and confirmed or rolled back), or a proposal that is worth it goes through the
transaction. Nothing here reads a wall clock except the figures of how long a decision took (and the charge for it,
where it is `measured`), so the same windows give the same decisions. One thread uses it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from device_link import Device
from morphnic import log as logs
from morphnic.errors import AllocationRefused
from offload_manager import adjust
from offload_manager.adjust import Adjustment
from offload_manager.allocation import CREDIT_PAGES, FULL_HOST_SHARE, Allocation, diff, reset_allocation
from offload_manager.analysis import analyse
from offload_manager.api import Decision, HostPressure, LoopState, Outcome
from offload_manager.baseline import summarise
from offload_manager.driver import AllocationDriver, Commit
from offload_manager.fault import fault_point
from offload_manager.forecast import DemandForecast
from offload_manager.guard import accused_tenants, measure, verdict
from offload_manager.policy import Proposal, WindowView
from offload_manager.policy_file import PolicySource
from offload_manager.profile import Profile, build_table
from offload_manager.reconcile import Reconciled, reconcile, record_rules
from offload_manager.reflex import rules_of
from offload_manager.report import row_changes
from offload_manager.store import Record, Store
from offload_manager.timing import DecisionLatency, DeviceTime
from offload_manager.window import Window, window_end

log = logging.getLogger(__name__)

#: Shares under this part of an equal share are noise: their relative change does not count.
NOTABLE = 1 / 32
#: What it counts for that a tenant gets, or loses, the pages that let its packet in without waiting.
UNIT_CHANGE = 0.5
HISTORY = 16


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What the operator of a manager (not the policy) sets.

    window_cycles: length of a window. drain_cycles: how long a commit waits for packets of old epochs.
    packet_pages: pages of the largest packet that tenants send.
    """

    decision_latency: DecisionLatency = field(default_factory=lambda: DecisionLatency(None))
    window_cycles: int = 100_000
    drain_cycles: int = 100_000
    packet_pages: int = 16
    token: int = 1


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one window led to. `decision` is set when a decision was made or ended in this step."""

    window: Window
    view: WindowView
    proposal: Proposal
    state: LoopState
    decision: Decision | None = None


@dataclass(slots=True)
class _Trial:
    """A committed table whose effect is being measured."""

    record: Record
    commit: Commit
    before: tuple[Window, ...]
    after: list[Window] = field(default_factory=list)


def change_size(before: Allocation, after: Allocation, pages: int) -> float:
    """How much a table differs, 0..1: the largest of what it does to any tenant.

    Relative change of a share (tenants with next to nothing in both tables do not count), part of the pages moved,
    part of the processing moved; ports, slots, rates and bursts count in full.
    """
    size = 0.0
    floor = NOTABLE / len(before.rows)
    for a, b, old, new in zip(before.shares(), after.shares(), before.rows, after.rows, strict=True):
        if max(a, b) >= floor:
            size = max(size, abs(a - b) / max(a, b))
        size = max(size, abs(old.host_share - new.host_share) / FULL_HOST_SHARE)
        if (old.pages < CREDIT_PAGES) != (new.pages < CREDIT_PAGES):
            size = max(size, UNIT_CHANGE)
        if (old.ports, old.slots, old.rate, old.burst) != (new.ports, new.slots, new.rate, new.burst):
            return 1.0
        if (old.weight == 0) != (new.weight == 0):
            return 1.0
    moved = sum(abs(old.pages - new.pages) for old, new in zip(before.rows, after.rows, strict=True)) / 2
    return max(size, moved / pages)


class ControlLoop:
    """The loop over one device, usable without the web service."""

    def __init__(self, device: Device, policy: PolicySource, store: Store, settings: LoopSettings) -> None:
        self.device, self.source, self.store, self.settings = device, policy, store, settings
        self.driver = AllocationDriver(device, settings.token, packet_pages=settings.packet_pages)
        self.limits = self.driver.limits
        self.time = DeviceTime(device, settings.window_cycles)
        self.paused = False
        self.active = reset_allocation(self.limits)
        self.tag = 0
        self.commits = self.rollbacks = self.refusals = 0
        self.latest: WindowView | None = None
        self.adjustments: dict[int, Adjustment] = {}
        self.profiles: tuple[Profile, ...] = policy.profiles
        self._host: dict[int, HostPressure] = {}
        self._host_baseline: list[HostPressure] = []
        self._baseline: list[Window] | None = []
        self._history: deque[Window] = deque(maxlen=HISTORY)
        self._trial: _Trial | None = None
        self._settled_at = -(1 << 62)
        self._refused_tables: deque[tuple[int, Allocation]] = deque(maxlen=8)
        self._adopt_policy()

    # --- start ---

    def start(self) -> Reconciled:
        """Agree with device and store, install the configured table on a device that has none, begin the baseline."""
        found = reconcile(self.driver, self.store)
        self.active, self.tag = found.active, found.tag
        self.adjustments = adjust.load(self.store.setting("adjustments"))
        self._apply_profiles()
        if not found.known:
            self._install_initial()
        self.time.start()
        return found

    def _install_initial(self) -> None:
        """Shares as configured: until then only tenant 0 could use a device after its reset."""
        if self.tag == 0 and self.active.same_table(reset_allocation(self.limits)):
            reason = "the device was reset: shares as configured, until the loop knows better"
        else:
            reason = "the table in force is not of this store: shares as configured"
        table = build_table(
            self.profiles, self.limits, [p.priority for p in self.profiles], [0.0] * len(self.profiles),
            pool=self.limits.packet_pages, epoch=self.active.epoch)
        self.change_now(table, source="baseline", reason=reason, window=0)

    def _adopt_policy(self) -> None:
        """Make the policy in force anew; it starts without memory."""
        self._generation = self.source.generation
        self._policy = self.source.current.make_policy()
        self.spec = self.source.current.spec.loop
        self._forecast = DemandForecast(self.limits.tenants, self.spec.level_gain, self.spec.slope_gain)
        self._previous: Window | None = None

    def _apply_profiles(self) -> None:
        """Profiles to the device: guarantees that it checks, objectives that it counts misses of."""
        self.driver.require_ownership()
        self.profiles = adjust.apply(self.source.profiles, self.adjustments)
        self.driver.write_guarantees([profile.guarantee for profile in self.profiles])
        self.device.write(
            (self.device.objective[t].slo, profile.slo_cycles) for t, profile in enumerate(self.profiles))

    def reload_policy(self) -> None:
        """Adopt a changed policy file or text; the loop goes on with the table in force."""
        self.source.reload_if_changed()
        if self.source.generation != self._generation:
            self._adopt_policy()
            self._apply_profiles()
            log.info("policy %s in force, generation %d", self.source.current.spec.name, self._generation)

    # --- state ---

    @property
    def state(self) -> LoopState:
        """What the loop does."""
        if self.paused:
            return LoopState.PAUSED
        return LoopState.BASELINE if self._baseline is not None else LoopState.RUNNING

    @property
    def awaiting(self) -> bool:
        """Whether a committed table is being measured."""
        return self._trial is not None

    def set_host_figures(self, figures: Mapping[int, HostPressure]) -> None:
        """Write each tenant's pressures to the device, beside what it measures itself."""
        self.device.write(
            (self.device.objective[t].host, {"cpu": round(p.cpu_pressure * 255),
                                             "memory": round(p.memory_pressure * 255)})
            for t, p in figures.items())
        self._host.update(figures)

    def set_host_baseline(self, figures: list[HostPressure]) -> None:
        """Add what the host did at start to the baseline of the device, whichever comes first."""
        self._host_baseline = figures
        found = self.store.baseline()
        if found is not None and self._baseline is None:
            self.store.put_baseline(found.model_copy(update={"host": figures}))

    def host_figures(self) -> dict[int, HostPressure]:
        """The newest figures of the host agent, by tenant."""
        return dict(self._host)

    # --- one window ---

    def step(self, timeout: float = 1.0) -> StepResult | None:
        """Take the next window through the loop; None when none came in time."""
        window = self.time.next(timeout)
        if window is None:
            return None
        received = time.perf_counter_ns()
        with logs.window(window.number):
            self.reload_policy()
            view = self._observe(window)
            proposal = self._policy.evaluate(view)
            decision = None
            if self._baseline is not None:
                self._collect_baseline(window)
            elif self._trial is not None:
                decision = self._measure(window)
            elif not self.paused and not self.time.waiting:
                decision = self._consider(view, proposal, received)
            self._history.append(window)
            return StepResult(window, view, proposal, self.state, decision)

    def _observe(self, window: Window) -> WindowView:
        """Analysis and forecast; the table is read again when it changed without this loop."""
        if window.start >= self._settled_at and window.epoch != self.active.epoch and self._trial is None:
            self._follow_change(window)
        analysis = analyse(window, self._previous, self.active, self.profiles, self.limits)
        self._forecast.update(analysis.demands)
        self._previous = window
        self.latest = WindowView(window, self.active, self.limits, self.profiles, analysis, self._forecast.ahead())
        return self.latest

    def _follow_change(self, window: Window) -> None:
        """The table changed without this loop: by the device's own rules, which is recorded, or by somebody else."""
        before = self.active
        self._read_active()
        rules = rules_of(self.tag)
        if not rules:
            log.warning("the table changed to epoch %d without this manager: read again", window.epoch)
            return
        decision = record_rules(self.driver, self.store, rules, before, self.active, window.number)
        self._settled_at = window_end(window)
        log.info("rules changed the table to epoch %d: %s", self.active.epoch, decision.reason)

    def _read_active(self) -> None:
        self.active, self.tag = self.driver.read_active(), self.driver.state().active_tag

    def _collect_baseline(self, window: Window) -> None:
        """Means over the first windows under the table that the manager found or installed."""
        assert self._baseline is not None
        if window.start < self._settled_at:
            return
        self._baseline.append(window)
        if len(self._baseline) < self.spec.baseline_windows:
            return
        found = summarise(self._baseline, self.settings.window_cycles, self._host_baseline)
        self._baseline = None
        self.store.put_baseline(found)
        log.info("baseline established over %d windows", found.windows)

    # --- decide ---

    def _consider(self, view: WindowView, proposal: Proposal, received: int) -> Decision | None:
        """Commit the proposal if it is worth it and the time has come."""
        window = view.window
        interval = self.spec.min_interval_windows * self.settings.window_cycles
        size = change_size(self.active, proposal.allocation, self.limits.pages)
        if size < self.spec.hysteresis or window_end(window) < self._settled_at + interval:
            return None
        horizon = window.number - self.spec.guard.retry_windows
        for number, table in self._refused_tables:
            if number > horizon and change_size(table, proposal.allocation, self.limits.pages) < self.spec.hysteresis:
                return None
        return self._transact(view, proposal, received)

    def _transact(self, view: WindowView, proposal: Proposal, received: int) -> Decision:
        """Write the intent, stage and check, charge the decision, commit, begin to measure."""
        target = Allocation(proposal.allocation.rows, self.active.epoch)
        decided = time.perf_counter_ns()
        record = self._intend(target, view.window, "loop", proposal.policy, proposal.score, proposal.reason)
        # The charge ends here: where time is granted, the register accesses that follow take device time of their own.
        intended = time.perf_counter_ns()
        tag = record.decision.tag
        timing = record.decision.timing.model_copy(update={"decide_ns": decided - received})
        try:
            self.driver.prepare(target, self.active, tag, [p.guarantee for p in self.profiles])
            prepared = time.perf_counter_ns()
            charge = self.settings.decision_latency.cycles(self.limits.clock_hz, intended - received)
            timing.charged_cycles = self.time.charge(charge)
            charged = time.perf_counter_ns()  # how long a simulation took for the charge is nobody's decision time
            commit = self.driver.commit(self._confirm_within(), self.settings.drain_cycles)
        except AllocationRefused as refusal:
            decision = self._refused(tag, target, view.window, refusal)
            if refusal.reason == "stale token":
                raise  # deposed: nothing that this manager decides will be carried out again
            return decision
        fault_point("commit")
        timing.transaction_ns = time.perf_counter_ns() - charged + prepared - decided
        timing.commit_cycle = commit.cycle
        decision = self.store.conclude(tag, Outcome.AWAITING, epoch=commit.epoch, timing=timing)
        self.commits += 1
        before = tuple(self._history)[-self.spec.measure_windows + 1:] if self.spec.measure_windows > 1 else ()
        self._trial = _Trial(record, commit, (*before, view.window))
        self.active, self.tag = Allocation(target.rows, commit.epoch), tag
        log.info("decision %d committed in epoch %d: %s", decision.id, commit.epoch, decision.reason)
        return decision

    def _confirm_within(self) -> int:
        """Deadline for the device: the windows to measure, the one that runs, and two more for the link."""
        return min((1 << 32) - 1, (self.spec.measure_windows + 3) * self.settings.window_cycles)

    def _intend(self, target: Allocation, window: Window | None, source: str, policy: str, score: float | None,
                reason: str) -> Record:
        changes = row_changes(diff(self.active, target))
        decision = Decision.model_validate({
            "id": 0, "tag": 0, "window": window.number if window else 0, "source": source, "policy": policy,
            "score": score, "reason": reason, "outcome": Outcome.PENDING, "base_epoch": self.active.epoch,
            "changes": [change.model_dump() for change in changes],
            "timing": {"window_cycle": window_end(window) if window else 0}})
        return self.store.intend(Record(decision, self.active, target, self.device.identity.boot_nonce))

    def _refused(self, tag: int, target: Allocation, window: Window, refusal: AllocationRefused) -> Decision:
        """A refusal is an outcome: recorded, and the same table is not tried again at once."""
        self.refusals += 1
        self._settled_at = window_end(window)
        if refusal.reason != "busy draining":
            self._refused_tables.append((window.number, target))
        log.warning("decision %d refused: %s", tag, refusal)
        return self.store.conclude(tag, Outcome.REFUSED, detail=str(refusal))

    # --- measure ---

    def _measure(self, window: Window) -> Decision | None:
        """Take a window under the new table; after enough of them, confirm or roll back."""
        trial = self._trial
        assert trial is not None
        if window.start < trial.commit.cycle:
            return None
        trial.after.append(window)
        accused = accused_tenants(trial.record.before, trial.record.after, self.profiles)
        before, after = (measure(windows, self.profiles, accused) for windows in (trial.before, trial.after))
        worse = verdict(before, after, self.spec.guard)
        if worse:
            return self._settle(Outcome.ROLLED_BACK, worse, window)
        if len(trial.after) < self.spec.measure_windows:
            return None
        return self._settle(
            Outcome.CONFIRMED, f"misses {before.miss_ratio:.1%} to {after.miss_ratio:.1%} of those that gave, batch "
            f"{before.batch_rate:.3f} to {after.batch_rate:.3f} bytes a cycle", window)

    def _settle(self, outcome: Outcome, detail: str, window: Window | None) -> Decision:
        """Tell the device, then the store. A deadline that passed meanwhile has rolled back already."""
        trial = self._trial
        assert trial is not None
        self._trial = None
        tag = trial.record.decision.tag
        self._settled_at = window_end(window) if window else trial.commit.cycle
        epoch = trial.commit.epoch
        try:
            if outcome is Outcome.CONFIRMED:
                self.driver.confirm()
            else:
                epoch = self.driver.roll_back().epoch
        except AllocationRefused as refusal:
            if refusal.reason != "wrong state":
                raise
            outcome, detail = Outcome.ROLLED_BACK, "the device rolled back at its deadline: the manager was late"
        fault_point("confirm")
        if outcome is Outcome.ROLLED_BACK:
            self.rollbacks += 1
            self._read_active()
            epoch = self.active.epoch
            if window is not None:
                self._refused_tables.append((window.number, trial.record.after))
        log.info("decision %d %s: %s", tag, outcome, detail)
        return self.store.conclude(tag, outcome, detail=detail, epoch=epoch)

    # --- changes from outside ---

    def adopt_adjustments(self, adjustments: Mapping[int, Adjustment]) -> None:
        """What requests changed about tenants, from now on."""
        self.adjustments = dict(adjustments)
        self._apply_profiles()

    def settle_early(self, detail: str) -> Decision | None:
        """End a measurement now by confirming the table; used before a change that somebody asked for."""
        return self._settle(Outcome.CONFIRMED, detail, None) if self._trial is not None else None

    def change_now(self, table: Allocation, *, source: str, reason: str, window: int | None = None) -> Decision:
        """Bring a table into force without measuring it; raises `AllocationRefused` after recording it."""
        self.settle_early(f"confirmed early for a change by {source}")
        at = self.latest.window if self.latest is not None else None
        record = self._intend(table, at, source, source, None, reason)
        tag = record.decision.tag
        try:
            self.driver.prepare(table, self.active, tag, [p.guarantee for p in self.profiles])
            commit = self.driver.commit(0, self.settings.drain_cycles)
        except AllocationRefused as refusal:
            self.refusals += 1
            self.store.conclude(tag, Outcome.REFUSED, detail=str(refusal))
            raise
        self.commits += 1
        self.active, self.tag = Allocation(table.rows, commit.epoch), tag
        self._settled_at = commit.cycle
        timing = record.decision.timing.model_copy(update={"commit_cycle": commit.cycle})
        return self.store.conclude(tag, Outcome.CONFIRMED, epoch=commit.epoch, timing=timing)
