"""The boundary of an engine slot: what any shard looks like to the engine array.

Contract of a slot:

- `request` is a packet port whose header stream also carries a `tag`. The slot answers every request packet with
  exactly one response packet on `response`, in the order of the requests, and copies the tag.
- `busy` is high while the shard works on a request of `tenant`; a request that waits in the queue in front
  of the shard does not count.
- While `quiesce` is high the array offers no new request; `drained` is then high once nothing of this slot is
  queued, at work, or waiting to leave.
- `shard` identifies what is loaded; `requests` and `busy_cycles` count since reset, modulo 2**32.
"""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import PacketHeader, beat_layout

__all__ = [
    "QUEUED_REQUESTS", "RESPONSE_BYTES", "ShardId", "SlotBusy", "SlotSignature", "Status", "TaggedPacketSignature",
    "tag_width",
]

#: Request headers that one slot's queue holds.
QUEUED_REQUESTS = 16

#: Bytes of a response: request word, result, status, shard, two zero bytes.
RESPONSE_BYTES = 16


class ShardId(enum.Enum, shape=unsigned(8)):
    """What is loaded in a slot."""

    NONE = 0
    CRC32C = 1


class Status(enum.Enum, shape=unsigned(8)):
    """Byte 12 of a response."""

    OK = 0
    NO_SLOT = 1


class SlotBusy(data.Struct):
    """One slot's work as the workload analyzer sees it, cycle by cycle."""

    busy: 1
    tenant: 6


def tag_width(config: DeviceConfig) -> int:
    """Bits of a tag: enough that two outstanding requests of one tenant never share one.

    A slot holds its queue, one request at work, and at most as many responses as its queue has places.
    """
    return (4 * QUEUED_REQUESTS * (config.slots + 1)).bit_length()


class TaggedPacketSignature(wiring.Signature):
    """A packet port whose header comes with the tag that keeps a tenant's responses in order."""

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "header": Out(stream.Signature(data.StructLayout({
                "packet": PacketHeader,
                "tag": tag_width(config),
            }))),
            "data": Out(stream.Signature(beat_layout(config))),
        })


class SlotSignature(wiring.Signature):
    """A slot, seen from the engine array."""

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "request": Out(TaggedPacketSignature(config)),
            "response": In(TaggedPacketSignature(config)),
            "quiesce": Out(1),
            "busy": In(SlotBusy),
            "drained": In(1),
            "shard": In(ShardId),
            "requests": In(32),
            "busy_cycles": In(32),
        })
