"""Output: serves one column of crosspoints, under weights and shapers, and cuts a stalled sink off.

Contract: store and forward; header and first beat of a packet are offered together. A complete packet in an idle
column is offered 4 cycles after its last beat was stored; one cycle passes between two packets.
A tenant's packets from one input leave in order; inputs of a tenant take turns.

When the port has waited for its sink for `stall_timeout` cycles (0: for ever), the packet in transfer and
those behind it are discarded, with `leave` and `cut`, until the sink takes something again. What the port
already offers stays offered, as streams demand (at most two beats and headers, of packets that count as left); a
packet that was cut after its first beat is closed by a zero beat with `last`, so that the sink stays in step and
sees a packet shorter than its header says. `leave` is high one cycle after the last beat went to the port's skid
buffer.
"""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..manager.allocation import AllocationSignature
from ..stream.packet import PacketHeader, PacketSignature, beat_layout
from ..stream.skid import SkidBuffer
from .crosspoint import ReadSignature
from .engine_scheduler import EngineScheduler
from .events import EgressEventSignature, EngineFeedbackSignature
from .scheduler import Scheduler
from .shaper import Shaper

__all__ = ["Output"]


class Output(wiring.Component):
    """One output of the fabric."""

    def __init__(self, config: DeviceConfig, *, engines: bool = False):
        self._config = config
        self._engines = engines
        feedback = {"engine": In(EngineFeedbackSignature(config))} if engines else {}
        super().__init__(feedback | {
            "allocation": In(AllocationSignature(config)),
            "cycle": In(64),
            "stall_timeout": In(32),
            "crosspoints": Out(ReadSignature(config)).array(config.ports),
            "packets": Out(PacketSignature(config)),
            "egress": Out(EgressEventSignature(config)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.scheduler = self.scheduler = (EngineScheduler if self._engines else Scheduler)(config)
        if self._engines:
            wiring.connect(m, wiring.flipped(self.engine), self.scheduler.engine)
        m.submodules.shaper = self.shaper = Shaper(config)
        m.submodules.headers = self.headers = SkidBuffer(PacketHeader)
        m.submodules.beats = self.beats = SkidBuffer(beat_layout(config))
        for part in (self.scheduler, self.shaper):
            wiring.connect(m, wiring.flipped(self.allocation), part.allocation)
        wiring.connect(m, self.headers.o, wiring.flipped(self.packets.header))
        wiring.connect(m, self.beats.o, wiring.flipped(self.packets.data))

        waiting = reduce(or_, (crosspoint.ready for crosspoint in self.crosspoints))
        m.d.comb += self.scheduler.ready.eq(waiting & self.shaper.ok)

        chosen, granted = self._choose_input(m)
        cut = self._watch_sink(m)
        self._transfer(m, chosen, granted, cut)
        return m

    def _choose_input(self, m):
        """Round robin among the inputs at which the granted tenant has a packet."""
        config = self._config
        tenant = self.scheduler.grant.payload
        m.submodules.turns = turns = memory.Memory(shape=range(config.ports), depth=config.tenants, init=[])
        read = turns.read_port(domain="comb")
        write = turns.write_port()
        candidates = Signal(config.ports)
        above = Signal(config.ports)
        chosen = Signal(range(config.ports))
        m.d.comb += [
            candidates.eq(Cat(crosspoint.ready.bit_select(tenant, 1) for crosspoint in self.crosspoints)),
            read.addr.eq(tenant),
            above.eq(candidates & ~((2 << read.data) - 1)[:config.ports]),
        ]
        for mask in (candidates, above):
            for number in reversed(range(config.ports)):
                with m.If(mask[number]):
                    m.d.comb += chosen.eq(number)
        taken = self.scheduler.grant.valid & self.scheduler.grant.ready
        m.d.comb += [write.en.eq(taken), write.addr.eq(tenant), write.data.eq(chosen)]
        return chosen, taken

    def _watch_sink(self, m):
        """High from the time-out of a stalled sink until it moves again."""
        cut = Signal()
        patience = Signal(32)
        blocked, moved = Signal(), Signal()
        for port in (self.packets.header, self.packets.data):
            with m.If(port.valid):
                with m.If(port.ready):
                    m.d.comb += moved.eq(1)
                with m.Else():
                    m.d.comb += blocked.eq(1)
        with m.If(moved | ~blocked):
            m.d.sync += [patience.eq(0), cut.eq(0)]
        with m.Elif(~cut & (self.stall_timeout != 0)):
            m.d.sync += patience.eq(patience + 1)
            with m.If(patience + 1 >= self.stall_timeout):
                m.d.sync += cut.eq(1)
        return cut

    def _transfer(self, m, chosen, granted, cut):
        """Moves the granted packet from its crosspoint to the port, or to nowhere."""
        config = self._config
        source = Signal(range(config.ports))
        tenant = Signal(range(config.tenants))
        take = Signal()
        header = Signal(PacketHeader)
        beat = Signal(beat_layout(config))
        for number, crosspoint in enumerate(self.crosspoints):
            m.d.comb += [
                crosspoint.start.eq(granted & (chosen == number)),
                crosspoint.tenant.eq(self.scheduler.grant.payload),
                crosspoint.take.eq(take & (source == number)),
            ]
            with m.If(source == number):
                m.d.comb += [header.eq(crosspoint.header), beat.eq(crosspoint.beat)]

        moving, fresh, first = Signal(), Signal(), Signal()
        discards, unclosed = Signal(), Signal()
        send, last = Signal(), Signal()
        m.d.comb += [
            self.scheduler.grant.ready.eq(~moving),
            last.eq(take & beat.last),
            self.headers.i.payload.eq(header),
            self.headers.i.valid.eq(send & first),
            self.beats.i.payload.eq(beat),
            self.beats.i.valid.eq(send),
        ]
        m.d.sync += fresh.eq(granted)
        with m.If(granted):
            m.d.sync += [source.eq(chosen), tenant.eq(self.scheduler.grant.payload),
                         moving.eq(1), first.eq(1), discards.eq(0)]
        with m.Elif(moving):
            with m.If(cut | discards):
                m.d.comb += take.eq(1)
                m.d.sync += discards.eq(1)
                with m.If(~first & ~discards):
                    m.d.sync += unclosed.eq(1)
            with m.Elif(~unclosed & self.beats.i.ready & (~first | self.headers.i.ready)):
                m.d.comb += [send.eq(1), take.eq(1)]
                m.d.sync += first.eq(0)
            with m.If(last):
                m.d.sync += moving.eq(0)

        # A cut packet's closing beat goes before anything of the next one.
        with m.If(unclosed):
            m.d.comb += [
                self.beats.i.valid.eq(1),
                self.beats.i.payload.eq(0),
                self.beats.i.payload.last.eq(1),
            ]
            with m.If(self.beats.i.ready):
                m.d.sync += unclosed.eq(0)

        self._account(m, header, tenant, fresh, last, cut | discards)

    def _account(self, m, header, tenant, fresh, last, cut):
        """Bills a packet in its first cycle, when its length is known, and reports its end."""
        config = self._config
        beats = Signal(range(MAX_PACKET_BEATS + 1))
        m.d.comb += [
            beats.eq((header.length + config.beat_bytes - 1) >> (config.beat_bytes.bit_length() - 1)),
            self.shaper.charge.eq(fresh),
            self.shaper.tenant.eq(tenant),
            self.shaper.beats.eq(beats),
        ]
        if not self._engines:
            m.d.comb += [self.scheduler.charge.eq(fresh), self.scheduler.beats.eq(beats)]
        m.d.sync += [
            self.egress.leave.eq(last),
            self.egress.cut.eq(last & cut),
            self.egress.header.eq(header),
            self.egress.latency.eq(self.cycle[:32] - header.timestamp),
        ]
