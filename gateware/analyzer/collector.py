"""Collector: at the end of each part of a window, adds what the slices counted to the window's totals.

Contract: `part_end` starts a walk over the tenants, one a cycle, after the last events of the part have
settled. It drives the slices' `read`, `read_bank`, `read_tenant`; a cycle later `part_<figure>` must be the
figure of that tenant and part over all slices. After the walk `clear` empties the bank. With the walk of a
window's last part done, `complete` strobes: from then until the next `complete` the totals are read with
`row_tenant`, a cycle later `row_<figure>`. `burst` is the maximum of `part_bytes_in` over the parts. A walk
takes tenants + SETTLE + 3 cycles and must be shorter than a part.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .slices import Rule, combine

__all__ = ["SETTLE", "Collector"]

#: Cycles from an event to its place in a slice, with the stages in front of the slices; one more for safety.
SETTLE = 4


class Collector(wiring.Component):
    """Walks, and keeps the totals of the window under way and of the complete one."""

    def __init__(self, config: DeviceConfig, rules: dict[str, Rule]):
        if "bytes_in" not in rules or "burst" in rules:
            raise ValueError(f"rules must have bytes_in and not burst, not {list(rules)!r}")
        self._config = config
        self._rules = {**rules, "burst": Rule.MAXIMUM}
        super().__init__({
            "part_end": In(1),
            "window_end": In(1),
            "bank": In(1),
            "read": Out(1),
            "read_bank": Out(1),
            "read_tenant": Out(range(config.tenants)),
            "clear": Out(1),
            **{f"part_{name}": In(32) for name in rules},
            "complete": Out(1),
            "row_tenant": In(range(config.tenants)),
            **{f"row_{name}": Out(32) for name in self._rules},
        })

    @property
    def figures(self) -> list[str]:
        """Names of the totals, `burst` included."""
        return list(self._rules)

    def elaborate(self, platform):
        m = Module()
        last_tenant = self._config.tenants - 1
        wait = Signal(range(SETTLE + 1))
        last, fresh = Signal(), Signal(init=1)  # this walk ends the window; it is the window's first
        window = Signal()                       # bank of the totals of the window that the walk belongs to

        with m.If(self.part_end):
            m.d.sync += [self.read_bank.eq(self.bank), last.eq(self.window_end)]
        with m.FSM():
            # Nothing to do until a part ends.
            with m.State("IDLE"):
                m.d.sync += [wait.eq(SETTLE), self.read_tenant.eq(0)]
                with m.If(self.part_end):
                    m.next = "SETTLE"
            # The last events of the part are on their way into the slices.
            with m.State("SETTLE"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.next = "WALK"
            # One tenant a cycle is read; its totals are written a cycle later.
            with m.State("WALK"):
                m.d.comb += self.read.eq(1)
                m.d.sync += self.read_tenant.eq(self.read_tenant + 1)
                with m.If(self.read_tenant == last_tenant):
                    m.next = "CLEAR"
            # The last tenant's figures are on the slices' outputs, which are registered: empty the bank.
            with m.State("CLEAR"):
                m.d.comb += self.clear.eq(1)
                m.d.sync += [fresh.eq(last), window.eq(window ^ last), self.complete.eq(last)]
                m.next = "IDLE"
        with m.If(self.complete):
            m.d.sync += self.complete.eq(0)

        added, tenant = Signal(), Signal.like(self.read_tenant)
        m.d.sync += [added.eq(self.read), tenant.eq(self.read_tenant)]
        for name, rule in self._rules.items():
            part = self.part_bytes_in if name == "burst" else getattr(self, f"part_{name}")
            self._total(m, name, rule, part, added, fresh, window, tenant)
        return m

    def _total(self, m, name, rule, part, added, fresh, window, tenant):
        """Totals of one figure: the window under way in bank `window`, the complete one in the other."""
        bits = (self._config.tenants - 1).bit_length()
        m.submodules[name] = store = memory.Memory(shape=32, depth=2 << bits, init=[])
        write, before, row = store.write_port(), store.read_port(), store.read_port()
        base = Mux(fresh, 0, before.data)
        m.d.comb += [
            before.addr.eq(Cat(self.read_tenant, window)),
            before.en.eq(self.read),
            write.addr.eq(Cat(tenant, window)),
            write.data.eq(combine(m, rule, base, part, f"{name}_joined")),
            write.en.eq(added),
            row.addr.eq(Cat(self.row_tenant, ~window)),
            getattr(self, f"row_{name}").eq(row.data),
        ]
