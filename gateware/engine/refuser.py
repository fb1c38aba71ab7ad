"""Refuser: answers the requests of tenants for which no engine slot exists.

Contract: a slot (see `slot.py`) with no shard in it. It takes a beat a cycle and answers each packet with
status `NO_SLOT`, result 0 and the request word, one cycle after its last beat.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ..config import DeviceConfig
from .response import Answer, ResponseWriter
from .slot import ShardId, SlotSignature, Status

__all__ = ["Refuser"]


class Refuser(wiring.Component):
    """Echoes the request word with the reason."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({"slot": In(SlotSignature(config))})

    def elaborate(self, platform):
        m = Module()
        config, slot = self._config, self.slot
        m.submodules.writer = writer = ResponseWriter(config)
        wiring.connect(m, writer.response, wiring.flipped(slot.response))

        header, beats = slot.request.header, slot.request.data
        beat = beats.payload
        answer, done = Signal(Answer(config)), Signal()
        m.d.comb += [
            writer.answers.valid.eq(done),
            writer.answers.payload.eq(answer),
            slot.shard.eq(ShardId.NONE),
            slot.drained.eq(slot.quiesce & writer.empty & ~done & ~header.valid),
        ]
        with m.If(writer.answers.ready):
            m.d.sync += done.eq(0)

        # Bytes beyond the end of a short packet are not the request's: they read as zero.
        masked = Signal(config.data_width)
        for byte in range(config.beat_bytes):
            m.d.comb += masked.word_select(byte, 8).eq(
                Mux(beat.last & (beat.empty >= config.beat_bytes - byte), 0, beat.data.word_select(byte, 8)))

        go = Signal()
        second, third = Signal(), Signal()  # beyond the first beat; beyond the second
        m.d.comb += [
            go.eq(header.valid & beats.valid & (~done | writer.answers.ready)),
            beats.ready.eq(go),
            header.ready.eq(go & beat.last),
        ]
        with m.If(go):
            m.d.sync += [
                second.eq(~beat.last),
                third.eq(~beat.last & second),
                done.eq(beat.last),
                answer.tenant.eq(header.payload.packet.tenant),
                answer.destination.eq(header.payload.packet.source),
                answer.flow_hash.eq(header.payload.packet.flow_hash),
                answer.tag.eq(header.payload.tag),
                answer.status.eq(Status.NO_SLOT),
                answer.shard.eq(ShardId.NONE),
            ]
            with m.If(~second):
                m.d.sync += answer.request_word.eq(masked)
            if config.data_width < 64:
                with m.Elif(~third):
                    m.d.sync += answer.request_word[config.data_width:].eq(masked)
        return m
