"""Scheduler: surplus round robin by cost over the tenants of one output, with grants ahead of the transfer.

Contract: a tenant in `ready` is granted a packet (`grant`, in order, at most two of them waiting) the cycle after it
was chosen; one grant a cycle is sustained. Within a round the tenants that are ready and solvent are granted one
packet each in turn. A grant costs what `charge` says later: `cost` units on the account of `tenant`, at any time, one
charge a cycle. A tenant whose account is empty waits for the next round, which begins when nobody who is ready is
solvent and adds its weight to every empty account: debt is kept, surplus is not. So a debt is at most what the
tenant's uncharged grants cost. Only a tenant in `again` is granted while an earlier grant of its is `open` (the
caller's mask of grants taken and not charged yet).

Weights are those of the active bank when an account is filled; weight 0 (it cannot be admitted any more, but has
packets of an earlier table) counts as 1024 until they are gone. There are no errors.

A round is 512 units for weights that sum to 65536, more by a power of two when accounts are so deep in debt that
rounds pass in vain, and at most `largest_fill` units for any one tenant.
"""

from itertools import pairwise

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..manager.allocation import AllocationSignature
from .rows import Rows

__all__ = ["DRAIN_WEIGHT", "ROUND", "Scheduler", "lowest"]

DRAIN_WEIGHT = 1024
UNIT = 7              # bits of an account below one unit of cost: weight 128 is worth one unit a round
ROUND = 1 << 16 - UNIT  # units of a round for weights that sum to 65536


def lowest(bits):
    """The lowest set bit of a value, one-hot, by a carry chain."""
    return (bits & -bits)[:len(bits)]


def number_of(one_hot):
    """Index of the bit that is set."""
    return Cat(Cat(one_hot[number] for number in range(len(one_hot)) if number >> bit & 1).any()
               for bit in range((len(one_hot) - 1).bit_length()))


class Scheduler(wiring.Component):
    """Chooses the tenants that one output serves next.

    cost_width: bits of a charge. largest_fill: most units that one round gives one tenant, a power of two.
    uncharged: most grants of one tenant that have not been charged at any time.
    """

    def __init__(self, config: DeviceConfig, *, cost_width: int = 9, largest_fill: int = 1024, uncharged: int = 8):
        if not 1 <= cost_width <= 16:
            raise ValueError(f"cost_width must be in 1..16, not {cost_width!r}")
        if largest_fill < ROUND or largest_fill & largest_fill - 1:
            raise ValueError(f"largest_fill must be a power of two of at least {ROUND}, not {largest_fill!r}")
        self._config = config
        self._cost_width = cost_width
        self._limit = largest_fill << UNIT
        self._width = 2 + max(self._limit.bit_length(), cost_width + UNIT + uncharged.bit_length())
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "ready": In(config.tenants),
            "again": In(config.tenants),
            "open": In(config.tenants),
            "enable": In(1, init=1),
            "grant": Out(stream.Signature(config.tenants)),
            "granted": Out(1),
            "charge": In(1),
            "tenant": In(range(config.tenants)),
            "cost": In(cost_width),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        everybody = (1 << tenants) - 1
        m.submodules.rows = self.rows = Rows(self._config, ["weight"])
        wiring.connect(m, wiring.flipped(self.allocation), self.rows.allocation)

        self.solvent = Signal(tenants, init=everybody)   # may be granted in this round
        self.next_ok = Signal(tenants, init=everybody)   # will be solvent in the next one
        self.owed = Signal(tenants)                      # is to get its weight for the round under way
        self.coming = Signal(tenants)                    # has not got it yet
        starving, swap = Signal(), Signal()   # nobody who is ready is solvent; so the next round begins
        m.d.comb += [
            starving.eq(self.ready.any() & ~(self.ready & self.solvent).any()),
        ]
        self._choose(m, swap)
        self._account(m, starving, swap)
        self._adapt(m, starving, swap)
        return m

    def _choose(self, m, swap):
        """Round robin among the ready and solvent, into a queue of two grants."""
        tenants = self._config.tenants
        second = Signal(tenants)   # behind `grant`; nobody: 0
        above = Signal(tenants)    # tenants behind the last granted one
        queued, able, candidates, turn, choice = (
            Signal(tenants, name=name) for name in ("queued", "able", "candidates", "turn", "choice"))
        first = self.grant.payload
        m.d.comb += [
            queued.eq(first | second),
            able.eq(self.ready & Mux(swap, self.next_ok, self.solvent)),
            candidates.eq(able & (self.again | ~(queued | self.open))),
            turn.eq(candidates & above),
            choice.eq(Mux(turn.any(), lowest(turn), lowest(candidates))),
            self.granted.eq(~second.any() & self.enable & candidates.any()),
            self.grant.valid.eq(first.any()),
        ]
        with m.If(self.granted):
            m.d.sync += above.eq(-choice & ~choice)
        taken = self.grant.valid & self.grant.ready
        free = taken | ~self.grant.valid
        with m.If(second.any()):
            with m.If(taken):
                m.d.sync += [first.eq(second), second.eq(0)]
        with m.Elif(self.granted):
            with m.If(free):
                m.d.sync += first.eq(choice)
            with m.Else():
                m.d.sync += second.eq(choice)
        with m.Elif(taken):
            m.d.sync += first.eq(0)

    def _account(self, m, starving, swap):
        """One account a cycle: a charge, else a filling that is owed; its flags follow seven cycles later.

        Stages: the weight is looked up; made the worth of a round; the change is summed; the account is written; it is
        compared; its flags are written.
        """
        tenants = self._config.tenants
        layout = data.StructLayout({"tenant": range(tenants), "fill": 1, "charge": 1, "cost": self._cost_width})
        turn = Signal(layout)
        stages = [Signal(layout, name=name)
                  for name in ("weighed", "valued", "summed", "written", "compared", "flagged")]
        next_owed = Signal(tenants)   # one-hot
        m.d.comb += [
            next_owed.eq(lowest(self.owed)),
            turn.tenant.eq(Mux(self.charge, self.tenant, number_of(next_owed))),
            turn.charge.eq(self.charge),
            turn.cost.eq(self.cost),
            turn.fill.eq(Mux(self.charge, self.owed.bit_select(self.tenant, 1), self.owed.any())),
            swap.eq(starving & ~self.coming.any() & ~stages[-1].fill),
        ]
        for before, after in pairwise([turn, *stages]):
            m.d.sync += after.eq(before)
        weighed, valued, summed, written, compared, flagged = stages
        worth = self._weigh(m, weighed, valued)   # of the tenant in `summed`

        shape = signed(self._width)
        change, level = Signal(shape), Signal(shape)
        brings, brought = Signal.like(worth), Signal.like(worth)
        # An account is kept one low: its sign says whether it holds anything.
        m.submodules.accounts = accounts = memory.Memory(shape=shape, depth=tenants, init=[-1] * tenants)
        read, write = accounts.read_port(domain="comb"), accounts.write_port()
        m.d.comb += [
            read.addr.eq(written.tenant),
            write.addr.eq(written.tenant),
            write.en.eq(written.charge | written.fill),
            write.data.eq(read.data + change),
        ]
        m.d.sync += [
            change.eq(Mux(summed.fill, worth, 0) - Mux(summed.charge, summed.cost << UNIT, 0)),
            level.eq(write.data),
            Cat(brings, brought).eq(Cat(worth, brings)),
        ]
        self._flag(m, flagged, level, brought, swap)
        with m.If(~swap):
            m.d.sync += [
                self.owed.eq(self.owed & ~Mux(self.charge, 1 << self.tenant, next_owed)),
                self.coming.eq(self.coming & ~Mux(compared.fill, 1 << compared.tenant, 0)),
            ]

    def _flag(self, m, flagged, level, worth, swap):
        """The flags of an account: of what it holds, and of what it will with what the next round adds."""
        tenants = self._config.tenants
        here, rounds = Signal(tenants), Signal(3)   # bit n: the account is above 0 when n rounds have been added
        positive, next_positive = Signal(), Signal()
        solvent, next_ok = Signal(tenants, name="solvent_now"), Signal(tenants, name="next_ok_now")
        m.d.sync += rounds.eq(Cat(~level[-1], ~(level + worth)[-1], ~(level + (worth << 1))[-1]))
        m.d.comb += [
            here.eq(Mux(flagged.charge | flagged.fill, 1 << flagged.tenant, 0)),
            # What is coming for the round under way, behind this very event, counts as if it were there.
            Cat(positive, next_positive).eq(Mux(self.coming.bit_select(flagged.tenant, 1), rounds[1:], rounds[:2])),
            solvent.eq((self.solvent & ~here) | (here & positive.replicate(tenants))),
            next_ok.eq((self.next_ok & ~here) | (here & next_positive.replicate(tenants))),
        ]
        m.d.sync += [
            self.next_ok.eq(next_ok),
            self.solvent.eq(solvent | (next_ok & swap.replicate(tenants))),
        ]
        with m.If(swap):
            m.d.sync += [self.owed.eq(~solvent), self.coming.eq(~solvent)]

    def _weigh(self, m, weighed, valued):
        """What a round is worth to a tenant: weight times a power of two that is the same for everybody."""
        self.scale = Signal(range(self._limit.bit_length()))
        self.too_coarse = Signal()
        weight, worth = Signal(16), Signal(range(self._limit + 1))
        scaled = Signal(16 + self._limit.bit_length())
        row = self.rows.rows[0]
        m.d.comb += [
            self.rows.tenants[0].eq(weighed.tenant),
            scaled.eq(weight << self.scale),
        ]
        m.d.sync += [
            weight.eq(Mux(row.weight == 0, DRAIN_WEIGHT, row.weight)),
            worth.eq(Mux(scaled > self._limit, self._limit, scaled)),
            self.too_coarse.eq(valued.fill & (scaled > self._limit)),
        ]
        return worth

    def _adapt(self, m, starving, swap):
        """Makes rounds coarser while they pass in vain, and finer again when they have become long.

        Scaling all weights changes the length of a round, not the shares.
        """
        spent = Signal(range(2 * ROUND + (2 << self._cost_width)))
        idle, late = Signal(), Signal()   # nobody was granted since the last round began; it cannot end yet
        long = Signal()
        m.d.sync += [
            long.eq((spent >= 2 * ROUND) & ~long),
            spent.eq(Mux(swap | long, 0, spent + Mux(self.charge, self.cost, 0))),
            idle.eq((swap | idle) & ~self.granted),
            late.eq(~swap & (late | starving)),
        ]
        with m.If(self.too_coarse | long):
            with m.If(self.scale != 0):
                m.d.sync += self.scale.eq(self.scale - 1)
        with m.Elif(swap & (idle | late) & (self.scale != self._limit.bit_length() - 1)):
            m.d.sync += self.scale.eq(self.scale + 1)
