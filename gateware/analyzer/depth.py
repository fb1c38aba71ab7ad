"""Queue depth: packets of each tenant that are in the fabric, now, at most and on average within a window.

Contract: `admitted` and `left` bring any number of events a cycle, one a port; `window_end` is high in the last
cycle of a window, which has more than T + 6. From T + 6 cycles after it until the next one the window's figures are
read: `depth` and `peak`, the packets at its end and the most after any cycle of it or at its start, and `sampled`;
for `tenant`, two cycles after it was asked for. Depths are exact while there are no more than `most_packets`.

After every cycle one tenant is sampled, all in turn, tenant 0 after the first of a window. `sampled` has the sums of
that: samples, the depths in them (2**36 - 1 at most), and those in which the tenant had been without `credit` for the
last whole span of `SPAN` cycles (shorter gaps are headers that are being decided on), with anything to send or not.

Depth and peak of all tenants change in one cycle, but only a tenant's turn needs them whole. So each has a few bits
for what changed since its last turn, and the highest that this ever was; in its turn they are added to its row.
"""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..fabric.place import PAGE_DESCRIPTORS

__all__ = ["SPAN", "DepthTracker", "PortEvent", "Samples", "most_packets"]

SPAN = 16
_LEAVING = 8   # packets of one output that have no descriptor any more, at most


def most_packets(config: DeviceConfig) -> int:
    """Packets that a fabric has room for, or the most that 16 bits can say."""
    return min(config.ports * (config.ports * config.pages * PAGE_DESCRIPTORS + _LEAVING), 0xFFFF)


class PortEvent(data.Struct):
    """Something happened for `tenant` at one port."""

    valid: 1
    tenant: 6


class Samples(data.Struct):
    """Sums over the samples of one tenant in one window."""

    count: 32
    depth: 36
    held: 32


class DepthTracker(wiring.Component):
    """One up-and-down counter a tenant: events of all ports may be the same tenant's in one cycle."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        depth, most = range(most_packets(config) + 1), config.ports * config.tenants
        self._row = data.StructLayout({"depth": depth, "peak": depth})
        # level: packets more than at the tenant's last turn; top: the most that this was.
        self._change = data.StructLayout({"level": range(-most, most + 1), "top": range(most + 1)})
        super().__init__({
            "admitted": In(PortEvent).array(config.ports),
            "left": In(PortEvent).array(config.ports),
            "credit": In(config.tenants),
            "window_end": In(1),
            "tenant": In(range(config.tenants)),
            "depth": Out(16),
            "peak": Out(16),
            "sampled": Out(Samples),
        })

    def elaborate(self, platform):
        m = Module()
        tenants = self._config.tenants
        ups, downs = self._decode(m, self.admitted, "up"), self._decode(m, self.left, "down")
        turn, bank = Signal(range(tenants)), Signal()
        first, ended = Signal(init=1), Signal(init=1)   # the window's first round; a cycle after an end, as `change` is
        m.d.sync += ended.eq(self.window_end)
        with m.If(ended):
            m.d.sync += [turn.eq(0), bank.eq(~bank), first.eq(1)]
        with m.Elif(turn == tenants - 1):
            m.d.sync += [turn.eq(0), first.eq(0)]
        with m.Else():
            m.d.sync += turn.eq(turn + 1)

        now, before = Signal(self._change), Signal(self._change)
        for tenant in range(tenants):
            change = Signal(range(-self._config.ports, self._config.ports + 1), name=f"change_{tenant}")
            m.d.sync += change.eq(_number(Cat(up[tenant] for up in ups)) - _number(Cat(down[tenant] for down in downs)))
            since, last = self._count(m, tenant, change, turn == tenant, ended)
            with m.If(turn == tenant):
                m.d.comb += [now.eq(since), before.eq(last)]
        self._add(m, turn, first, bank, now, before)
        return m

    def _count(self, m, tenant, change, sampled, ended):
        """What changed for one tenant since its last turn; what had, when the window ended."""
        since, last = (Signal(self._change, name=f"{name}_{tenant}") for name in ("since", "last"))
        following = Signal(self._change, name=f"following_{tenant}")
        m.d.comb += [
            following.level.eq(since.level + change),
            following.top.eq(Mux(following.level > since.top, following.level, since.top)),
        ]
        m.d.sync += since.eq(Mux(sampled | ended, 0, following.as_value()))
        with m.If(ended):
            m.d.sync += last.eq(Mux(sampled, 0, following.as_value()))
        return following, last

    def _add(self, m, turn, first, bank, now, before):
        """Adds what changed to the row of tenant `turn`, a cycle later.

        In the first round of a window the row is still that of the last one, whose end and peak are kept to be read.
        """
        tenants, row = self._config.tenants, self._row
        m.submodules.rows = rows = memory.Memory(shape=row, depth=tenants, init=[])
        m.submodules.kept = kept = memory.Memory(shape=row, depth=tenants, init=[])
        read, write, keep, shown = rows.read_port(domain="comb"), rows.write_port(), kept.write_port(), kept.read_port()
        reach = 2 * self._config.ports * tenants
        level, top = Signal(range(-reach, reach + 1)), Signal(range(-reach, reach + 1))
        last, held, was_bank, was_first = Signal(self._change), Signal(), Signal(), Signal()
        m.d.sync += [
            read.addr.eq(turn),
            was_first.eq(first),
            was_bank.eq(bank),
            held.eq(self._starved(m).bit_select(turn, 1)),
            level.eq(Mux(first, before.level, 0) + now.level),
            top.eq(Mux(first, before.level, 0) + now.top),
            last.level.eq(before.level),
            last.top.eq(Mux(first, before.top, now.top)),
        ]
        high, peak = Signal(row["depth"].shape), Signal(row["depth"].shape)   # of the window that the row is of
        m.d.comb += [
            high.eq(read.data.depth + last.top),
            peak.eq(Mux(high > read.data.peak, high, read.data.peak)),
            write.en.eq(1),
            write.addr.eq(read.addr),
            write.data.depth.eq(read.data.depth + level),
            write.data.peak.eq(Mux(was_first, read.data.depth + top, peak)),
            keep.en.eq(was_first),
            keep.addr.eq(read.addr),
            keep.data.depth.eq(read.data.depth + last.level),
            keep.data.peak.eq(peak),
            shown.addr.eq(self.tenant),
            self.depth.eq(shown.data.depth),
            self.peak.eq(shown.data.peak),
        ]
        self._sample(m, Cat(read.addr, was_bank), was_first, write.data.depth, held, bank)

    def _sample(self, m, place, first, depth, held, bank):
        """Adds `depth` to the row at `place`; the first round of a window replaces what was there."""
        m.submodules.samples = store = memory.Memory(
            shape=Samples, depth=2 << (self._config.tenants - 1).bit_length(), init=[])
        write = store.write_port()
        before, shown = store.read_port(transparent_for=(write,)), store.read_port()
        seen, was_held, fresh = Signal.like(depth), Signal(), Signal()
        m.d.sync += [
            seen.eq(depth),
            was_held.eq(held),
            fresh.eq(first),
            write.addr.eq(before.addr),
            write.en.eq(1),
        ]
        base, total = Signal(Samples), Signal(37)
        m.d.comb += [
            before.addr.eq(place),
            base.eq(Mux(fresh, 0, before.data.as_value())),
            total.eq(base.depth + seen),
            write.data.count.eq(base.count + 1),
            write.data.depth.eq(Mux(total[36], (1 << 36) - 1, total[:36])),
            write.data.held.eq(base.held + was_held),
            shown.addr.eq(Cat(self.tenant, ~bank)),
            self.sampled.eq(shown.data),
        ]

    def _starved(self, m):
        """Tenants that had no credit in all cycles of the span that ended last."""
        tenants = self._config.tenants
        cycle = Signal(range(SPAN))
        whole, starved = Signal(tenants, init=-1), Signal(tenants)
        m.d.sync += [cycle.eq(cycle + 1), whole.eq(whole & ~self.credit)]
        with m.If(cycle == SPAN - 1):
            m.d.sync += [whole.eq(-1), starved.eq(whole & ~self.credit)]
        return starved

    def _decode(self, m, events, name):
        """One bit a tenant for each port."""
        masks = []
        for port, event in enumerate(events):
            mask = Signal(self._config.tenants, name=f"{name}_{port}")
            m.d.comb += mask.eq(event.valid << event.tenant)
            masks.append(mask)
        return masks


def _number(bits):
    """How many of them are set, by tables of four: a carry chain for each pair is several times as large."""
    fours = [bits[at:at + 4] for at in range(0, len(bits), 4)]
    return sum((Array(C(index.bit_count(), 3) for index in range(1 << len(four)))[four] for four in fours), C(0))
