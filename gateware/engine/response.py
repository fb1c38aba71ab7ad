"""Response writer: turns a record of what an engine found into a response packet.

Contract: each transfer on `records` becomes one packet of `RESPONSE_BYTES` bytes on `response`: bytes 0..7 the
request's first eight (zero where it was shorter), 8..11 the result, 12 status, 13 shard id, 14..15 zero. The record is
taken with the packet's last beat; header and first beat are offered in the cycle in which the record is.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import FlowClass, PacketSignature
from .shard import ShardId, Status

__all__ = ["RESPONSE_BYTES", "Record", "ResponseWriter"]

RESPONSE_BYTES = 16


class Record(data.Struct):
    """One answered request."""

    tenant: 6
    destination: 4
    epoch: 8
    flow_hash: 16
    request_word: 64
    result: 32
    status: Status
    shard: ShardId


class ResponseWriter(wiring.Component):
    """Cuts a record into beats."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        self._beats = max(1, RESPONSE_BYTES // config.beat_bytes)
        super().__init__({
            "records": In(stream.Signature(Record)),
            "response": Out(PacketSignature(config)),
        })

    def elaborate(self, platform):
        m = Module()
        record = self.records.payload
        header, beats = self.response.header, self.response.data
        header_sent = Signal()
        beat = Signal(range(max(self._beats, 2)))
        payload = Cat(record.request_word, record.result, record.status, record.shard, C(0, 16))
        last = beat == self._beats - 1
        # The last beat waits for the header, so that a packet never ends before its header went.
        held = last & ~(header_sent | header.ready)
        m.d.comb += [
            header.valid.eq(self.records.valid & ~header_sent),
            header.payload.tenant.eq(record.tenant),
            header.payload.destination.eq(record.destination),
            header.payload.epoch.eq(record.epoch),
            header.payload.flow_hash.eq(record.flow_hash),
            header.payload.flow_class.eq(FlowClass.RESPONSE),
            header.payload.length.eq(RESPONSE_BYTES),
            beats.valid.eq(self.records.valid & ~held),
            beats.payload.data.eq(payload.word_select(beat, self._config.data_width) if self._beats > 1 else payload),
            beats.payload.last.eq(last),
            beats.payload.empty.eq(max(0, self._config.beat_bytes - RESPONSE_BYTES)),
            self.records.ready.eq(beats.valid & beats.ready & last),
        ]
        with m.If(header.valid & header.ready):
            m.d.sync += header_sent.eq(1)
        with m.If(beats.valid & beats.ready):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))
            with m.If(last):
                m.d.sync += header_sent.eq(0)
        return m
