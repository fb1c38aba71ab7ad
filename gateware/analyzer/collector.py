"""Collector: at the end of each part of a window, adds what the slices counted to the window's totals.

Contract: `part_end` starts a walk over the tenants, one a cycle, after the last events of the part have
settled. It drives the slices' `read`, `read_bank`, `read_tenant`; a cycle later `part_<figure>` must be the
figure of that tenant and part over all slices. After the walk `clear` empties the bank. With the walk of a
window's last part done, `complete` strobes: from then until the next `complete` the totals are read with
`row_tenant`, a cycle later `row_<figure>`. A walk takes `walk_cycles` and must be shorter than a part.

Two totals are derived: `burst` is the maximum of `part_bytes_in` over the parts, and `squares` the sum of the squares
of `part_packets_in` (a part with more than `MOST_PACKETS` counts as that many).
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .slices import Rule, combine

__all__ = ["MOST_PACKETS", "Collector", "walk_cycles"]

#: Most packets of a part that `squares` tells apart: their square fits a multiplier of the device.
MOST_PACKETS = (1 << 17) - 1

_STAGES = 3  # cycles from the read of a tenant to the write of its totals
_DERIVED = {"burst": ("bytes_in", Rule.MAXIMUM), "squares": ("packets_in", Rule.SATURATE)}


def walk_cycles(config: DeviceConfig, settle: int) -> int:
    """Cycles from the end of a part until its walk is over."""
    return config.tenants + settle + _STAGES + 4


class Collector(wiring.Component):
    """Walks, and keeps the totals of the window under way and of the complete one.

    settle: cycles from an event to its place in a slice.
    """

    def __init__(self, config: DeviceConfig, rules: dict[str, Rule], settle: int):
        if any(source not in rules or name in rules for name, (source, _) in _DERIVED.items()):
            raise ValueError(f"rules must have bytes_in and packets_in and not burst and squares, not {list(rules)!r}")
        if settle < 1:
            raise ValueError(f"settle must be at least 1, not {settle!r}")
        self._config = config
        self._settle = settle
        self._rules = {**rules, **{name: rule for name, (_, rule) in _DERIVED.items()}}
        super().__init__({
            "part_end": In(1),
            "window_end": In(1),
            "bank": In(1),
            "read": Out(1),
            "read_bank": Out(1),
            "read_tenant": Out(range(config.tenants)),
            "clear": Out(1),
            **{f"part_{name}": In(rule.width) for name, rule in rules.items()},
            "complete": Out(1),
            "row_tenant": In(range(config.tenants)),
            **{f"row_{name}": Out(rule.width) for name, rule in self._rules.items()},
        })

    def elaborate(self, platform):
        m = Module()
        last_tenant = self._config.tenants - 1
        wait = Signal(range(max(self._settle, _STAGES) + 1))
        last, fresh = Signal(), Signal(init=1)  # this walk ends the window; it is the window's first
        window = Signal()                       # bank of the totals of the window that the walk belongs to

        m.d.sync += self.complete.eq(0)
        with m.If(self.part_end):
            m.d.sync += [self.read_bank.eq(self.bank), last.eq(self.window_end)]
        with m.FSM():
            # Nothing to do until a part ends.
            with m.State("IDLE"):
                m.d.sync += [wait.eq(self._settle), self.read_tenant.eq(0)]
                with m.If(self.part_end):
                    m.next = "SETTLE"
            # The last events of the part are on their way into the slices.
            with m.State("SETTLE"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.next = "WALK"
            # One tenant a cycle is read.
            with m.State("WALK"):
                m.d.comb += self.read.eq(1)
                m.d.sync += [self.read_tenant.eq(self.read_tenant + 1), wait.eq(_STAGES)]
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
                    m.d.sync += [fresh.eq(last), window.eq(window ^ last), self.complete.eq(last)]
                    m.next = "IDLE"
        self._add(m, fresh, window)
        return m

    def _add(self, m, fresh, window):
        """Totals, in three stages: what was counted, what it contributes, its sum with what was there."""
        valid, tenant = [self.read], [self.read_tenant]
        for stage in range(1, _STAGES + 1):
            valid.append(Signal(name=f"valid_{stage}"))
            tenant.append(Signal.like(self.read_tenant, name=f"tenant_{stage}"))
            m.d.sync += [valid[stage].eq(valid[stage - 1]), tenant[stage].eq(tenant[stage - 1])]
        counted = {}
        for name in self._rules:
            if name not in _DERIVED:
                counted[name] = Signal(self._rules[name].width, name=f"counted_{name}")
                m.d.sync += counted[name].eq(getattr(self, f"part_{name}"))
        packets = Signal(range(MOST_PACKETS + 1))
        m.d.comb += packets.eq(Mux(counted["packets_in"] > MOST_PACKETS, MOST_PACKETS, counted["packets_in"]))
        sources = {**counted, "burst": counted["bytes_in"], "squares": packets * packets}
        for name, rule in self._rules.items():
            contribution = Signal(rule.width, name=f"contribution_{name}")
            m.d.sync += contribution.eq(sources[name])
            self._total(m, name, rule, contribution, fresh, window, valid[2:], tenant[2:])

    def _total(self, m, name, rule, contribution, fresh, window, valid, tenant):
        """Totals of one figure: the window under way in bank `window`, the complete one in the other."""
        bits = (self._config.tenants - 1).bit_length()
        m.submodules[name] = store = memory.Memory(shape=rule.width, depth=2 << bits, init=[])
        write, before, row = store.write_port(), store.read_port(), store.read_port()
        base = Mux(fresh, 0, before.data)
        m.d.comb += [
            before.addr.eq(Cat(tenant[0], window)),
            before.en.eq(valid[0]),
            write.addr.eq(Cat(tenant[1], window)),
            write.data.eq(combine(m, rule, base, contribution, f"{name}_joined")),
            write.en.eq(valid[1]),
            row.addr.eq(Cat(self.row_tenant, ~window)),
            getattr(self, f"row_{name}").eq(row.data),
        ]
