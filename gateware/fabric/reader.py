"""Reader: turns the grants of one output into beats, packets back to back, from the crosspoints of its column.

Contract: a granted tenant's next packet is picked from an input at which one waits, inputs of a tenant in turn; a
grant for which no packet is left is taken and forgotten. Packets come out whole, in the order of the grants: `beat`
while `valid`, `first` and `header` with the first one; `take` moves on. The first beat of a picked packet is out four
cycles after its grant is offered; beats, and packets, follow each other without a pause. `charge` says, once a packet,
after its header was read, what it costs; `open` are the tenants of picked packets whose charge the scheduler does not
see in the flags of the shaper yet.

Stages: *next* (a packet is picked and its descriptor is being read), *current* (its beats are being addressed), *read*
(a beat is coming out of the memory; with the first one the header is known, so the packet's length), *out*. What is
behind *next* moves together, when the beat in *out* is taken or there is none.
"""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, PAGE_BEATS, DeviceConfig
from ..stream.packet import PacketHeader, beat_layout
from .crosspoint import STORED, ReadSignature, stored_header
from .scheduler import grant_layout, number_of
from .shaper import SHOWN

__all__ = ["Reader"]


class Reader(wiring.Component):
    """Reading side of output number `port`."""

    def __init__(self, config: DeviceConfig, port: int):
        if not 0 <= port < config.ports:
            raise ValueError(f"port must be in 0..{config.ports - 1}, not {port!r}")
        self._config = config
        self._port = port
        self._position = data.StructLayout({"page": range(config.pages), "offset": range(PAGE_BEATS)})
        # Behind a beat: its page, the offset of the next one, and whether that is on another page.
        self._behind = data.StructLayout({**self._position.members, "full": 1})
        super().__init__({
            "crosspoints": Out(ReadSignature(config)).array(config.ports),
            "grant": In(stream.Signature(grant_layout(config))),
            "void": Out(1),
            "open": Out(config.tenants),
            "charge": Out(1),
            "tenant": Out(range(config.tenants)),
            "beats": Out(range(MAX_PACKET_BEATS + 1)),
            "valid": Out(1),
            "first": Out(1),
            "header": Out(PacketHeader),
            "beat": Out(beat_layout(config)),
            "take": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        key = data.StructLayout({"tenant": range(config.tenants), "source": range(config.ports)})
        # A packet in *next*: which queue, and how its first beat is found; see `chain`.
        self.next = Signal(data.StructLayout({
            "valid": 1, "key": key, "mask": config.tenants, "fresh": 1, "skip": 1, "first": range(config.pages)}))
        # The packet in *current*: `at` is behind the beat that was addressed last.
        self.current = Signal(data.StructLayout({"key": key, "mask": config.tenants, "at": self._behind}))
        self.read = Signal(data.StructLayout({"valid": 1, "first": 1}))
        self.move, self.more = Signal(), Signal()
        begin, proceed = Signal(), Signal()
        m.d.comb += [
            self.move.eq(~self.valid | self.take),
            begin.eq(self.move & ~self.more & self.next.valid),
            proceed.eq(self.move & self.more),
        ]
        self._pick(m, begin)
        some_left = self._measure(m)
        self._address(m, begin, proceed)
        self._output(m)
        busy = some_left | (self.read.valid & self.read.first)
        for number, crosspoint in enumerate(self.crosspoints):
            m.d.comb += [
                crosspoint.move.eq(self.move),
                crosspoint.header_wanted.eq(self.next.key.source == number),
                crosspoint.beat_wanted.eq(self.current.key.source == number),
                crosspoint.held.eq(Cat(self.next.valid & (self.next.key.source == number),
                                       busy & (self.current.key.source == number))),
                crosspoint.held_tenant[0].eq(self.next.key.tenant),
                crosspoint.held_tenant[1].eq(self.current.key.tenant),
            ]
        return m

    def _pick(self, m, begin):
        """Takes a grant and claims a packet of the tenant, from its inputs in turn."""
        config, grant = self._config, self.grant
        m.submodules.turns = turns = memory.Memory(shape=range(config.ports), depth=config.tenants, init=[])
        turn, turn_write = turns.read_port(domain="comb"), turns.write_port()
        tenant = Signal(range(config.tenants))
        candidates, above = Signal(config.ports), Signal(config.ports)
        chosen = Signal(config.ports)   # one-hot: the lowest above the last one, else the lowest
        fire = Signal()
        m.d.comb += [
            tenant.eq(grant.payload.tenant),
            candidates.eq(Cat((crosspoint.ready & grant.payload.mask).any() for crosspoint in self.crosspoints)),
            turn.addr.eq(tenant),
            above.eq(candidates & ~((2 << turn.data) - 1)[:config.ports]),
            grant.ready.eq(~self.next.valid | begin),
            fire.eq(grant.valid & grant.ready),
            self.void.eq(fire & ~candidates.any()),
            turn_write.en.eq(fire & candidates.any()),
            turn_write.addr.eq(tenant),
            turn_write.data.eq(number_of(chosen)),
            chosen.eq(Cat(Mux(above.any(), above[number] & ~above[:number].any(),
                              candidates[number] & ~candidates[:number].any()) for number in range(config.ports))),
        ]
        with m.If(grant.ready):
            m.d.sync += self.next.valid.eq(turn_write.en)
        with m.If(fire):
            m.d.sync += [
                self.next.key.tenant.eq(tenant),
                self.next.key.source.eq(number_of(chosen)),
                self.next.mask.eq(grant.payload.mask),
                *(self.next[name].eq(reduce(or_, (Mux(mine, getattr(crosspoint, name), 0) for mine, crosspoint in zip(
                    chosen, self.crosspoints, strict=True)))) for name in ("fresh", "skip", "first")),
            ]
        for number, crosspoint in enumerate(self.crosspoints):
            m.d.comb += [
                crosspoint.tenant.eq(tenant),
                crosspoint.look.eq(fire),
                crosspoint.claim.eq(fire & chosen[number]),
            ]

    def _measure(self, m):
        """Whether the current packet has more beats to address: from its header while the first beat is read."""
        config = self._config
        header = Signal(stored_header(config))
        m.d.comb += header.as_value().eq(reduce(or_, (point.header.as_value() for point in self.crosspoints)))
        behind = Signal(range(MAX_PACKET_BEATS))   # beats behind the first
        left = Signal(range(MAX_PACKET_BEATS))
        left_now = Signal.like(left)
        some_left = Signal()                       # left.any()
        first = self.read.valid & self.read.first
        m.d.comb += [
            behind.eq(header.extent >> (config.beat_bytes.bit_length() - 1)),
            left_now.eq(Mux(first, behind, left)),
            self.more.eq(Mux(first, header.several, some_left)),
        ]
        charged = [Signal(config.tenants, name=f"charged_{age}") for age in range(SHOWN - 1)]
        m.d.sync += [
            self.charge.eq(first & self.move),
            *(older.eq(mask) for older, mask in zip(charged, [C(0, config.tenants), *charged], strict=False)),
        ]
        with m.If(self.move):
            m.d.sync += [left.eq(left_now - self.more), some_left.eq(left_now > 1)]
            with m.If(first):
                m.d.sync += [
                    charged[0].eq(self.current.mask),
                    self.tenant.eq(self.current.key.tenant),
                    self.beats.eq(behind + 1),
                    self.header.tenant.eq(self.current.key.tenant),
                    self.header.source.eq(self.current.key.source),
                    self.header.destination.eq(self._port),
                    self.header.length.eq(header.extent + 1),
                    *(getattr(self.header, name).eq(getattr(header, name)) for name in STORED),
                ]
        m.d.comb += self.open.eq(Mux(self.next.valid, self.next.mask, 0) | Mux(first, self.current.mask, 0)
                                 | reduce(or_, charged))
        return some_left

    def _address(self, m, begin, proceed):
        """Addresses one beat a cycle, and sends pages home that have been read."""
        config, following, current = self._config, self.next, self.current
        m.submodules.ends = ends = memory.Memory(shape=self._behind, depth=config.ports << len(following.key.tenant),
                                                 init=[])
        end, end_write = ends.read_port(domain="comb"), ends.write_port()
        before = Signal(self._behind)               # behind the last beat of the queue's packet before
        start, rest, address = (Signal(self._position, name=name) for name in ("start", "rest", "address"))
        link, follow = Signal(range(config.pages)), Signal(range(config.pages))
        full = Signal()
        m.d.comb += [
            end.addr.eq(following.key.as_value()),
            end_write.en.eq(begin),
            end_write.addr.eq(current.key.as_value()),
            end_write.data.eq(current.at),
            before.eq(Mux(following.key.as_value() == current.key.as_value(), current.at, end.data)),
            full.eq(before.full | following.skip),
            start.page.eq(Mux(following.fresh, following.first, Mux(full, link, before.page))),
            start.offset.eq(Mux(following.fresh | following.skip, 0, before.offset)),
            rest.page.eq(Mux(current.at.full, follow, current.at.page)),
            rest.offset.eq(current.at.offset),
            address.eq(Mux(self.more, rest, start)),
        ]
        for number, crosspoint in enumerate(self.crosspoints):
            begins_here = begin & (following.key.source == number)
            goes_on_here = proceed & (current.key.source == number)
            m.d.comb += [
                crosspoint.link_of.eq(before.page),
                crosspoint.follow_of.eq(current.at.page),
                crosspoint.read.eq(begins_here | goes_on_here),
                crosspoint.address.eq(Cat(address.offset, address.page)),
                crosspoint.free.eq((begins_here & full & ~following.fresh)
                                   | (goes_on_here & current.at.full)),
                crosspoint.freed_page.eq(Mux(self.more, current.at.page, before.page)),
                crosspoint.freed_tenant.eq(Mux(self.more, current.key.tenant, following.key.tenant)),
            ]
            with m.If(following.key.source == number):
                m.d.comb += link.eq(crosspoint.link)
            with m.If(current.key.source == number):
                m.d.comb += follow.eq(crosspoint.follow)
        with m.If(begin):
            m.d.sync += [current.key.eq(following.key), current.mask.eq(following.mask)]
        with m.If(begin | proceed):
            m.d.sync += [
                current.at.page.eq(address.page),
                current.at.offset.eq(address.offset + 1),
                current.at.full.eq(address.offset == PAGE_BEATS - 1),
            ]
        with m.If(self.move):
            m.d.sync += [self.read.valid.eq(begin | proceed), self.read.first.eq(begin)]

    def _output(self, m):
        """The beat that was read, of the crosspoint that it was read from."""
        m.d.comb += self.beat.as_value().eq(reduce(or_, (point.beat.as_value() for point in self.crosspoints)))
        with m.If(self.move):
            m.d.sync += [self.valid.eq(self.read.valid), self.first.eq(self.read.first)]
