"""Scheduler: surplus round robin by cost over the tenants of one output, with grants ahead of the transfer.

Contract: a tenant in `ready` is granted a packet (`grant`, in order, at most two of them waiting) two cycles after
it was chosen; one grant a cycle is sustained. Within a round the tenants that are ready and solvent are granted one
packet each in turn. A grant costs what `charge` says later: `cost` units on the account of `tenant`, at any time, one
charge a cycle. A tenant whose account is empty waits for the next round, which begins when nobody who is ready is
solvent and adds its weight to every empty account: debt is kept, surplus is not. So a debt is at most what the
tenant's uncharged grants cost. Only a tenant in `again` is granted while an earlier grant of its is `open` (the
caller's mask of grants taken and not charged yet), or was in the cycle before; only one in `several` while an earlier
grant of its was not taken. When that leaves nobody, and grants are taken one a cycle, the next round's first is granted
ahead.

Weights are those of the active bank when an account is filled; weight 0 (it cannot be admitted any more, but has
packets of an earlier table) counts as 1024 until they are gone. There are no errors.

A round is 512 units for weights that sum to 65536, more by a power of two while accounts are so deep in debt that
rounds pass in vain, and at most `LARGEST_FILL` units for any one tenant.
"""

from itertools import pairwise

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..manager.allocation import AllocationSignature
from .rows import Rows

__all__ = ["CALM", "DRAIN_WEIGHT", "ROUND", "Scheduler", "grant_layout", "lowest"]

DRAIN_WEIGHT = 1024
UNIT = 7              # bits of an account below one unit of cost: weight 128 is worth one unit a round
ROUND = 1 << 16 - UNIT  # units of a round for weights that sum to 65536
LARGEST_FILL = 2 * ROUND
CALM = 16 * ROUND     # cost of rounds none of which was in vain, after which finer ones are tried
UNCHARGED = 15        # grants of one tenant that have not been charged, at most


def lowest(bits):
    """The lowest set bit of a value, one-hot, by a carry chain."""
    return (bits & -bits)[:len(bits)]


def number_of(one_hot):
    """Index of the bit that is set."""
    return Cat(Cat(one_hot[number] for number in range(len(one_hot)) if number >> bit & 1).any()
               for bit in range((len(one_hot) - 1).bit_length()))


def grant_layout(config: DeviceConfig):
    """A granted tenant, as one bit of `mask` and as a number."""
    return data.StructLayout({"mask": config.tenants, "tenant": range(config.tenants)})


class Scheduler(wiring.Component):
    """Chooses the tenants that one output serves next."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        self._limit = LARGEST_FILL << UNIT
        self._cost = range(MAX_PACKET_BEATS + 1)
        self._width = 2 + max(self._limit, UNCHARGED * MAX_PACKET_BEATS << UNIT).bit_length()
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "ready": In(config.tenants),
            "again": In(config.tenants),
            "several": In(config.tenants, init=(1 << config.tenants) - 1),
            "open": In(config.tenants),
            "enable": In(1, init=1),
            "grant": Out(stream.Signature(grant_layout(config))),
            "granted": Out(1),
            "charge": In(1),
            "tenant": In(range(config.tenants)),
            "cost": In(self._cost),
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
        # Nobody who is ready is solvent, now and in the cycle before; nothing is coming; `starving` of the cycle before
        # did not know of an account that was filled just then. So the next round begins.
        starving, starved, quiet, filled, swap = Signal(), Signal(), Signal(init=1), Signal(), Signal()
        self.starving, self.swap = starving, swap
        m.d.comb += [
            starving.eq(self.ready.any() & ~(self.ready & self.solvent).any()),
            swap.eq(starved & quiet & ~filled),
        ]
        m.d.sync += starved.eq(starving & ~swap)
        self._choose(m, starving, quiet)
        self._account(m, quiet, filled, swap)
        self._adapt(m, starving, starved, swap)
        return m

    def _choose(self, m, starving, quiet):
        """Round robin among the ready and solvent, or, when there are none, among those of the round that begins next.

        A carry chain finds it: the difference to the place behind the last granted one changes a row of candidates up
        to the first of them from there on. The row is this round's candidates twice, so that it may go on from the
        lowest. The next round begins with its lowest.
        """
        tenants = self._config.tenants
        newest, fresh = Signal(tenants, init=1 << tenants - 1), Signal()   # the last grant; it is not offered yet
        unbilled = Signal(tenants)
        able, later, blocked, choice = (Signal(tenants, name=name) for name in ("able", "later", "blocked", "choice"))
        difference = Signal(2 * tenants + 1)   # the last bit: there is none
        moves, room, hasty = Signal(), Signal(), Signal()
        m.d.comb += [
            blocked.eq((~self.again & (unbilled | Mux(fresh, newest, 0)))
                       | (~self.several & (Mux(fresh, newest, 0) | Mux(self.grant.valid, self.grant.payload.mask, 0)))),
            able.eq(self.ready & self.solvent & ~blocked),
            later.eq(self.ready & self.next_ok & ~blocked & quiet.replicate(tenants)),
            difference.eq(Cat(able, able, C(0, 1)) - newest.rotate_left(1)),
            choice.eq((able & ~(difference[:tenants] & difference[tenants:]))
                      | (lowest(later) & difference[-1].replicate(tenants))),
            moves.eq(self.grant.ready | ~self.grant.valid),
            room.eq(~fresh | moves),
            # The next round begins in the cycle after nobody is solvent, so its grants are due already. When packets
            # are so short that the output would wait for the one who is, they are as well.
            self.granted.eq(room & self.enable & (able.any() | (later.any() & (
                hasty | ~(self.ready & self.solvent).any())))),
        ]
        m.d.sync += hasty.eq(self.grant.valid & self.grant.ready)
        with m.If(self.granted):
            m.d.sync += newest.eq(choice)
        with m.If(room):
            m.d.sync += fresh.eq(self.granted)
        grant = self.grant
        with m.If(moves):
            m.d.sync += [
                grant.valid.eq(fresh),
                grant.payload.mask.eq(newest),
                grant.payload.tenant.eq(number_of(newest)),
            ]
        # A cycle old, but for the newest grant: what makes it up comes from far away.
        m.d.sync += unbilled.eq(Mux(fresh, newest, 0) | Mux(grant.valid, grant.payload.mask, 0) | self.open)

    def _account(self, m, quiet, filled, swap):
        """One account a cycle: a charge, else a filling that is owed; its flags follow seven cycles later.

        Stages: the weight is looked up; scaled; limited, and the change summed; the account is written; it is compared;
        its flags are written.
        """
        tenants = self._config.tenants
        layout = data.StructLayout({"tenant": range(tenants), "fill": 1, "charge": 1, "cost": self._cost})
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
        ]
        for before, after in pairwise([turn, *stages]):
            m.d.sync += after.eq(before)
        weighed, _, summed, written, compared, flagged = stages
        m.d.sync += [quiet.eq(~(self.coming.any() | compared.fill | swap)), filled.eq(flagged.fill)]
        worth = self._weigh(m, weighed, summed)   # of the tenant in `summed`

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

    def _weigh(self, m, weighed, summed):
        """What a round is worth to a tenant: weight times a power of two that is the same for everybody."""
        bits = self._limit.bit_length() - 1   # of `_limit`, a power of two, below its own
        self.scale = Signal(range(bits + 1))
        self.too_coarse = Signal()
        # Bit n: a weight's bit n is carried to the limit by the shift, or above it.
        self.reaching = reaching = Signal(bits + 1, init=1 << bits)
        weight, scaled, worth = Signal(16, name="weight"), Signal(bits, name="scaled"), Signal(range(self._limit + 1))
        limited, passed = Signal(), Signal()
        row = self.rows.rows[0]
        m.d.comb += [
            self.rows.tenants[0].eq(weighed.tenant),
            worth.eq(Mux(limited, self._limit, scaled)),
        ]
        m.d.sync += [
            weight.eq(Mux(row.weight == 0, DRAIN_WEIGHT, row.weight)),
            scaled.eq(weight << self.scale),
            limited.eq((weight & reaching[:16]).any()),
            passed.eq((weight[1:] & reaching[:15]).any()),
            self.too_coarse.eq(summed.fill & (passed | (limited & scaled.any()))),
        ]
        return worth

    def _adapt(self, m, starving, starved, swap):
        """Makes rounds coarser while they pass in vain, and finer when they are long, or none was in vain for a while.

        Scaling all weights changes the length of a round, not the shares.
        """
        spent = Signal(range(2 * ROUND + 3 * MAX_PACKET_BEATS))
        idle, late = Signal(), Signal()   # nobody was granted since the last round began; it cannot end yet
        long = Signal()
        early = Signal()                  # a grant of the next round
        vain, relax = Signal(), Signal()
        calm = Signal(range(CALM + 3 * MAX_PACKET_BEATS))   # cost since a round passed in vain
        m.d.comb += vain.eq(swap & (idle | late))
        m.d.sync += [
            long.eq((spent >= 2 * ROUND) & ~long),
            spent.eq(Mux(swap | long, 0, spent + Mux(self.charge, self.cost, 0))),
            early.eq(self.granted & starving),
            idle.eq(Mux(swap, ~early, idle) & ~self.granted),
            late.eq(~swap & (late | starved)),
            relax.eq((calm >= CALM) & ~relax),
            calm.eq(Mux(vain | relax, 0, calm + Mux(self.charge, self.cost, 0))),
        ]
        with m.If(self.too_coarse | long | relax):
            with m.If(self.scale != 0):
                m.d.sync += [self.scale.eq(self.scale - 1), self.reaching.eq(self.reaching << 1)]
        with m.Elif(vain & (self.scale != self._limit.bit_length() - 1)):
            m.d.sync += [self.scale.eq(self.scale + 1), self.reaching.eq(Cat(self.reaching[1:], 1))]
