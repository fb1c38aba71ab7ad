"""Stream detector: does a request continue one of its tenant's streams, sequentially or by a constant stride?

Contract: one request every second cycle (`ready` is low in the cycle after a transfer); two cycles after it `done`
strobes and `kind` is the answer. For each tenant its last `HORIZON` requests are remembered. The answer is, by the
newest remembered request that qualifies:

1. SEQUENTIAL if the sector lies 1 to `REACH` beyond one that nothing has continued yet (a request is at most
   128 KiB; its own length is not in the request word);
2. else STRIDED if it lies exactly as far from one that nothing has continued yet as that lay from its own
   predecessor;
3. else RANDOM; a remembered one within `SPAN` becomes the predecessor, so that the next may be STRIDED.

A stream is thus forgotten after `HORIZON` requests of its tenant without it, and a burst of random requests pushes out
nothing sooner: with as many places as the horizon is long there is nothing to replace. Sectors are compared modulo
2**SECTOR_BITS. State: 12 x 42 bits = 63 bytes a tenant.
"""

from amaranth import *
from amaranth.lib import data, enum, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig

__all__ = ["HORIZON", "REACH", "SECTOR_BITS", "SPAN", "Access", "Place", "StreamDetector"]

HORIZON = 12
REACH = 256
SECTOR_BITS = 26   # 32 GiB: two sectors taken for neighbours by mistake are rarer than 1 in 20,000 requests
SPAN_BITS = 14
SPAN = 1 << SPAN_BITS  # a stride lies in -SPAN .. SPAN - 1


class Access(enum.Enum, shape=unsigned(2)):
    """How a request relates to those before it."""

    RANDOM = 0
    SEQUENTIAL = 1
    STRIDED = 2


class Place(data.Struct):
    """A remembered request. open: nothing has continued it. stride: from its predecessor; 0: it has none."""

    open: 1
    sector: SECTOR_BITS
    stride: signed(SPAN_BITS + 1)


class _Match(data.Struct):
    """What one place says about the request at hand."""

    sequential: 1
    strided: 1
    near: 1
    distance: signed(SPAN_BITS + 1)


class StreamDetector(wiring.Component):
    """The table of all tenants, a row of `HORIZON` places each, newest first."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "valid": In(1),
            "ready": Out(1),
            "tenant": In(range(config.tenants)),
            "sector": In(36),
            "done": Out(1),
            "kind": Out(Access),
        })

    @property
    def state_bytes(self) -> float:
        """Bytes of state a tenant."""
        return HORIZON * Place.as_shape().size / 8

    def elaborate(self, platform):
        m = Module()
        m.submodules.table = table = memory.Memory(
            shape=data.ArrayLayout(Place, HORIZON), depth=self._config.tenants, init=[])
        write = table.write_port()
        read = table.read_port(transparent_for=(write,))
        tenant, sector = Signal.like(self.tenant), Signal(SECTOR_BITS)
        taken, matched = Signal(), Signal()
        m.d.comb += [
            self.ready.eq(~taken),
            read.addr.eq(self.tenant),
            read.en.eq(self.valid & self.ready),
        ]
        m.d.sync += [taken.eq(self.valid & self.ready), matched.eq(taken)]
        with m.If(self.valid & self.ready):
            m.d.sync += [tenant.eq(self.tenant), sector.eq(self.sector)]

        # Two cycles a request: all places are compared in the first, one of them is chosen in the second.
        matches = Signal(data.ArrayLayout(_Match, HORIZON))
        places = Signal(data.ArrayLayout(Place, HORIZON))
        m.d.sync += places.eq(read.data)
        for number in range(HORIZON):
            self._match(m, read.data[number], sector, matches[number], number)
        continued, stride = self._choose(m, places, matches)
        m.d.comb += [
            self.done.eq(matched),
            write.addr.eq(tenant),
            write.en.eq(matched),
            write.data[0].open.eq(1),
            write.data[0].sector.eq(sector),
            write.data[0].stride.eq(stride),
        ]
        for number in range(HORIZON - 1):
            older, newer = write.data[number + 1], places[number]
            m.d.comb += [
                older.open.eq(newer.open & ~continued[number]),
                older.sector.eq(newer.sector),
                older.stride.eq(newer.stride),
            ]
        return m

    def _match(self, m, place, sector, match, number):
        """Compares one place with the request, into the register `match`."""
        distance = Signal(signed(SECTOR_BITS), name=f"distance_{number}")
        sequential, repeated = Signal(name=f"sequential_{number}"), Signal(name=f"repeated_{number}")
        near = Signal(name=f"near_{number}")
        short = distance[:SPAN_BITS + 1].as_signed()
        m.d.comb += [
            distance.eq(sector - place.sector),
            sequential.eq((distance > 0) & (distance <= REACH)),
            repeated.eq(distance == 0),
            near.eq((distance >= -SPAN) & (distance < SPAN)),
        ]
        m.d.sync += [
            match.sequential.eq(place.open & sequential),
            match.strided.eq(place.open & near & (place.stride != 0) & (short == place.stride)),
            match.near.eq(place.open & near & ~sequential & ~repeated),
            match.distance.eq(short),
        ]

    def _choose(self, m, places, matches):
        """`kind`; which place is continued, one bit each; and the stride that the request is remembered with."""
        sequential = Signal(HORIZON)
        strided, near = Signal(HORIZON), Signal(HORIZON)
        m.d.comb += [
            sequential.eq(Cat(match.sequential for match in matches)),
            strided.eq(Cat(match.strided for match in matches)),
            near.eq(Cat(match.near for match in matches)),
        ]
        first = [mask & (~mask + 1) for mask in (sequential, strided, near)]  # the newest of each
        chosen = [Signal(HORIZON, name=f"chosen_{name}") for name in ("sequential", "strided", "near")]
        m.d.comb += [one.eq(mask) for one, mask in zip(chosen, first, strict=True)]
        continued = Signal(HORIZON)
        stride = Signal(signed(SPAN_BITS + 1))
        m.d.comb += self.kind.eq(Access.RANDOM)
        with m.If(sequential.any()):
            m.d.comb += [self.kind.eq(Access.SEQUENTIAL), continued.eq(chosen[0])]
        with m.Elif(strided.any()):
            m.d.comb += [self.kind.eq(Access.STRIDED), continued.eq(chosen[1])]
            m.d.comb += stride.eq(self._selected(chosen[1], [place.stride for place in places]))
        with m.Else():
            m.d.comb += stride.eq(self._selected(chosen[2], [match.distance for match in matches]))
        return continued, stride

    def _selected(self, choice, values):
        """The value whose bit in `choice` is set; 0 if none is."""
        total = Const(0, SPAN_BITS + 1)
        for bit, value in zip(choice, values, strict=True):
            total = total | Mux(bit, value.as_unsigned(), 0)
        return total.as_signed()
