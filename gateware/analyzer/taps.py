"""Taps: turn the events of one port or slot into counter slices.

Contract: events are taken every cycle, `bank` with them. All taps have the collector's side in common: `read`,
`read_bank`, `read_tenant`, `clear` as a `CounterSlice` has them (`clear` empties `read_bank`), and
`total_<figure>` for each name in `figures`, a cycle after `read`.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..engine.slot import SlotBusy
from ..fabric.events import EgressEventSignature, IngressEventSignature
from ..stream.packet import Opcode
from .aggregation import Rule
from .slices import CounterSlice, Figure

__all__ = ["EgressTap", "EngineTap", "IngressTap", "Tap"]

MOST_BYTES = 4095


def beat_shape(config: DeviceConfig):
    """Shape of a packet's length in beats."""
    return range(most_beats(config) + 1)


def most_beats(config: DeviceConfig) -> int:
    """Beats of the longest packet."""
    return -(-MOST_BYTES // config.beat_bytes)


def beats_of(config: DeviceConfig, length):
    """Beats of `length` bytes."""
    return (length + config.beat_bytes - 1) >> (config.beat_bytes.bit_length() - 1)


class Tap(wiring.Component):
    """What the taps share: members of the collector's side, and slices attached to them.

    figures: by name. events: the most of one kind in a slice of a window.
    """

    def __init__(self, config: DeviceConfig, members: dict, figures: dict[str, Figure], events: int):
        self._config = config
        self._figures = figures
        self._events = events
        super().__init__({
            **members,
            "bank": In(1),
            "read": In(1),
            "read_bank": In(1),
            "read_tenant": In(range(config.tenants)),
            "clear": In(1),
            **{f"total_{name}": Out(figure.width(events)) for name, figure in figures.items()},
        })

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that this tap counts."""
        return tuple(self._figures)

    def _slice(self, m, name, *figures):
        """Add a slice for some of the figures; the caller drives `valid`, `bank`, `tenant` and the amounts."""
        m.submodules[name] = part = CounterSlice(
            self._config, {figure: self._figures[figure] for figure in figures}, self._events)
        m.d.comb += [
            part.read.eq(self.read),
            part.read_bank.eq(self.read_bank),
            part.read_tenant.eq(self.read_tenant),
            part.clear.eq(self.clear),
            part.clear_bank.eq(self.read_bank),
        ]
        m.d.comb += [getattr(self, f"total_{figure}").eq(getattr(part, f"total_{figure}")) for figure in figures]
        return part


class IngressTap(Tap):
    """One fabric input. `request` is high with a request word to classify; without `requests` it never is, and
    none is counted. `beats` is the length in beats of a packet that is admitted."""

    def __init__(self, config: DeviceConfig, events: int, *, requests: bool = True):
        self._requests = requests
        figures = dict.fromkeys(("packets_in", "drops", "backpressure_cycles"), Figure())
        figures["bytes_in"] = Figure(most=MOST_BYTES)
        if requests:
            figures["requests"] = Figure()
        super().__init__(config, {
            "event": In(IngressEventSignature(config)),
            "request": Out(1),
            "beats": Out(beat_shape(config)),
        }, figures, events)

    def elaborate(self, platform):
        m = Module()
        event = self.event
        m.d.comb += self.beats.eq(beats_of(self._config, event.header.length))
        packets = self._slice(m, "packets", "bytes_in", "packets_in", "drops")
        m.d.comb += [
            packets.valid.eq(event.admit | event.drop),
            packets.bank.eq(self.bank),
            packets.tenant.eq(event.header.tenant),
            packets.amount_bytes_in.eq(Mux(event.admit, event.header.length, 0)),
            packets.amount_packets_in.eq(event.admit),
            packets.amount_drops.eq(event.drop),
        ]
        stalls = self._slice(m, "stalls", "backpressure_cycles")
        m.d.comb += [
            stalls.valid.eq(event.stalled),
            stalls.bank.eq(self.bank),
            stalls.tenant.eq(event.stalled_tenant),
            stalls.amount_backpressure_cycles.eq(1),
        ]
        if self._requests:
            requests = self._slice(m, "requests", "requests")
            m.d.comb += [
                self.request.eq(event.request & (event.request_word.opcode != Opcode.SEGMENT)),
                requests.valid.eq(self.request),
                requests.bank.eq(self.bank),
                requests.tenant.eq(event.request_tenant),
                requests.amount_requests.eq(1),
            ]
        return m


class EgressTap(Tap):
    """One fabric output. `whole` is high when a packet leaves that was not cut off; `slo`, a cycle later, must
    be its tenant's objective. `beats` is the length in beats of a packet that leaves, whole or not.
    `beats_out` counts whole packets."""

    def __init__(self, config: DeviceConfig, events: int):
        super().__init__(config, {
            "event": In(EgressEventSignature(config)),
            "whole": Out(1),
            "beats": Out(beat_shape(config)),
            "slo": In(32),
        }, {
            "bytes_out": Figure(most=MOST_BYTES), "packets_out": Figure(), "beats_out": Figure(most=most_beats(config)),
            "latency_sum": Figure(most=(1 << 32) - 1), "latency_max": Figure(Rule.MAXIMUM, (1 << 32) - 1),
            "slo_misses": Figure(),
        }, events)

    def elaborate(self, platform):
        m = Module()
        event = self.event
        latency = Signal(32)
        packets = self._slice(m, "packets", *self.figures)
        m.d.comb += [
            self.whole.eq(event.leave & ~event.cut),
            self.beats.eq(beats_of(self._config, event.header.length)),
            packets.amount_packets_out.eq(1),
            packets.amount_latency_sum.eq(latency),
            packets.amount_latency_max.eq(latency),
            packets.amount_slo_misses.eq((self.slo != 0) & (latency > self.slo)),
        ]
        m.d.sync += packets.valid.eq(self.whole)
        with m.If(self.whole):
            m.d.sync += [
                packets.bank.eq(self.bank),
                packets.tenant.eq(event.header.tenant),
                packets.amount_bytes_out.eq(event.header.length),
                packets.amount_beats_out.eq(self.beats),
                latency.eq(event.latency),
            ]
        return m


class EngineTap(Tap):
    """One engine slot."""

    def __init__(self, config: DeviceConfig, events: int):
        super().__init__(config, {"busy": In(SlotBusy)}, {"engine_cycles": Figure()}, events)

    def elaborate(self, platform):
        m = Module()
        cycles = self._slice(m, "cycles", "engine_cycles")
        m.d.comb += [
            cycles.valid.eq(self.busy.busy),
            cycles.bank.eq(self.bank),
            cycles.tenant.eq(self.busy.tenant),
            cycles.amount_engine_cycles.eq(1),
        ]
        return m
