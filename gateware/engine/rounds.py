"""Engine rounds: whose turn it is to use the slots that several tenants share, by weighted share of engine time.

Contract: surplus round robin by cycles. `charge` takes `amount` cycles from the account of `tenant`, at any time, one
charge a cycle; three cycles later `solvent` says whether the account holds something. When somebody is `asking` and
nobody who does is solvent, a round begins: each empty account of a tenant that `contends` gets its weight's worth, one
a cycle, whether the tenant has requests or not: the debt of one that went away expires as fast as the others are
served. Then the accounts of the others, who asked for nothing, are set to what the round is worth: who comes during a
round takes part in it with a share, and has saved nothing up. A tenant that does not contend has an empty account.

A round is `ROUND` to 2 x `ROUND` cycles of engine time for those who ask when it begins, whatever their number and
weights: all weights are multiplied by one power of two, whose exponent grows by one when a round was smaller, or
brought nobody a request (for requests that cost more than a round), and shrinks by one when it was larger, or at once
and until nobody gets more than `LARGEST`.

Weights are those of the active bank when an account is filled; weight 0 (an earlier table's requests) counts as
`DRAIN_WEIGHT`. There are no errors.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..fabric.rows import Rows
from ..manager.allocation import AllocationSignature
from .accounts import AMOUNT
from .shard import COST_BITS, outstanding_limit

__all__ = ["DRAIN_WEIGHT", "LARGEST", "ROUND", "EngineRounds"]

DRAIN_WEIGHT = 1024
UNIT = 7             # bits of an account below one cycle: weights that sum to 65536 are worth 512 cycles, unscaled
ROUND = 512
LARGEST = 2 * ROUND


class EngineRounds(wiring.Component):
    """Accounts of all tenants, and the rounds that fill them."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        self._limit = LARGEST << UNIT
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "charge": In(1),
            "tenant": In(range(config.tenants)),
            "amount": In(AMOUNT),
            "contends": In(config.tenants),
            "asking": In(config.tenants),
            "solvent": Out(config.tenants),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        self.owed = Signal(tenants)          # accounts that the round under way has not filled yet
        self.absent = Signal(tenants)        # accounts that it has not set yet
        self.asked = Signal(tenants)         # who was asking when it began
        self.scale = Signal(range(self._limit.bit_length()))
        self.begin = Signal()
        entry, entered = self._pick(m)
        change, changed, fills = self._value(m, entry, entered)
        self._write(m, change, changed)

        filling, starving = Signal(), Signal()   # not everything shows in `solvent` yet; nobody may be granted
        m.d.comb += [
            filling.eq(self.owed.any() | (entered & ~entry.sets) | (changed & change.keeps)),
            starving.eq(self.asking.any() & ~(self.asking & self.solvent).any()),
            self.begin.eq(starving & ~filling),
        ]
        with m.If(self.begin):
            m.d.sync += [
                self.asked.eq(self.asking),
                self.owed.eq(self.contends & ~self.solvent),
                self.absent.eq(self.contends & self.solvent),
            ]
        self._adapt(m, entry, fills, self.asking.any() & ~starving)
        return m

    def _pick(self, m):
        """First stage: the charge, else the lowest account that is owed something, else the lowest that is to be set.

        An account that is charged meanwhile is not that of an absent tenant.
        """
        tenants = self._config.tenants
        entry = Signal(data.StructLayout({
            "tenant": range(tenants), "amount": AMOUNT, "fills": 1, "sets": 1, "counts": 1, "contends": 1}))
        entered, lowest = Signal(), Signal(range(tenants))
        for mask in (self.absent, self.owed):
            for index in reversed(range(tenants)):
                with m.If(mask[index]):
                    m.d.comb += lowest.eq(index)
        who = Mux(self.charge, self.tenant, lowest)
        m.d.sync += [
            entered.eq(self.charge | self.owed.any() | self.absent.any()),
            entry.tenant.eq(who),
            entry.amount.eq(self.amount),
            entry.fills.eq(~self.charge),
            entry.sets.eq(~self.charge & ~self.owed.any()),
            entry.counts.eq(self.asked.bit_select(who, 1)),
            entry.contends.eq(self.contends.bit_select(who, 1)),
        ]
        with m.If(self.charge):
            m.d.sync += self.absent.bit_select(self.tenant, 1).eq(0)
        with m.Elif(self.owed.any()):
            m.d.sync += self.owed.eq(self.owed & (self.owed - 1))
        with m.Else():
            m.d.sync += self.absent.eq(self.absent & (self.absent - 1))
        return entry, entered

    def _value(self, m, entry, entered):
        """Second stage: what the account changes by; also returns the filling, combinational, for `_adapt`."""
        m.submodules.rows = rows = Rows(self._config, ["weight"])
        wiring.connect(m, wiring.flipped(self.allocation), rows.allocation)
        change = Signal(data.StructLayout({
            "tenant": range(self._config.tenants), "amount": signed(COST_BITS + 1 + UNIT), "keeps": 1, "contends": 1}))
        changed = Signal()
        weight = Signal(16)
        scaled = Signal(16 + self._limit.bit_length())
        fill = Signal(range(self._limit + 1))
        fills = Signal(data.StructLayout({"valid": 1, "amount": fill.shape()}))
        again = Signal()   # too much: it is still owed, of a smaller scale
        m.d.comb += [
            rows.tenants[0].eq(entry.tenant),
            weight.eq(Mux(rows.rows[0].weight == 0, DRAIN_WEIGHT, rows.rows[0].weight)),
            scaled.eq(weight << self.scale),
            fill.eq(Mux(scaled > self._limit, self._limit, scaled)),
            again.eq(entered & entry.fills & ~entry.sets & (scaled > self._limit)),
            fills.valid.eq(entered & entry.fills & ~again),
            fills.amount.eq(fill),
        ]
        with m.If(again):
            m.d.sync += [self.owed.bit_select(entry.tenant, 1).eq(1), self.scale.eq(self.scale - 1)]
        m.d.sync += [
            changed.eq(entered & ~again),
            change.tenant.eq(entry.tenant),
            change.contends.eq(entry.contends),
            change.keeps.eq(~entry.sets),
            change.amount.eq(Mux(entry.fills, fill, -(entry.amount << UNIT))),
        ]
        return change, changed, fills

    def _write(self, m, change, changed):
        """Third stage: the account and its flag."""
        outstanding = outstanding_limit(self._config)
        shape = signed(COST_BITS + UNIT + outstanding.bit_length() + 2)
        m.submodules.accounts = accounts = memory.Memory(shape=shape, depth=self._config.tenants, init=[])
        read, write = accounts.read_port(domain="comb"), accounts.write_port()
        m.d.comb += [
            read.addr.eq(change.tenant),
            write.addr.eq(change.tenant),
            write.en.eq(changed),
            write.data.eq(Mux(change.contends, Mux(change.keeps, read.data, 0) + change.amount, 0)),
        ]
        with m.If(changed):
            m.d.sync += self.solvent.bit_select(change.tenant, 1).eq(write.data > 0)

    def _adapt(self, m, entry, fills, served):
        """Keeps rounds at their length. `served`: somebody may be granted, so the round was not in vain."""
        handed = Signal(range((self._config.tenants + 1) * self._limit))  # to those who asked
        useful = Signal()
        with m.If(self.begin):
            m.d.sync += [handed.eq(0), useful.eq(0)]
            with m.If(useful & (handed >= 2 * ROUND << UNIT)):
                with m.If(self.scale != 0):
                    m.d.sync += self.scale.eq(self.scale - 1)
            with m.Elif((~useful | (handed < ROUND << UNIT)) & (self.scale != self._limit.bit_length() - 1)):
                m.d.sync += self.scale.eq(self.scale + 1)
        with m.Else():
            m.d.sync += useful.eq(useful | served)
            with m.If(fills.valid & entry.counts):
                m.d.sync += handed.eq(handed + fills.amount)
