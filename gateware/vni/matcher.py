"""Match table of the classifier: which tenant, destination and class a frame gets.

Contract: `lookups[i]` asks for the frame with `fields` that came in at port `port` of the fabric; the answer
comes on `answers[i]` in order. One lookup of all ports is carried out a cycle, in turn, with one cycle of
latency. The first entry that is enabled, for that port, and matches (any frame, VLAN id, or destination MAC
address) wins. Without a match: tenant 0, the host port, best effort.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import FlowClass
from .fields import Fields

__all__ = ["Action", "EntryKind", "EntrySignature", "MatchTable"]


class EntryKind:
    """Values of `classifier[].action.kind`; 3 never matches."""

    ANY = 0
    VLAN = 1
    MAC = 2


class Action(data.Struct):
    """What a frame is given."""

    tenant: 6
    destination: 4
    flow_class: FlowClass


class EntrySignature(wiring.Signature):
    """One entry, as in the register map. `key_hi` holds the first two bytes of a MAC address."""

    def __init__(self):
        super().__init__({
            "enable": Out(1),
            "kind": Out(2),
            "port": Out(4),
            "tenant": Out(6),
            "destination": Out(4),
            "flow_class": Out(4),
            "key_lo": Out(32),
            "key_hi": Out(16),
        })


class MatchTable(wiring.Component):
    """Compares one frame's fields with every entry."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        count = len(config.net_ports)
        super().__init__({
            "entries": In(EntrySignature()).array(config.classifier_entries),
            "lookups": In(stream.Signature(Fields)).array(count),
            "answers": Out(stream.Signature(Action)).array(count),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        count = len(self.lookups)
        turn, granted = Signal(range(max(count, 2))), Signal()
        fields, port = Signal(Fields), Signal(4)

        # A port whose answer was not taken yet does not ask again: its next lookup waits.
        asks = [lookup.valid & (~answer.valid | answer.ready)
                for lookup, answer in zip(self.lookups, self.answers, strict=True)]
        chosen = Signal(range(max(count, 2)))
        with m.Switch(turn):
            for last in range(count):
                with m.Case(last):
                    for step in reversed(range(1, count + 1)):
                        index = (last + step) % count
                        with m.If(asks[index]):
                            m.d.comb += [chosen.eq(index), granted.eq(1)]
        with m.If(granted):
            m.d.sync += turn.eq(chosen)

        result = self._match(m, fields, port)
        for index, (lookup, answer) in enumerate(zip(self.lookups, self.answers, strict=True)):
            with m.If(answer.ready):
                m.d.sync += answer.valid.eq(0)
            with m.If(granted & (chosen == index)):
                m.d.comb += [
                    fields.eq(lookup.payload),
                    port.eq(config.net_ports[index]),
                    lookup.ready.eq(1),
                ]
                m.d.sync += [answer.valid.eq(1), answer.payload.eq(result)]
        return m

    def _match(self, m, fields, port):
        result = Signal(Action)
        m.d.comb += [
            result.tenant.eq(0),
            result.destination.eq(self._config.host_port),
            result.flow_class.eq(FlowClass.BEST_EFFORT),
        ]
        for entry in reversed(self.entries):  # the last assignment wins, and the first entry is to win
            vlan = fields.tagged & (fields.vlan == entry.key_lo)
            mac = fields.mac == Cat(entry.key_lo, entry.key_hi)
            hit = ((entry.kind == EntryKind.ANY) | ((entry.kind == EntryKind.VLAN) & vlan)
                   | ((entry.kind == EntryKind.MAC) & mac))
            with m.If(entry.enable & (entry.port == port) & hit):
                m.d.comb += [
                    result.tenant.eq(entry.tenant),
                    result.destination.eq(entry.destination),
                    result.flow_class.eq(entry.flow_class),
                ]
        return result
