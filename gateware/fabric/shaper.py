"""Shaper: a token bucket per tenant at one output.

Contract: over any interval of n cycles a tenant with rate r and burst b starts at most r*n + b beats. `ok[t]`
says that a packet of any size may start now: the bucket holds at least the largest packet (256 beats); `ample[t]`,
that it holds `UNKNOWN` of them, so that as many may start before their lengths are known. `charge` subtracts `beats`
and shows in both `SHOWN` cycles later. Buckets are filled with whole beats as `refill` says, each once in T cycles (T:
tenants; see `allowances`), and kept that much below their burst; a burst below 257 + r*T counts as that. A row is in
force for a bucket at its next turn, three cycles after `refill` named it. There are no errors.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from .allowances import UNKNOWN, refill_layout

__all__ = ["SHOWN", "Shaper"]

SHOWN = 4      # cycles from a charge to the flags that know of it


class Shaper(wiring.Component):
    """Token buckets of all tenants at one output."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "refill": In(refill_layout(config)),
            "ok": Out(config.tenants, init=(1 << config.tenants) - 1),
            "ample": Out(config.tenants, init=(1 << config.tenants) - 1),
            "charge": In(1),
            "tenant": In(range(config.tenants)),
            "beats": In(range(MAX_PACKET_BEATS + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        # A bucket's level is `filled - spent`, two counters modulo 2**width with one writer each. It is kept 256
        # beats low: a packet may start at a level of 0 or more, and cannot take more than there is.
        self._width = 17
        self._bucket = data.StructLayout({"beats": self._width, "full": 1})
        m.submodules.filled = self.filled = memory.Memory(
            shape=self._bucket, depth=tenants, init=[{"full": 1}] * tenants)
        m.submodules.spent = self.spent = memory.Memory(shape=self._width, depth=tenants, init=[])
        self._spend(m)
        self._refill(m)
        return m

    def _is_ample(self, level):
        """Of a level that is not negative."""
        return level[((UNKNOWN - 1) * MAX_PACKET_BEATS).bit_length() - 1:].any()

    def _flag(self, m, tenant, ok, ample):
        m.d.sync += [self.ok.bit_select(tenant, 1).eq(ok), self.ample.bit_select(tenant, 1).eq(ample)]

    def _spend(self, m):
        """Writes a charge at once, looks at the level that is left two cycles later, and makes the flags in the third.

        A refill under way looked at the bucket before the charge, and is written by then.
        """
        before, filled = self.spent.read_port(domain="comb"), self.filled.read_port(domain="comb")
        write = self.spent.write_port()
        spent = Signal(self._width)
        m.d.comb += [
            before.addr.eq(self.tenant),
            spent.eq(before.data + self.beats),
            write.en.eq(self.charge),
            write.addr.eq(self.tenant),
            write.data.eq(spent),
        ]
        charge, tenant = self.charge, self.tenant
        for stage in range(1, SHOWN):
            after = Signal(name=f"charge_{stage}"), Signal.like(tenant, name=f"charged_{stage}")
            m.d.sync += [after[0].eq(charge), after[1].eq(tenant)]
            charge, tenant = after
            if stage <= SHOWN - 2:
                spent, spent_before = Signal(self._width, name=f"spent_{stage}"), spent
                m.d.sync += spent.eq(spent_before)
            if stage == SHOWN - 2:
                m.d.comb += filled.addr.eq(tenant)
        left, left_full = Signal(signed(self._width), name="left"), Signal(name="left_full")
        m.d.sync += [left.eq(filled.data.beats - spent), left_full.eq(filled.data.full)]
        with m.If(charge):
            self._flag(m, tenant, left_full | (left >= 0), left_full | ((left >= 0) & self._is_ample(left)))

    def _refill(self, m):
        """A bucket a cycle: read; refilled or cut to the brim, and written; what it holds then is flagged."""
        refill = self.refill
        filled, spent = self.filled.read_port(domain="comb"), self.spent.read_port(domain="comb")
        write = self.filled.write_port()
        summed, flagged = (Signal(refill.shape(), init={"full": 1}, name=name) for name in ("summed", "flagged"))
        brim, more = (Signal(self._width, name=name) for name in ("brim", "more"))
        level, raised = (Signal(signed(self._width), name=name) for name in ("level", "raised"))
        cut, was_cut = Signal(name="cut"), Signal(name="was_cut")
        m.d.comb += [filled.addr.eq(refill.tenant), spent.addr.eq(refill.tenant)]
        m.d.sync += [
            summed.eq(refill),
            brim.eq(spent.data + refill.most),
            more.eq(filled.data.beats + refill.beats),
            level.eq(filled.data.beats - spent.data),
            flagged.eq(summed),
            raised.eq(level + summed.beats),
            was_cut.eq(cut),
        ]
        m.d.comb += [
            cut.eq(level + summed.excess >= 0),
            write.en.eq(1),
            write.addr.eq(summed.tenant),
            write.data.beats.eq(Mux(cut, brim, more)),
            write.data.full.eq(summed.full),
        ]
        # What is above the brim is above 0 too, and ample if the brim is.
        self._flag(m, flagged.tenant, flagged.full | (raised >= 0),
                   flagged.full | ((raised >= 0) & Mux(was_cut, flagged.deep, self._is_ample(raised))))
