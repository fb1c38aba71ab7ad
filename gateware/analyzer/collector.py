"""Collector: at the end of each slice of a window, adds what the counter slices have to the window's totals.

Contract: `slice_end` starts a walk over the tenants, one a cycle, after the last events of the slice have
settled. It drives the slices' `read`, `read_bank`, `read_tenant`; a cycle later `slice_<figure>` must be the
figure of that tenant over all of them. After the walk `clear` empties the bank. With the walk of a
window's last slice done, `complete` strobes: from then until the end of the next window the totals are read with
`row_tenant`, a cycle later `row_<figure>`. A walk takes `walk_cycles` and must be shorter than a slice.

Four totals are made of whole parts (`part_end`): `burst` is the maximum of their `bytes_in`, `squares` the sum of the
squares of their `packets_in` (a part with more than `MOST_PACKETS` counts as that many), `beats_out` the sum of the
most beats that left by one port (`beats`, with `slice_<figure>`), and `contended` the number of parts in which the
tenant `sent` by an input, or by an output, that was `full` in that part (inputs first).
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .aggregation import Rule, combine

__all__ = ["MOST_PACKETS", "Collector", "slice_cycles", "walk_cycles"]

#: Most packets of a part that `squares` tells apart: their square fits a multiplier of the device.
MOST_PACKETS = (1 << 17) - 1

_STAGES = 4  # cycles from the read of a tenant to the write of its totals
_OF_PARTS = {"burst": Rule.MAXIMUM, "squares": Rule.SATURATE, "beats_out": Rule.SUM, "contended": Rule.SUM}


def walk_cycles(config: DeviceConfig, settle: int) -> int:
    """Cycles from the end of a slice until its walk is over."""
    return config.tenants + settle + _STAGES + 3


def slice_cycles(config: DeviceConfig, settle: int) -> int:
    """Cycles of a slice: as few as its walk allows, and a power of two."""
    return 1 << walk_cycles(config, settle).bit_length()


class Collector(wiring.Component):
    """Walks, and keeps the totals of the window under way and of the complete one.

    settle: cycles from an event to its place in a slice.
    """

    def __init__(self, config: DeviceConfig, rules: dict[str, Rule], settle: int):
        if not {"bytes_in", "packets_in"} <= rules.keys() or rules.keys() & _OF_PARTS.keys():
            raise ValueError("rules must have bytes_in and packets_in and none of "
                             f"{', '.join(_OF_PARTS)}, not {list(rules)!r}")
        if settle < 1:
            raise ValueError(f"settle must be at least 1, not {settle!r}")
        self._config = config
        self._settle = settle
        self._rules = {**rules, **_OF_PARTS}
        super().__init__({
            "slice_end": In(1),
            "part_end": In(1),
            "window_end": In(1),
            "bank": In(1),
            "read": Out(1),
            "read_bank": Out(1),
            "read_tenant": Out(range(config.tenants)),
            "clear": Out(1),
            **{f"slice_{name}": In(rule.width) for name, rule in rules.items()},
            "beats": In(32).array(config.ports),
            "sent": In(config.ports),
            "full": In(2 * config.ports),
            "complete": Out(1),
            "row_tenant": In(range(config.tenants)),
            **{f"row_{name}": Out(rule.width) for name, rule in self._rules.items()},
        })

    def elaborate(self, platform):
        m = Module()
        last_tenant = self._config.tenants - 1
        wait = Signal(range(max(self._settle, _STAGES) + 1))
        last, fresh = Signal(), Signal(init=1)  # this walk ends the window; it is the window's first
        self._part_last, self._part_fresh = Signal(), Signal(init=1)  # ... and the part; the part's first

        m.d.sync += self.complete.eq(0)
        with m.If(self.slice_end):
            m.d.sync += [self.read_bank.eq(self.bank), last.eq(self.window_end), self._part_last.eq(self.part_end)]
        with m.FSM():
            # Nothing to do until a slice ends.
            with m.State("IDLE"):
                m.d.sync += [wait.eq(self._settle), self.read_tenant.eq(0)]
                with m.If(self.slice_end):
                    m.next = "SETTLE"
            # The last events of the slice are on their way into the slices.
            with m.State("SETTLE"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.next = "WALK"
            # One tenant a cycle is read.
            with m.State("WALK"):
                m.d.comb += self.read.eq(1)
                m.d.sync += [self.read_tenant.eq(self.read_tenant + 1), wait.eq(_STAGES - 1)]
                with m.If(self.read_tenant == last_tenant):
                    m.next = "CLEAR"
            # The last tenant's figures are on the slices' outputs, which are registered: empty the bank.
            with m.State("CLEAR"):
                m.d.comb += self.clear.eq(1)
                m.next = "DRAIN"
            # The last tenants' totals are on their way to the memories.
            with m.State("DRAIN"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += [fresh.eq(last), self.complete.eq(last),
                                 self._part_fresh.eq(self._part_last)]
                    m.next = "IDLE"
        self._add(m, fresh, last)
        return m

    def _add(self, m, fresh, last):
        """Totals, in four stages: what was counted, the part so far, what it contributes, its sum with the total."""
        valid, tenant = [self.read], [self.read_tenant]
        for stage in range(1, _STAGES + 1):
            valid.append(Signal(name=f"valid_{stage}"))
            tenant.append(Signal.like(self.read_tenant, name=f"tenant_{stage}"))
            m.d.sync += [valid[stage].eq(valid[stage - 1]), tenant[stage].eq(tenant[stage - 1])]
        counted = {}
        for name, rule in self._rules.items():
            if name not in _OF_PARTS:
                counted[name] = Signal(rule.width, name=f"counted_{name}")
                m.d.sync += counted[name].eq(getattr(self, f"slice_{name}"))
        sources = self._add_part(m, counted, valid, tenant)
        for name in counted:
            sources[name] = Signal.like(counted[name], name=f"held_{name}")
            m.d.sync += sources[name].eq(counted[name])
        for name, rule in self._rules.items():
            contribution = Signal(rule.width, name=f"contribution_{name}")
            m.d.sync += contribution.eq(sources[name])
            self._total(m, name, rule, contribution, fresh, last, valid[3:], tenant[3:])

    def _add_part(self, m, counted, valid, tenant):
        """Sums of the part under way; what a part that ends contributes to the totals, a stage later than `counted`."""
        ports = self._config.ports
        shape = data.StructLayout({"bytes": 32, "packets": range(MOST_PACKETS + 1), "sent": ports,
                                   "beats": data.ArrayLayout(32, ports)})
        m.submodules.part = store = memory.Memory(
            shape=shape, depth=1 << (self._config.tenants - 1).bit_length(), init=[])
        write, read = store.write_port(), store.read_port()
        before, after, held = Signal(shape), Signal(shape), Signal(shape)
        sent, packets, beats = Signal(ports), Signal(33), Signal(data.ArrayLayout(32, ports))
        m.d.sync += [sent.eq(self.sent), held.eq(Mux(self._part_last, after.as_value(), 0))]
        m.d.comb += [
            read.addr.eq(tenant[1]),
            read.en.eq(valid[1]),
            before.eq(Mux(self._part_fresh, 0, read.data.as_value())),
            packets.eq(before.packets + counted["packets_in"]),
            after.bytes.eq(before.bytes + counted["bytes_in"]),
            after.packets.eq(Mux(packets > MOST_PACKETS, MOST_PACKETS, packets)),
            after.sent.eq(before.sent | sent),
            write.addr.eq(tenant[2]),
            write.data.eq(after),
            write.en.eq(valid[2]),
        ]
        for port in range(ports):
            m.d.sync += beats[port].eq(self.beats[port])
            m.d.comb += after.beats[port].eq(before.beats[port] + beats[port])
        most = self._most(m, [held.beats[port] for port in range(ports)])
        used = Cat(held.sent, (held.beats[port].any() for port in range(ports)))
        return {"burst": held.bytes, "squares": held.packets * held.packets, "beats_out": most,
                "contended": (used & self.full).any()}

    def _most(self, m, values):
        """The largest of `values`, by halves."""
        if len(values) == 1:
            return values[0]
        halves = (self._most(m, part) for part in (values[::2], values[1::2]))
        return combine(m, Rule.MAXIMUM, *halves, f"most_of_{len(values)}")

    def _total(self, m, name, rule, contribution, fresh, last, valid, tenant):
        """Totals of one figure: those of the window under way, and where its last slice leaves those of the whole."""
        depth = 1 << (self._config.tenants - 1).bit_length()
        m.submodules[name] = running = memory.Memory(shape=rule.width, depth=depth, init=[])
        m.submodules[f"{name}_complete"] = complete = memory.Memory(shape=rule.width, depth=depth, init=[])
        before, row = running.read_port(), complete.read_port()
        joined = combine(m, rule, Mux(fresh, 0, before.data), contribution, f"{name}_joined")
        m.d.comb += [
            before.addr.eq(tenant[0]),
            before.en.eq(valid[0]),
            row.addr.eq(self.row_tenant),
            getattr(self, f"row_{name}").eq(row.data),
        ]
        for store, enable in ((running, valid[1]), (complete, valid[1] & last)):
            write = store.write_port()
            m.d.comb += [write.addr.eq(tenant[1]), write.data.eq(joined), write.en.eq(enable)]
