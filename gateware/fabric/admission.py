"""Admission: decides at one fabric input, packet by packet, and writes what it admits into the crosspoints.

Contract: a packet is granted iff its tenant exists and has weight, the (resolved) destination's bit is in the
tenant's `ports`, and 1 <= length <= 256 beats; to the engines also only if this input's bit is, for that is where the
answer will go. An answer (class `RESPONSE`, from the engines) travels under grant and epoch of its request, which is
the epoch that its header brings: no commit in between can refuse it. An admitted packet's pages are reserved for the
whole packet in the cycle in which its first beat is stored. Row and epoch are those of the bank that is active in that
cycle, which is the second after header and first beat were offered at the earliest. Beats are stored one a cycle,
packets without a pause between.

What is not granted is consumed entirely and reported as `drop`. If only pages are missing, a network port drops
as well; the host's and the engines' port wait (`stalled`). A packet that no release of pages could make fit
under the active table (longer than quota and shared pool together) is dropped at every port: waiting for it
would block the port for ever.

A malformed packet cannot harm others. The packet is as long as its header says: beats beyond that are discarded, a
packet whose `last` comes early is filled up with zeros at a beat a cycle, and `empty` of the final beat follows from
the header. Both were granted, so neither is a `drop`.

Latency counts from `timestamp`, which the host's queues set when a packet is posted: the wait for credit belongs to
the service. Other ports' packets have waited nowhere and are stamped here.

`pending`: tenants whose headers are offered or not yet decided on, so that the page account does not count them yet.

`PROCESS` resolves to the host or the engines: each admitted one adds `host_share` to an 8-bit accumulator of its
tenant at this input, and those that overflow it go to the host. Responses (class bit 2) also begin with a
request word but are not reported as `request`.
"""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..manager.allocation import AllocationSignature
from ..stream.packet import PacketHeader, PacketSignature, beat_layout
from ..stream.skid import SkidBuffer
from .account import BookingSignature
from .chain import WriteSignature
from .decision import Decision
from .events import IngressEventSignature
from .place import placement_layout

__all__ = ["Admission"]


class _State(enum.Enum, shape=unsigned(2)):
    """Between packets; storing an admitted one; filling up one that ended early; discarding what is left of one."""

    DECIDE = 0
    STORE = 1
    FILL = 2
    DISCARD = 3


class Admission(wiring.Component):
    """Input number `port` of the fabric."""

    def __init__(self, config: DeviceConfig, port: int):
        if not 0 <= port < config.ports:
            raise ValueError(f"port must be in 0..{config.ports - 1}, not {port!r}")
        self._config = config
        self._port = port
        super().__init__({
            "packets": In(PacketSignature(config)),
            "allocation": In(AllocationSignature(config)),
            "cycle": In(64),
            "bookings": Out(BookingSignature(config)).array(config.ports),
            "crosspoints": Out(WriteSignature(config)).array(config.ports),
            "ingress": Out(IngressEventSignature(config)),
            "pending": Out(config.tenants),
        })

    @property
    def port(self) -> int:
        """Number of this input."""
        return self._port

    @property
    def drops_without_pages(self) -> bool:
        """Network ports drop what does not fit; the others wait."""
        return self._port in self._config.net_ports

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.decision = self.decision = Decision(config, self._port,
                                                         drops_without_pages=self.drops_without_pages)
        m.submodules.skid = self.skid = SkidBuffer(beat_layout(config))
        wiring.connect(m, wiring.flipped(self.packets.data), self.skid.i)
        wiring.connect(m, wiring.flipped(self.packets.header), self.decision.headers)
        wiring.connect(m, wiring.flipped(self.allocation), self.decision.allocation)
        for booking, crosspoint in zip(self.bookings, self.decision.crosspoints, strict=True):
            wiring.connect(m, crosspoint, wiring.flipped(booking))

        state = Signal(_State)
        header = self._stamp(m)
        self._store(m, state, header)
        self._advance(m, state)
        self._report(m, header)
        m.d.comb += self.pending.eq(self.decision.pending)
        return m

    def _stamp(self, m):
        """Header of the packet that is decided on, as it would be admitted."""
        config = self._config
        header = Signal(PacketHeader)
        m.d.comb += [
            header.eq(self.decision.header),
            header.source.eq(self._port),
            header.epoch.eq(Mux(self.decision.answer, self.decision.header.epoch, self.allocation.epoch)),
        ]
        if self._port != config.host_port:
            m.d.comb += header.timestamp.eq(self.cycle[:32])
        return header

    def _store(self, m, state, header):
        """Shows every crosspoint the packet under way; the one it goes to writes its beats."""
        config, decision, beat = self._config, self.decision, self.skid.o.payload
        self.first = first = Signal()
        self.taken = taken = Signal()   # the beat at hand is stored
        write = Signal()
        self.end = end = Signal()
        final = Signal()                # just one
        self.left = left = Signal(range(MAX_PACKET_BEATS + 1))   # beats still to come, behind the first
        held, placed, destination = Signal(PacketHeader), Signal(placement_layout()), Signal(config.ports)
        current, current_placed = Signal(PacketHeader), Signal(placement_layout())
        stored = Signal(beat_layout(config))
        m.d.comb += [
            first.eq(state == _State.DECIDE),
            decision.now.eq(first & self.skid.o.valid),
            decision.soon.eq(((state == _State.STORE) | (state == _State.FILL)) & final),
            taken.eq(decision.admit | ((state == _State.STORE) & self.skid.o.valid)),
            write.eq(taken | (state == _State.FILL)),
            end.eq(Mux(first, decision.single, final)),
            current.eq(Mux(first, header, held)),
            current_placed.eq(Mux(first, decision.placed, placed)),
            stored.data.eq(Mux(state == _State.FILL, 0, beat.data)),
            stored.empty.eq(Mux(end, -current.length, 0)),
            stored.last.eq(end),
        ]
        with m.If(first):
            m.d.sync += [held.eq(header), placed.eq(decision.placed), destination.eq(decision.here),
                         left.eq(decision.behind), final.eq(decision.behind == 1)]
        with m.Elif(write):
            m.d.sync += [left.eq(left - 1), final.eq(left == 2)]
        for crosspoint, here in zip(self.crosspoints, Mux(first, decision.here, destination), strict=True):
            m.d.comb += [
                # A first beat is put before it is known whether it counts; but not for a tenant that has no place here:
                # one that does not exist would be given another's, by its number cut to the width of a table.
                crosspoint.put.eq(here & (decision.granted | (state == _State.STORE) | (state == _State.FILL))),
                crosspoint.write.eq(here & write),
                crosspoint.first.eq(first),
                crosspoint.end.eq(end),
                crosspoint.tenant.eq(current.tenant),
                crosspoint.placed.eq(current_placed),
                crosspoint.beat.eq(stored),
                crosspoint.header.eq(current),
            ]
        self._report_request(m, current)

    def _advance(self, m, state):
        """What comes after the beat at hand."""
        beat, decision = self.skid.o, self.decision
        taken = self.taken
        m.d.comb += beat.ready.eq(taken | decision.drop | (state == _State.DISCARD))
        with m.If(taken):
            with m.If(self.end):
                m.d.sync += state.eq(Mux(beat.payload.last, _State.DECIDE, _State.DISCARD))
            with m.Else():
                m.d.sync += state.eq(Mux(beat.payload.last, _State.FILL, _State.STORE))
        with m.Elif(state == _State.FILL):
            with m.If(self.end):
                m.d.sync += state.eq(_State.DECIDE)
        with m.Elif(decision.drop | ((state == _State.DISCARD) & beat.valid)):
            m.d.sync += state.eq(Mux(beat.payload.last, _State.DECIDE, _State.DISCARD))

    def _report(self, m, header):
        """Events of the decision."""
        m.d.comb += [
            self.ingress.admit.eq(self.decision.admit),
            self.ingress.drop.eq(self.decision.drop),
            self.ingress.header.eq(header),
            self.ingress.stalled.eq(self.decision.wait),
            self.ingress.stalled_tenant.eq(header.tenant),
        ]

    def _report_request(self, m, header):
        """The first eight bytes of an admitted request, when they are there."""
        width = self._config.data_width
        flow_class = header.flow_class.as_value()
        event, beat = self.ingress, self.skid.o.payload
        data = beat.data
        m.d.comb += event.request_tenant.eq(header.tenant)
        if width >= 64:
            word, complete, enough = data[:64], self.first, beat.last & (beat.empty > width // 8 - 8)
            enough = ~enough & (header.length >= 8)
        else:
            low, second = Signal(width), Signal()
            with m.If(self.taken):
                m.d.sync += [low.eq(data), second.eq(self.first)]
            word, complete = Cat(low, data), second & ~self.first
            enough = ~(beat.last & (beat.empty != 0)) & (header.length >= 8)
        m.d.comb += [
            event.request.eq(self.taken & complete & enough & flow_class[3] & ~flow_class[2]),
            event.request_word.eq(word),
        ]
