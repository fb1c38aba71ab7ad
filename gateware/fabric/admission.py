"""Admission: decides at one fabric input, packet by packet, and writes what it admits into the crosspoints.

Contract: a packet is granted iff its tenant exists and has weight, the (resolved) destination's bit is in the
tenant's `ports`, and 1 <= length <= 256 beats; its pages are reserved for the whole packet at the header. Row
and epoch are those of the bank that is active in the cycle of the decision. First beat in to first beat stored:
3 cycles; one cycle passes between the last beat of a packet and the first of the next.

What is not granted is consumed entirely and reported as `drop`. If only pages are missing, a network port drops
as well; the host's and the engines' port wait (`stalled`). A packet that no release of pages could make fit
under the active table (longer than quota and shared pool together) is dropped at every port: waiting for it
would block the port for ever.

A malformed packet cannot harm others. Beats beyond the announced length are discarded and the packet ends where
its header says; a packet whose `last` comes early ends there, and its header leaves with the shorter length. Of
an announced length and `empty` that disagree within the last beat, the shorter wins. `admit` shows the length as
announced. Both were granted, so neither is a `drop`.

Latency counts from `timestamp`, which the host's queues set when a packet is posted: the wait for credit belongs to
the service. Other ports' packets have waited nowhere and are stamped here.

`pending`: a header is offered or not yet decided on, so that the page account does not count it yet.

`PROCESS` resolves to the host or the engines: each admitted one adds `host_share` to an 8-bit accumulator of its
tenant at this input, and those that overflow it go to the host. Responses (class bit 2) also begin with a
request word but are not reported as `request`.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, PAGE_BEATS, DeviceConfig
from ..manager.allocation import AllocationSignature
from ..stream.packet import PROCESS, PacketHeader, PacketSignature, beat_layout
from ..stream.skid import SkidBuffer
from .crosspoint import WriteSignature
from .events import IngressEventSignature
from .rows import Rows

__all__ = ["Admission"]


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
            "crosspoints": Out(WriteSignature(config)).array(config.ports),
            "ingress": Out(IngressEventSignature(config)),
            "pending": Out(1),
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
        m.submodules.rows = self.rows = Rows(config, ["weight", "ports", "pages", "host_share"])
        wiring.connect(m, wiring.flipped(self.allocation), self.rows.allocation)
        m.submodules.skid = skid = SkidBuffer(beat_layout(config))
        wiring.connect(m, wiring.flipped(self.packets.data), skid.i)
        self.beat, self.beat_valid, self.beat_ready = skid.o.payload, skid.o.valid, skid.o.ready

        consider = Signal()  # a decision may be made in this cycle
        decided = Signal()
        ask = self._look_up(m, decided)
        answer = self._ask(m, ask)
        admit, drop, wait = (Signal(name=name) for name in ("admit", "drop", "wait"))
        usable = consider & ask.fresh
        refuse = ~ask.granted | ask.hopeless
        if self.drops_without_pages:
            short_of_pages = drop
        else:
            short_of_pages = wait
        with m.If(usable & refuse):
            m.d.comb += drop.eq(1)
        with m.Elif(usable & ~answer.hold):
            with m.If(answer.fits):
                m.d.comb += admit.eq(1)
            with m.Else():
                m.d.comb += short_of_pages.eq(1)
        m.d.comb += decided.eq(admit | drop)

        header = self._stamp(m, ask, admit)
        self._report(m, header, admit, drop, wait)
        self._move(m, ask, header, consider, admit, drop)
        return m

    def _look_up(self, m, decided):
        """Holds the next header and, a cycle later, its tenant's row and resolved destination."""
        config = self._config
        incoming = self.packets.header
        held = Signal()
        header = Signal(PacketHeader)
        m.d.comb += [
            incoming.ready.eq(~held | decided),
            self.pending.eq(incoming.valid | held),
        ]
        with m.If(incoming.ready):
            m.d.sync += [held.eq(incoming.valid), header.eq(incoming.payload)]

        row = self.rows.rows[0]
        self.accumulators = memory.Memory(shape=8, depth=config.tenants, init=[])
        m.submodules.accumulators = self.accumulators
        accumulator = self.accumulators.read_port(domain="comb")
        total = Signal(10)
        m.d.comb += [
            self.rows.tenants[0].eq(header.tenant),
            accumulator.addr.eq(header.tenant),
            total.eq(accumulator.data + row.host_share),
        ]
        process = header.destination == PROCESS
        resolved = Signal(4)
        m.d.comb += resolved.eq(header.destination)
        with m.If(process):
            m.d.comb += resolved.eq(Mux(total >= 256, config.host_port, config.engine_port))

        # Everything that the decision needs, from registers, of one and the same cycle: refreshed in every cycle
        # until the decision, and not used in the first cycle of a new epoch.
        ask = _Ask(config)
        beats = Signal(range(MAX_PACKET_BEATS * 16 + 1))
        shift = config.beat_bytes.bit_length() - 1
        m.d.comb += beats.eq((header.length + config.beat_bytes - 1) >> shift)
        looked_up = Signal()
        epoch = Signal(8)
        m.d.sync += [
            looked_up.eq(held & ~decided),
            epoch.eq(self.allocation.epoch),
            ask.header.eq(header),
            ask.header.destination.eq(resolved),
            ask.beats.eq(beats),
            ask.quota.eq(row.pages),
            ask.process.eq(process),
            ask.total.eq(total),
            ask.granted.eq((header.tenant < config.tenants) & (row.weight != 0)
                           & (resolved < config.ports) & row.ports.bit_select(resolved, 1)
                           & (beats != 0) & (beats <= MAX_PACKET_BEATS)),
            ask.hopeless.eq(((beats + PAGE_BEATS - 1) >> 4) > row.pages + self._shared_pages(m)),
        ]
        m.d.comb += ask.fresh.eq(looked_up & (epoch == self.allocation.epoch))
        return ask

    def _shared_pages(self, m):
        """Pages of a crosspoint that the active table guarantees to nobody."""
        shared = Signal(range(self._config.pages + 1))
        with m.If(self.allocation.sum_pages <= self._config.pages):
            m.d.comb += shared.eq(self._config.pages - self.allocation.sum_pages)
        return shared

    def _ask(self, m, ask):
        """Asks every crosspoint of the row; returns the answer of the destination's."""
        answer = _Answer()
        for number, crosspoint in enumerate(self.crosspoints):
            m.d.comb += [
                crosspoint.tenant.eq(ask.header.tenant),
                crosspoint.beats.eq(ask.beats),
                crosspoint.quota.eq(ask.quota),
            ]
            with m.If(ask.header.destination == number):
                m.d.comb += [answer.fits.eq(crosspoint.fits), answer.hold.eq(crosspoint.hold)]
        return answer

    def _stamp(self, m, ask, admit):
        """Header of the packet as admitted; counts `PROCESS` packets."""
        config = self._config
        header = Signal(PacketHeader)
        m.d.comb += [
            header.eq(ask.header),
            header.source.eq(self._port),
            header.epoch.eq(self.allocation.epoch),
        ]
        if self._port != config.host_port:
            m.d.comb += header.timestamp.eq(self.cycle[:32])
        write = self.accumulators.write_port()
        m.d.comb += [
            write.en.eq(admit & ask.process),
            write.addr.eq(ask.header.tenant),
            write.data.eq(ask.total),
        ]
        return header

    def _move(self, m, ask, header, consider, admit, drop):
        """Carries the beats of the packet under way to its crosspoint, or nowhere."""
        config = self._config
        stored = Signal(PacketHeader)
        left = Signal(range(MAX_PACKET_BEATS + 1))   # announced beats that are still to come
        target = Signal(config.ports)
        write, end = Signal(), Signal()

        # A packet ends at its `last` or at its announced length, and the final beat's `empty` is the larger of
        # the two claims, so that header and beats of what is stored always agree.
        announced_empty = Signal(range(config.beat_bytes))
        claimed_empty = Signal(range(config.beat_bytes))
        empty = Signal(range(config.beat_bytes))
        sent = Signal(range(MAX_PACKET_BEATS + 1))
        stored_length = Signal(13)
        m.d.comb += [
            announced_empty.eq(Mux(left == 1, -stored.length, 0)),
            claimed_empty.eq(Mux(self.beat.last, self.beat.empty, 0)),
            empty.eq(Mux(announced_empty > claimed_empty, announced_empty, claimed_empty)),
            stored_length.eq((sent + 1) * config.beat_bytes - empty),
            end.eq(self.beat.last | (left == 1)),
        ]
        for number, crosspoint in enumerate(self.crosspoints):
            m.d.comb += [
                crosspoint.reserve.eq(admit & (ask.header.destination == number)),
                crosspoint.write.eq(write & target[number]),
                crosspoint.end.eq(end),
                crosspoint.beat.data.eq(self.beat.data),
                crosspoint.beat.empty.eq(Mux(end, empty, 0)),
                crosspoint.beat.last.eq(end),
                crosspoint.header.eq(stored),
                crosspoint.header.length.eq(stored_length),
            ]

        self._report_request(m, stored, sent, write, ~end | (stored_length >= 8))
        with m.FSM():
            # Between packets: the header at hand is decided on.
            with m.State("DECIDE"):
                m.d.comb += consider.eq(1)
                m.d.sync += [stored.eq(header), left.eq(ask.beats), sent.eq(0),
                             target.eq(1 << header.destination)]
                with m.If(admit):
                    m.next = "STORE"
                with m.If(drop):
                    m.next = "DISCARD"
            # An admitted packet's beats go to its crosspoint, which has reserved a place for each.
            with m.State("STORE"):
                m.d.comb += [self.beat_ready.eq(1), write.eq(self.beat_valid)]
                with m.If(write):
                    m.d.sync += [left.eq(left - 1), sent.eq(sent + 1)]
                    with m.If(end):
                        m.next = "DECIDE"
                        with m.If(~self.beat.last):
                            m.next = "DISCARD"
            # The rest of a refused or overlong packet goes nowhere.
            with m.State("DISCARD"):
                m.d.comb += self.beat_ready.eq(1)
                with m.If(self.beat_valid & self.beat.last):
                    m.next = "DECIDE"

    def _report(self, m, header, admit, drop, wait):
        """Events of the decision."""
        m.d.comb += [
            self.ingress.admit.eq(admit),
            self.ingress.drop.eq(drop),
            self.ingress.header.eq(header),
            self.ingress.stalled.eq(wait),
            self.ingress.stalled_tenant.eq(header.tenant),
        ]

    def _report_request(self, m, header, sent, write, enough):
        """The first eight bytes of an admitted request, when they are there."""
        width = self._config.data_width
        flow_class = header.flow_class.as_value()
        event = self.ingress
        m.d.comb += event.request_tenant.eq(header.tenant)
        if width >= 64:
            word = self.beat.data[:64]
            complete = write & (sent == 0)
        else:
            low = Signal(width)
            with m.If(write):
                m.d.sync += low.eq(self.beat.data)
            word = Cat(low, self.beat.data)
            complete = write & (sent == 1)
        m.d.comb += [
            event.request.eq(complete & enough & flow_class[3] & ~flow_class[2]),
            event.request_word.eq(word),
        ]


class _Ask:
    """Registers of one question: what the decision is about."""

    def __init__(self, config):
        self.header = Signal(PacketHeader, name="ask_header")
        self.beats = Signal(range(MAX_PACKET_BEATS * 16 + 1), name="ask_beats")
        self.quota = Signal(16, name="ask_quota")
        self.process = Signal(name="ask_process")
        self.total = Signal(10, name="ask_total")
        self.granted = Signal(name="ask_granted")
        self.hopeless = Signal(name="ask_hopeless")
        self.fresh = Signal(name="ask_fresh")


class _Answer:
    """What the destination's crosspoint says."""

    def __init__(self):
        self.fits = Signal(name="answer_fits")
        self.hold = Signal(name="answer_hold")
