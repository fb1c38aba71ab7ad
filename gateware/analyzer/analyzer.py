"""Workload analyzer: what each tenant does, window after window, from the events of the fabric and the engine
slots.

Contract: every event is counted in exactly one window, the one that contains its cycle (`cycle` at the input);
the sums over windows equal the totals exactly, modulo 2**32. A window is at least `shortest_window` cycles. At
most about 60 cycles a tenant after its end a window is published: `complete` strobes, the registers `sequence`,
`start`, `cycles` and the blocks `snapshot[t]` and `detail[t]` change together and stay until the next one. The first
window has number 1; `sequence` 0 says that none is complete. With `control.push` it is also sent on `telemetry` (see
`push.py`). `figures` sweeps what reflex rules may watch while the window is made ready (see `figures.py`).

What counts: `bytes_in`, `packets_in` and the burst at admission; `requests`, `sequential` and `strided` for each
request word but segments', at every port but the engines' (theirs are responses; see `requests.py` for how many can be
classified); `bytes_out`, `packets_out` and latency for packets that left whole, not for those cut off;
`backpressure_cycles` and `engine_cycles` add over ports and slots. `beats_out` and `contended` only make flags: the
beats of each part by the port with most of them, and the parts with any packet by an input or an output that was full.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from ..engine.ownership import SlotOwnership
from ..engine.slot import SlotBusy
from ..fabric.events import EgressEventSignature, IngressEventSignature
from ..fabric.rows import Rows
from ..manager.allocation import AllocationSignature
from ..stream.telemetry import TELEMETRY_WORD
from .aggregation import Rule, combine
from .collector import Collector, slice_cycles, walk_cycles
from .depth import DepthTracker
from .figures import AnalyzerFigures
from .flags import Flags
from .latency import LatencyHistogram
from .load import Load
from .objectives import Objectives
from .push import WindowInfo, WindowPush
from .requests import RequestTap, settle
from .snapshot import ROW_CYCLES, SnapshotWriter
from .taps import EgressTap, EngineTap, IngressTap
from .trend import Trend
from .window import PARTS, WindowClock

__all__ = ["RESET_WINDOW", "RULES", "Analyzer"]

#: How each figure is joined over the ports and slots, and over the slices of a window.
RULES = dict.fromkeys((
    "bytes_in", "packets_in", "requests", "sequential", "strided", "bytes_out", "packets_out", "drops",
    "backpressure_cycles", "engine_cycles", "slo_misses"), Rule.SUM) | {
    "latency_sum": Rule.SATURATE,
    "latency_max": Rule.MAXIMUM,
}

#: Cycles of the first window: the reset value of `analyzer.window`.
RESET_WINDOW = 100_000


class Analyzer(wiring.Component):
    """All of it. `shortest_window` and `reset_window` are for tests; the defaults hold for a device."""

    def __init__(self, config: DeviceConfig, *, shortest_window: int | None = None,
                 reset_window: int = RESET_WINDOW):
        walk = walk_cycles(config, settle(config))
        least = max(PARTS * (walk + 1), walk + ROW_CYCLES * config.tenants + 2)
        shortest = max(1024, least) if shortest_window is None else shortest_window
        if shortest < least:
            raise ValueError(f"shortest_window must be at least {least}, not {shortest_window!r}")
        self._config = config
        self._shortest_window = shortest
        self._reset_window = reset_window
        super().__init__({
            "bus": In(CsrSignature(16)),
            "ingress": In(IngressEventSignature(config)).array(config.ports),
            "egress": In(EgressEventSignature(config)).array(config.ports),
            "engine_busy": In(SlotBusy).array(config.slots),
            "credit": In(config.tenants),
            "allocation": In(AllocationSignature(config)),
            "cycle": In(64),
            "epoch": In(8),
            "active_tag": In(32),
            "telemetry": Out(stream.Signature(TELEMETRY_WORD)),
            "figures": Out(AnalyzerFigures(config)),
            "complete": Out(1),
        })

    @property
    def shortest_window(self) -> int:
        """Least cycles of a window; a smaller setting counts as this."""
        return self._shortest_window

    def elaborate(self, platform):
        m = Module()
        config = self._config
        blocks = {"analyzer": None, **dict.fromkeys(("objective", "snapshot", "detail"), config.tenants)}
        if config.histograms:
            blocks["histogram"] = 256 * config.tenants
        m.submodules.registers = registers = RegisterBlock(blocks)
        cycles = slice_cycles(config, settle(config))
        self._events = 2 * cycles  # of one kind in a slice, which is shorter than that
        m.submodules.clock = clock = WindowClock(self._reset_window, self._shortest_window, cycles)
        m.submodules.objectives = objectives = Objectives(config, config.ports)
        m.submodules.depth = depth = DepthTracker(config)
        m.submodules.load = load = Load(config)
        m.submodules.collector = collector = Collector(config, RULES, settle(config))
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        wiring.connect(m, registers.objective, objectives.bus)
        m.d.comb += [
            clock.cycle.eq(self.cycle),
            clock.setting.eq(registers.analyzer_window_cycles),
            depth.credit.eq(self.credit),
            collector.bank.eq(clock.bank),
            collector.slice_end.eq(clock.slice_end),
        ]
        for listener in (collector, depth, load):
            m.d.comb += listener.window_end.eq(clock.window_end)
        for listener in (collector, load):
            m.d.comb += listener.part_end.eq(clock.part_end)

        ingress = [self._tap_ingress(m, port, depth, load) for port in range(config.ports)]
        classified = [self._classify_requests(m, registers, ingress)] if config.access_patterns else []
        egress = [self._tap_egress(m, port, depth, load, objectives) for port in range(config.ports)]
        if config.histograms:
            self._fill_histograms(m, registers, egress)
        slots = [self._tap_slot(m, slot, load) for slot in range(config.slots)]
        self._sum_taps(m, [*classified, *ingress, *egress, *slots], clock, collector)
        self._pass_ports(m, ingress, egress, load, collector)
        self._write_snapshots(m, registers, clock, collector, depth, load, objectives)
        return m

    def _classify_requests(self, m, registers, ingress):
        m.submodules.requests = requests = RequestTap(self._config, self._events)
        m.d.comb += registers.analyzer_passed_over_value.eq(requests.passed_over)
        for request, tap in zip(requests.requests, ingress, strict=False):
            m.d.comb += [
                request.valid.eq(tap.request),
                request.tenant.eq(tap.event.request_tenant),
                request.sector.eq(tap.event.request_word.lba),
            ]
        return requests

    def _tap_ingress(self, m, port, depth, load):
        config = self._config
        m.submodules[f"ingress_{port}"] = tap = IngressTap(
            config, self._events, requests=port != config.engine_port)
        event = tap.event
        wiring.connect(m, wiring.flipped(self.ingress[port]), event)
        m.d.comb += [
            depth.admitted[port].valid.eq(event.admit),
            depth.admitted[port].tenant.eq(event.header.tenant),
            load.arrived[port].valid.eq(event.admit),
            load.arrived[port].beats.eq(tap.beats),
        ]
        return tap

    def _fill_histograms(self, m, registers, egress):
        m.submodules.histogram = histogram = LatencyHistogram(self._config)
        wiring.connect(m, registers.histogram, histogram.bus)
        for leave, tap in zip(histogram.leave, egress, strict=True):
            m.d.comb += [
                leave.valid.eq(tap.whole),
                leave.tenant.eq(tap.event.header.tenant),
                leave.latency.eq(tap.event.latency),
            ]

    def _tap_egress(self, m, port, depth, load, objectives):
        m.submodules[f"egress_{port}"] = tap = EgressTap(self._config, self._events)
        wiring.connect(m, wiring.flipped(self.egress[port]), tap.event)
        tenant = tap.event.header.tenant
        m.d.comb += [
            depth.left[port].valid.eq(tap.event.leave),
            depth.left[port].tenant.eq(tenant),
            load.left[port].valid.eq(tap.event.leave),
            load.left[port].beats.eq(tap.beats),
            objectives.slo_ask[port].eq(tap.whole),
            objectives.slo_tenant[port].eq(tenant),
            tap.slo.eq(objectives.slo[port]),
        ]
        return tap

    def _tap_slot(self, m, slot, load):
        m.submodules[f"engine_{slot}"] = tap = EngineTap(self._config, self._events)
        m.d.comb += [tap.busy.eq(self.engine_busy[slot]), load.slots[slot].eq(self.engine_busy[slot])]
        return tap

    def _sum_taps(self, m, taps, clock, collector):
        """Each figure of the tenant and slice that the collector asks for, over all taps that have it."""
        for tap in taps:
            m.d.comb += [
                tap.bank.eq(clock.bank),
                tap.read.eq(collector.read),
                tap.read_bank.eq(collector.read_bank),
                tap.read_tenant.eq(collector.read_tenant),
                tap.clear.eq(collector.clear),
            ]
        for name, rule in RULES.items():
            parts = [getattr(tap, f"total_{name}") for tap in taps if name in tap.figures]
            if not parts:
                continue  # a figure that this device does not have
            joined = parts[0]
            for index, part in enumerate(parts[1:]):
                joined = combine(m, rule, joined, part, f"{name}_{index}")
            m.d.comb += getattr(collector, f"slice_{name}").eq(joined)

    def _pass_ports(self, m, ingress, egress, load, collector):
        """By which ports the tenant sent and how much, and which were full in the part that ended."""
        m.d.comb += [
            collector.sent.eq(Cat(tap.total_packets_in.any() for tap in ingress)),
            collector.full.eq(Cat(load.inputs_full, load.outputs_full)),
        ]
        m.d.comb += [beats.eq(tap.total_beats_out) for beats, tap in zip(collector.beats, egress, strict=True)]

    def _write_snapshots(self, m, registers, clock, collector, depth, load, objectives):
        config = self._config
        m.submodules.snapshot = snapshot = SnapshotWriter(config, RULES)
        m.submodules.push = push = WindowPush(config)
        wiring.connect(m, registers.snapshot, snapshot.bus)
        wiring.connect(m, registers.detail, snapshot.detail)
        wiring.connect(m, push.telemetry, wiring.flipped(self.telemetry))
        wiring.connect(m, snapshot.figures, wiring.flipped(self.figures))
        ended, published = self._window_info(m, clock, collector, snapshot)
        flags = self._flag(m, snapshot.row_tenant, ended, collector, depth, load, objectives)

        m.d.comb += [
            snapshot.complete.eq(collector.complete),
            collector.row_tenant.eq(snapshot.row_tenant),
            depth.tenant.eq(snapshot.row_tenant),
            objectives.host_tenant.eq(snapshot.row_tenant),
            snapshot.depth.eq(depth.depth),
            snapshot.peak.eq(depth.peak),
            snapshot.sampled.eq(depth.sampled),
            snapshot.cpu.eq(objectives.cpu),
            snapshot.memory.eq(objectives.memory),
            snapshot.flags.eq(flags),
            self.complete.eq(snapshot.published),
        ]
        if config.forecasts:
            m.submodules.trend = trend = Trend(config)
            m.d.comb += [
                trend.tenant.eq(snapshot.row_tenant),
                trend.update.eq(snapshot.predict),
                trend.value.eq(collector.row_bytes_in),
                snapshot.predicted.eq(trend.predicted),
            ]
        m.d.comb += [getattr(snapshot, f"row_{name}").eq(getattr(collector, f"row_{name}"))
                     for name in (*RULES, "burst", "squares")]
        m.d.comb += [
            push.enable.eq(registers.analyzer_control_push),
            push.complete.eq(collector.complete),
            push.published.eq(snapshot.published),
            push.info.eq(ended),
            push.word_valid.eq(snapshot.word_valid),
            push.word_index.eq(snapshot.word_index),
            push.word.eq(snapshot.word),
            registers.analyzer_sequence_value.eq(published.number),
            registers.analyzer_start_lo_value.eq(published.start[:32]),
            registers.analyzer_start_hi_value.eq(published.start[32:]),
            registers.analyzer_cycles_value.eq(published.cycles),
            registers.analyzer_skipped_value.eq(push.skipped),
            registers.analyzer_running_value.eq(clock.length),
        ]

    def _flag(self, m, tenant, ended, collector, depth, load, objectives):
        """The flags of `tenant`, under the allocation that is in force now."""
        config = self._config
        m.submodules.flags = flags = Flags(config)
        m.submodules.ownership = ownership = SlotOwnership(config)
        m.submodules.rows = rows = Rows(config, ["rate"])
        wiring.connect(m, wiring.flipped(self.allocation), ownership.allocation)
        wiring.connect(m, wiring.flipped(self.allocation), rows.allocation)
        m.d.comb += [
            ownership.tenants[0].eq(tenant),
            rows.tenants[0].eq(tenant),
            flags.cycles.eq(ended.cycles),
            flags.sampled.eq(depth.sampled),
            flags.eligible.eq(ownership.eligible[0]),
            flags.rate.eq(rows.rows[0].rate),
            flags.cpu.eq(objectives.cpu),
            flags.memory.eq(objectives.memory),
        ]
        m.d.comb += [getattr(flags, name).eq(getattr(collector, f"row_{name}"))
                     for name in flags.totals]
        m.d.comb += [taken.eq(given) for taken, given in zip(flags.busy_cycles, load.busy_cycles, strict=True)]
        return flags.flags

    def _window_info(self, m, clock, collector, snapshot):
        """What belongs to the window that ended last, and to the one that is published."""
        ended, published = Signal(WindowInfo), Signal(WindowInfo)
        with m.If(clock.window_end):
            m.d.sync += [
                ended.number.eq(ended.number + 1),
                ended.start.eq(clock.start),
                ended.cycles.eq(clock.length),
                ended.epoch.eq(self.epoch),
                ended.tag.eq(self.active_tag),
            ]
        with m.If(snapshot.published):
            m.d.sync += published.eq(ended)
        return ended, published
