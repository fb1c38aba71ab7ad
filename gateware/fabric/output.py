"""Output: serves one column of crosspoints, under weights and shapers, and cuts a stalled sink off.

Contract: store and forward; header and first beat of a packet are offered together. A complete packet in an idle
column is offered 6 cycles after its last beat was stored; packets follow each other without a pause. A tenant's
packets from one input leave in order; inputs of a tenant take turns. A tenant is granted a packet only while its
shaper holds a largest one for each of its packets whose length is not known yet.

When the port has waited for its sink for `stall_timeout` cycles (0: for ever), the packet in transfer and
those behind it are discarded, with `leave` and `cut`, until the sink takes something again. What the port
already offers stays offered, as streams demand (at most a beat and a header, of a packet that counts as left); a
packet that was cut after its first beat is closed by a zero beat with `last`, so that the sink stays in step and
sees a packet shorter than its header says. `leave` is high one cycle after the last beat was offered.

The engines' output grants only `engine.eligible` tenants, and while fewer than `engine.wanted` packets are on the way
there, from their grant to two cycles after their header's transfer: what the engines say has then taken that packet
into account. More come only when the engines were cut off as a stalled sink.
"""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..manager.allocation import AllocationSignature
from ..stream.packet import PacketHeader, PacketSignature, beat_layout
from ..stream.skid import ReadyBuffer
from .allowances import refill_layout
from .crosspoint import ReadSignature
from .events import EgressEventSignature, EngineFeedbackSignature
from .reader import Reader
from .scheduler import Scheduler
from .shaper import Shaper

__all__ = ["Output"]


class Output(wiring.Component):
    """Output number `port` of the fabric.

    refill: of `Allowances`. feedback: it is the engines', and has the port `engine`.
    """

    def __init__(self, config: DeviceConfig, port: int, *, feedback: bool = False):
        self._config = config
        self._port = port
        self._feedback = feedback
        super().__init__({
            "allocation": In(AllocationSignature(config)),
            "refill": In(refill_layout(config)),
            "cycle": In(64),
            "stall_timeout": In(32),
            "crosspoints": Out(ReadSignature(config)).array(config.ports),
            "packets": Out(PacketSignature(config)),
            "egress": Out(EgressEventSignature(config)),
            **({"engine": In(EngineFeedbackSignature(config))} if feedback else {}),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.scheduler = self.scheduler = Scheduler(config)
        m.submodules.shaper = self.shaper = Shaper(config)
        m.submodules.reader = self.reader = Reader(config, self._port)
        m.submodules.headers = self.headers = ReadyBuffer(PacketHeader)
        m.submodules.beats = self.beats = ReadyBuffer(beat_layout(config))
        wiring.connect(m, wiring.flipped(self.allocation), self.scheduler.allocation)
        for crosspoint, read in zip(self.crosspoints, self.reader.crosspoints, strict=True):
            wiring.connect(m, read, wiring.flipped(crosspoint))
        wiring.connect(m, self.scheduler.grant, self.reader.grant)
        wiring.connect(m, self.headers.o, wiring.flipped(self.packets.header))
        wiring.connect(m, self.beats.o, wiring.flipped(self.packets.data))

        cut = self._watch_sink(m)
        self._schedule(m, cut)
        self._transfer(m, cut)
        return m

    def _schedule(self, m, cut):
        """Who may be granted, and what it costs."""
        scheduler, shaper, reader = self.scheduler, self.shaper, self.reader
        waiting = reduce(or_, (crosspoint.ready for crosspoint in self.crosspoints))
        several = Signal(self._config.tenants)
        m.d.sync += several.eq(reduce(or_, (crosspoint.several for crosspoint in self.crosspoints)))
        m.d.comb += [
            scheduler.ready.eq(waiting & shaper.ok & (self.engine.eligible if self._feedback else ~0)),
            scheduler.charge.eq(reader.charge),
            scheduler.tenant.eq(reader.tenant),
            scheduler.cost.eq(reader.beats),
            scheduler.again.eq(shaper.ample),
            # A tenant's only packet is not granted twice, else the second grant finds none.
            scheduler.several.eq(several),
            scheduler.open.eq(reader.open),
            shaper.refill.eq(self.refill),
            shaper.charge.eq(reader.charge),
            shaper.tenant.eq(reader.tenant),
            shaper.beats.eq(reader.beats),
        ]
        if self._feedback:
            m.d.comb += scheduler.enable.eq((self._count_on_the_way(m) < self.engine.wanted) | cut)
            m.d.sync += self.engine.waiting.eq(waiting & shaper.ok)

    def _count_on_the_way(self, m):
        """Packets between their grant and two cycles after their header's transfer."""
        header = self.packets.header
        count = Signal(range(32))
        arrived = Signal()
        discarded = self.reader.take & self.reader.first & ~self.headers.i.valid
        m.d.sync += [
            arrived.eq(header.valid & header.ready),
            count.eq(count + self.scheduler.granted - self.reader.void - arrived - discarded),
        ]
        return count

    def _watch_sink(self, m):
        """High from the time-out of a stalled sink until it moves again."""
        cut = Signal()
        # Cycles that the sink has made the port wait, and two; is this the last one of its time?
        waited, is_last = Signal(33, init=2), Signal()
        blocked, moved = Signal(), Signal()
        for port in (self.packets.header, self.packets.data):
            with m.If(port.valid):
                with m.If(port.ready):
                    m.d.comb += moved.eq(1)
                with m.Else():
                    m.d.comb += blocked.eq(1)
        with m.If(moved | ~blocked):
            m.d.sync += [waited.eq(2), is_last.eq(self.stall_timeout <= 1), cut.eq(0)]
        with m.Elif(~cut & (self.stall_timeout != 0)):
            m.d.sync += [waited.eq(waited + 1), is_last.eq(waited >= self.stall_timeout)]
            with m.If(is_last):
                m.d.sync += cut.eq(1)
        return cut

    def _transfer(self, m, cut):
        """Moves beats from the reader to the port, or to nowhere."""
        reader = self.reader
        discards, unclosed = Signal(), Signal()   # the rest of the packet is discarded; its closing beat is to come
        send, last, drop = Signal(), Signal(), Signal()
        m.d.comb += [
            drop.eq(reader.valid & (cut | discards)),
            send.eq(reader.valid & ~drop & ~unclosed & self.beats.i.ready & (~reader.first | self.headers.i.ready)),
            reader.take.eq(send | drop),
            last.eq(reader.take & reader.beat.last),
            self.headers.i.payload.eq(reader.header),
            self.headers.i.valid.eq(send & reader.first),
            self.beats.i.payload.eq(reader.beat),
            self.beats.i.valid.eq(send),
        ]
        with m.If(drop):
            m.d.sync += discards.eq(~reader.beat.last)
            with m.If(~reader.first & ~discards):
                m.d.sync += unclosed.eq(1)

        # A cut packet's closing beat goes before anything of the next one.
        with m.If(unclosed):
            m.d.comb += [
                self.beats.i.valid.eq(1),
                self.beats.i.payload.eq(0),
                self.beats.i.payload.last.eq(1),
            ]
            with m.If(self.beats.i.ready):
                m.d.sync += unclosed.eq(0)

        m.d.sync += [
            self.egress.leave.eq(last),
            self.egress.cut.eq(last & drop),
            self.egress.header.eq(reader.header),
            self.egress.latency.eq(self.cycle[:32] - reader.header.timestamp),
        ]
