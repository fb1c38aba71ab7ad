"""Queue in front of a shard: takes whole packets at the fabric's rate, so that the slots work side by side.

Contract: a tagged packet port in and one out, order kept. `room` is the number of beats that the queue can take
without waiting, `accepts` says that a header can be taken; the dispatcher starts a packet only when all of it
fits, so a slow shard never holds up a packet for another one. Latency is two cycles. `empty` is high
when neither a header nor a beat is queued.
"""

from amaranth import *
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from .slot import QUEUED_REQUESTS, TaggedPacketSignature

__all__ = ["RequestQueue"]


class RequestQueue(wiring.Component):
    """One slot's queue of `QUEUED_REQUESTS` headers and one packet of the largest size."""

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "source": In(TaggedPacketSignature(config)),
            "sink": Out(TaggedPacketSignature(config)),
            "room": Out(range(MAX_PACKET_BEATS + 1)),
            "accepts": Out(1),
            "empty": Out(1),
        })

    def _stream_fifo(self, m, name, depth):
        """Put a FIFO between the streams `name` of source and sink; return it."""
        source, sink = getattr(self.source, name), getattr(self.sink, name)
        width = Shape.cast(source.payload.shape()).width
        m.submodules[name] = queue = fifo.SyncFIFOBuffered(width=width, depth=depth)
        m.d.comb += [
            queue.w_data.eq(source.payload),
            queue.w_en.eq(source.valid),
            source.ready.eq(queue.w_rdy),
            sink.payload.eq(queue.r_data),
            sink.valid.eq(queue.r_rdy),
            queue.r_en.eq(sink.ready),
        ]
        return queue

    def elaborate(self, platform):
        m = Module()
        headers = self._stream_fifo(m, "header", QUEUED_REQUESTS)
        beats = self._stream_fifo(m, "data", MAX_PACKET_BEATS)
        m.d.comb += [
            self.accepts.eq(headers.w_rdy),
            self.room.eq(MAX_PACKET_BEATS - beats.level),
            self.empty.eq((headers.level == 0) & (beats.level == 0)),
        ]
        return m
