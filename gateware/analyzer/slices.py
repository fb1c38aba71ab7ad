"""Counter slice: what one source of events (a port, a slot) adds to each tenant's figures in one slice of a
window.

Contract: one event a cycle, always taken, `events` at most in a slice; `bank` says which slice it belongs to. The
figures are exact: they are as wide as so many of the largest amounts need. A bank is counted into or read, never both,
so that one read port serves it. The collector reads
the bank that is not being counted into: `read_bank` and `read_tenant` in one cycle, `totals` in the next.
`clear` empties `clear_bank` in one cycle. An event is in the memory two cycles after it was given.
"""

from typing import NamedTuple

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from .aggregation import Rule

__all__ = ["CounterSlice", "Figure"]


class Figure(NamedTuple):
    """How a figure is joined, and the most that one event contributes to it."""

    rule: Rule = Rule.SUM
    most: int = 1

    def width(self, events: int) -> int:
        """Bits of what `events` of them come to."""
        return (self.most if self.rule is Rule.MAXIMUM else self.most * events).bit_length()


class CounterSlice(wiring.Component):
    """`figures` by name, for every tenant, in two banks.

    `amount_<name>` is what the event contributes; an event of a tenant that does not exist is ignored.
    """

    def __init__(self, config: DeviceConfig, figures: dict[str, Figure], events: int):
        if not figures:
            raise ValueError(f"figures must name at least one, not {figures!r}")
        self._config = config
        self._figures = dict(figures)
        self._events = events
        super().__init__({
            "valid": In(1),
            "bank": In(1),
            "tenant": In(6),
            **{f"amount_{name}": In(figure.most.bit_length()) for name, figure in figures.items()},
            "read": In(1),
            "read_bank": In(1),
            "read_tenant": In(range(config.tenants)),
            **{f"total_{name}": Out(figure.width(events)) for name, figure in figures.items()},
            "clear": In(1),
            "clear_bank": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        bits = (tenants - 1).bit_length()

        # A row counts only once its bit here is set, so that a bank is emptied in one cycle and without a write.
        used = [Signal(1 << bits, name=f"used_{bank}") for bank in range(2)]
        event, bank, row = Signal(), Signal(), Signal(range(tenants))
        m.d.sync += event.eq(self.valid & (self.tenant < tenants))
        with m.If(self.valid):
            m.d.sync += [bank.eq(self.bank), row.eq(self.tenant)]
        counted, known, shown = Signal(), Signal(), Signal()
        again = event & (bank == self.bank) & (row == self.tenant)
        with m.If(self.valid):
            m.d.sync += counted.eq(again | Mux(
                self.bank, used[1].bit_select(self.tenant, 1), used[0].bit_select(self.tenant, 1)))
        with m.If(self.read):
            m.d.sync += [shown.eq(self.read_bank), known.eq(Mux(
                self.read_bank, used[1].bit_select(self.read_tenant, 1), used[0].bit_select(self.read_tenant, 1)))]
        for number, mask in enumerate(used):
            with m.If(event & (bank == number)):
                m.d.sync += mask.bit_select(row, 1).eq(1)
            with m.If(self.clear & (self.clear_bank == number)):
                m.d.sync += mask.eq(0)

        for name, figure in self._figures.items():
            stored, write = self._store(m, name, figure, event, bank, row)
            amount = Signal(figure.most.bit_length(), name=f"amount_{name}_held")
            with m.If(self.valid):
                m.d.sync += amount.eq(getattr(self, f"amount_{name}"))
            base = Mux(counted, Mux(bank, stored[1], stored[0]), 0)
            joined = Mux(base > amount, base, amount) if figure.rule is Rule.MAXIMUM else base + amount
            m.d.comb += [
                write.eq(joined),
                getattr(self, f"total_{name}").eq(Mux(known, Mux(shown, stored[1], stored[0]), 0)),
            ]
        return m

    def _store(self, m, name, figure, event, bank, row):
        """Memories of one figure: what was read, by bank, for the event or for the collector; and what is stored."""
        width = figure.width(self._events)
        written, found = Signal(width, name=f"{name}_written"), []
        for number in range(2):
            m.submodules[f"{name}_{number}"] = store = memory.Memory(
                shape=width, depth=1 << (self._config.tenants - 1).bit_length(), init=[])
            write = store.write_port()
            read = store.read_port(transparent_for=(write,))
            mine = self.read & (self.read_bank == number)
            m.d.comb += [
                read.addr.eq(Mux(mine, self.read_tenant, self.tenant)),
                read.en.eq(mine | (self.valid & (self.bank == number))),
                write.addr.eq(row),
                write.data.eq(written),
                write.en.eq(event & (bank == number)),
            ]
            found.append(read.data)
        return found, written
