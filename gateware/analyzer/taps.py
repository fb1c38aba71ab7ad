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
from .slices import CounterSlice, Rule

__all__ = ["WIDTHS", "EgressTap", "EngineTap", "IngressTap", "Tap"]

#: Bits of the figures that need more than 32.
WIDTHS = {"latency_sum": Rule.SATURATE.width}


def beat_shape(config: DeviceConfig):
    """Shape of a packet's length in beats."""
    return range(4096 // config.beat_bytes + 1)


def beats_of(config: DeviceConfig, length):
    """Beats of `length` bytes."""
    return (length + config.beat_bytes - 1) >> (config.beat_bytes.bit_length() - 1)


class Tap(wiring.Component):
    """What the taps share: members of the collector's side, and slices attached to them."""

    def __init__(self, config: DeviceConfig, members: dict, figures: tuple[str, ...]):
        self._config = config
        self._figures = figures
        super().__init__({
            **members,
            "bank": In(1),
            "read": In(1),
            "read_bank": In(1),
            "read_tenant": In(range(config.tenants)),
            "clear": In(1),
            **{f"total_{name}": Out(WIDTHS.get(name, 32)) for name in figures},
        })

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that this tap counts."""
        return self._figures

    def _slice(self, m, name, rules):
        """Add a slice; the caller drives `valid`, `bank`, `tenant` and the amounts."""
        m.submodules[name] = part = CounterSlice(self._config, rules)
        m.d.comb += [
            part.read.eq(self.read),
            part.read_bank.eq(self.read_bank),
            part.read_tenant.eq(self.read_tenant),
            part.clear.eq(self.clear),
            part.clear_bank.eq(self.read_bank),
        ]
        m.d.comb += [getattr(self, f"total_{figure}").eq(getattr(part, f"total_{figure}")) for figure in rules]
        return part


class IngressTap(Tap):
    """One fabric input. `request` is high with a request word to classify; without `requests` it never is, and
    none is counted. `beats` is the length in beats of a packet that is admitted."""

    def __init__(self, config: DeviceConfig, *, requests: bool = True):
        self._requests = requests
        figures = ("bytes_in", "packets_in", "drops", "backpressure_cycles")
        super().__init__(config, {
            "event": In(IngressEventSignature(config)),
            "request": Out(1),
            "beats": Out(beat_shape(config)),
        }, figures + (("requests",) if requests else ()))

    def elaborate(self, platform):
        m = Module()
        event = self.event
        m.d.comb += self.beats.eq(beats_of(self._config, event.header.length))
        packets = self._slice(m, "packets", dict.fromkeys(("bytes_in", "packets_in", "drops"), Rule.SUM))
        m.d.comb += [
            packets.valid.eq(event.admit | event.drop),
            packets.bank.eq(self.bank),
            packets.tenant.eq(event.header.tenant),
            packets.amount_bytes_in.eq(Mux(event.admit, event.header.length, 0)),
            packets.amount_packets_in.eq(event.admit),
            packets.amount_drops.eq(event.drop),
        ]
        stalls = self._slice(m, "stalls", {"backpressure_cycles": Rule.SUM})
        m.d.comb += [
            stalls.valid.eq(event.stalled),
            stalls.bank.eq(self.bank),
            stalls.tenant.eq(event.stalled_tenant),
            stalls.amount_backpressure_cycles.eq(1),
        ]
        if self._requests:
            requests = self._slice(m, "requests", {"requests": Rule.SUM})
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

    def __init__(self, config: DeviceConfig):
        super().__init__(config, {
            "event": In(EgressEventSignature(config)),
            "whole": Out(1),
            "beats": Out(beat_shape(config)),
            "slo": In(32),
        }, ("bytes_out", "packets_out", "beats_out", "latency_sum", "latency_max", "slo_misses"))

    def elaborate(self, platform):
        m = Module()
        event = self.event
        latency = Signal(32)
        packets = self._slice(m, "packets", {
            "bytes_out": Rule.SUM, "packets_out": Rule.SUM, "beats_out": Rule.SUM, "latency_sum": Rule.SATURATE,
            "latency_max": Rule.MAXIMUM, "slo_misses": Rule.SUM})
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

    def __init__(self, config: DeviceConfig):
        super().__init__(config, {"busy": In(SlotBusy)}, ("engine_cycles",))

    def elaborate(self, platform):
        m = Module()
        cycles = self._slice(m, "cycles", {"engine_cycles": Rule.SUM})
        m.d.comb += [
            cycles.valid.eq(self.busy.busy),
            cycles.bank.eq(self.bank),
            cycles.tenant.eq(self.busy.tenant),
            cycles.amount_engine_cycles.eq(1),
        ]
        return m
