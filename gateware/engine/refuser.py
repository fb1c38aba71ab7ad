"""Refuser: answers the requests of tenants for which no engine slot exists.

Contract: a shard (see `shard.py`) that does nothing: it takes a beat a cycle and answers each request with status
`NO_SLOT` and result 0.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ..config import DeviceConfig
from .shard import ShardId, ShardSignature, Status

__all__ = ["Refuser"]


class Refuser(wiring.Component):
    """Says no."""

    def __init__(self, config: DeviceConfig):
        super().__init__({"slot": In(ShardSignature(config))})

    def elaborate(self, platform):
        m = Module()
        slot = self.slot
        header, beats, answers = slot.request.header, slot.request.data, slot.answers
        free = ~answers.valid | answers.ready
        m.d.comb += [
            slot.kind.eq(ShardId.NONE),
            beats.ready.eq(header.valid & free),
            header.ready.eq(beats.valid & beats.ready & beats.payload.last),
        ]
        with m.If(free):
            m.d.sync += answers.valid.eq(header.valid & header.ready)
        with m.If(header.valid & header.ready):
            m.d.sync += [
                answers.payload.tenant.eq(header.payload.packet.tenant),
                answers.payload.tag.eq(header.payload.tag),
                answers.payload.status.eq(Status.NO_SLOT),
                answers.payload.shard.eq(ShardId.NONE),
            ]
        return m
