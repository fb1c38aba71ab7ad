"""Counter slice: what one source of events (a port, a slot) adds to each tenant's figures in one part of a
window.

Contract: one event a cycle, always taken; `bank` says which part of a window it belongs to. The collector reads
the bank that is not being counted into: `read_bank` and `read_tenant` in one cycle, `totals` in the next.
`clear` empties `clear_bank` in one cycle. An event is in the memory two cycles after it was given.
"""

from amaranth import *
from amaranth.lib import enum, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig

__all__ = ["CounterSlice", "Rule", "combine"]


class Rule(enum.Enum):
    """How two values of one figure are joined, here and when figures of several ports and parts are."""

    SUM = 0       # modulo 2**32
    SATURATE = 1  # the sum, or 2**40 - 1 if it is more
    MAXIMUM = 2

    @property
    def width(self) -> int:
        """Bits of a figure that is joined so."""
        return 40 if self is Rule.SATURATE else 32


def combine(m, rule, first, second, name):
    """Signal with the two values `first` and `second` of `rule.width` bits joined by `rule`."""
    joined = Signal(rule.width, name=name)
    if rule is Rule.SUM:
        m.d.comb += joined.eq(first + second)
    elif rule is Rule.SATURATE:
        total = Signal(rule.width + 1, name=f"{name}_total")
        m.d.comb += [total.eq(first + second), joined.eq(Mux(total[-1], (1 << rule.width) - 1, total[:-1]))]
    else:
        m.d.comb += joined.eq(Mux(first > second, first, second))
    return joined


class CounterSlice(wiring.Component):
    """Figures named and joined as in `rules`, for every tenant, in two banks.

    `amount_<name>` is what the event contributes; an event of a tenant that does not exist is ignored.
    """

    def __init__(self, config: DeviceConfig, rules: dict[str, Rule]):
        if not rules:
            raise ValueError(f"rules must name at least one figure, not {rules!r}")
        self._config = config
        self._rules = dict(rules)
        super().__init__({
            "valid": In(1),
            "bank": In(1),
            "tenant": In(6),
            **{f"amount_{name}": In(32) for name in rules},
            "read": In(1),
            "read_bank": In(1),
            "read_tenant": In(range(config.tenants)),
            **{f"total_{name}": Out(rule.width) for name, rule in rules.items()},
            "clear": In(1),
            "clear_bank": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        places = 1 << (tenants - 1).bit_length()

        # A row counts only once its bit here is set, so that a bank is emptied in one cycle and without a write.
        used = Signal(2 * places)
        event, row = Signal(), Signal(range(2 * places))
        here = Cat(self.tenant[:(tenants - 1).bit_length()], self.bank)
        there = Signal.like(row)
        m.d.comb += there.eq(Cat(self.read_tenant, self.read_bank))
        m.d.sync += event.eq(self.valid & (self.tenant < tenants))
        with m.If(self.valid):
            m.d.sync += row.eq(here)
        counted, known = Signal(), Signal()
        m.d.comb += counted.eq(used.bit_select(row, 1))
        with m.If(self.read):
            m.d.sync += known.eq(used.bit_select(there, 1))
        with m.If(event):
            m.d.sync += used.bit_select(row, 1).eq(1)
        with m.If(self.clear):
            m.d.sync += used.word_select(self.clear_bank, places).eq(0)

        for name, rule in self._rules.items():
            self._elaborate_figure(m, name, rule, here, there, event, row, counted, known)
        return m

    def _elaborate_figure(self, m, name, rule, here, there, event, row, counted, known):
        depth = 2 << (self._config.tenants - 1).bit_length()
        m.submodules[name] = store = memory.Memory(shape=rule.width, depth=depth, init=[])
        write = store.write_port()
        before = store.read_port(transparent_for=(write,))
        total = store.read_port()
        amount = Signal(32, name=f"amount_{name}_held")
        with m.If(self.valid):
            m.d.sync += amount.eq(getattr(self, f"amount_{name}"))
        base = Mux(counted, before.data, 0)
        m.d.comb += [
            before.addr.eq(here),
            before.en.eq(self.valid),
            write.addr.eq(row),
            write.data.eq(combine(m, rule, base, amount, f"{name}_joined")),
            write.en.eq(event),
            total.addr.eq(there),
            total.en.eq(self.read),
            getattr(self, f"total_{name}").eq(Mux(known, total.data, 0)),
        ]
