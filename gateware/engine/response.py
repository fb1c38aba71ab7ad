"""Response writer: turns the result of a shard into a response packet.

Contract: each transfer on `answers` becomes one packet of `RESPONSE_BYTES` bytes on `response`, in order, its
header at least as early as its first beat. `answers.ready` is high while one of four places is free; the first
beat follows its header by one cycle. `empty` is high when nothing waits to leave.
"""

from amaranth import *
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import FlowClass
from .slot import RESPONSE_BYTES, ShardId, Status, TaggedPacketSignature, tag_width

__all__ = ["Answer", "ResponseWriter"]

PLACES = 4


def Answer(config: DeviceConfig) -> data.StructLayout:
    """Layout of what a shard says about one request."""
    return data.StructLayout({
        "tenant": 6,
        "destination": 4,
        "flow_hash": 16,
        "tag": tag_width(config),
        "request_word": 64,
        "result": 32,
        "status": Status,
        "shard": ShardId,
    })


class ResponseWriter(wiring.Component):
    """Queue of answers, and the packet that each becomes."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        self._beats = max(1, RESPONSE_BYTES // config.beat_bytes)
        super().__init__({
            "answers": In(stream.Signature(Answer(config))),
            "response": Out(TaggedPacketSignature(config)),
            "empty": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        layout = Answer(self._config)
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=layout.size, depth=PLACES)
        answer = data.View(layout, queue.r_data)
        m.d.comb += [
            queue.w_data.eq(self.answers.payload),
            queue.w_en.eq(self.answers.valid),
            self.answers.ready.eq(queue.w_rdy),
            self.empty.eq(queue.level == 0),
        ]

        header, beats = self.response.header, self.response.data
        fields = header.payload.packet
        header_sent = Signal()
        beat = Signal(range(max(self._beats, 2)))
        payload = Cat(answer.request_word, answer.result, answer.status, answer.shard, C(0, 16))
        last = beat == self._beats - 1
        m.d.comb += [
            header.valid.eq(queue.r_rdy & ~header_sent),
            header.payload.tag.eq(answer.tag),
            fields.tenant.eq(answer.tenant),
            fields.destination.eq(answer.destination),
            fields.flow_hash.eq(answer.flow_hash),
            fields.flow_class.eq(FlowClass.RESPONSE),
            fields.length.eq(RESPONSE_BYTES),
            beats.valid.eq(queue.r_rdy & header_sent),
            beats.payload.data.eq(payload.word_select(beat, self._config.data_width)
                                  if self._beats > 1 else payload),
            beats.payload.last.eq(last),
            beats.payload.empty.eq(max(0, self._config.beat_bytes - RESPONSE_BYTES)),
            queue.r_en.eq(beats.valid & beats.ready & last),
        ]
        with m.If(header.valid & header.ready):
            m.d.sync += header_sent.eq(1)
        with m.If(beats.valid & beats.ready):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))
            with m.If(last):
                m.d.sync += header_sent.eq(0)
        return m
