"""The boundary of a shard: what any shard looks like to the engine slot that it is loaded in.

Contract of a shard:

- `request` is a packet port whose header stream also carries the request's `tag` in its tenant's order. Requests
  follow each other; the header of the one at work stands until the shard takes it, and it takes it in the cycle in
  which its work ends, with the last beat or later.
- It offers exactly one `Answer` for each request in the cycle after it took the header, with tenant and tag copied, and
  holds it until it is taken. It may work on the next request meanwhile.
- `kind` is constant: what is loaded.
- It may be reset at any time while it offers no answer; it then forgets the request at work.
"""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import PacketHeader, beat_layout

__all__ = ["COST_BITS", "Answer", "ShardId", "ShardSignature", "Status", "TaggedPacketSignature", "outstanding_limit",
           "tag_shape"]

#: Bits of a service time in cycles; a longer one is accounted as the largest number.
COST_BITS = 16


class ShardId(enum.Enum, shape=unsigned(8)):
    """What is loaded in a slot."""

    NONE = 0
    CRC32C = 1


class Status(enum.Enum, shape=unsigned(8)):
    """Byte 12 of a response."""

    OK = 0
    NO_SLOT = 1
    TIMEOUT = 2


def outstanding_limit(config: DeviceConfig) -> int:
    """Requests of one tenant that can be in the engine array, unsent responses included: a power of two.

    Two a slot keep all slots at work; the others go on with a tenant's requests while one of them takes long.
    """
    return max(32, 1 << (2 * config.slots + 7).bit_length())


def tag_shape(config: DeviceConfig) -> Shape:
    """Number of a request in its tenant's order, modulo twice the limit: the upper bit tells one turn from the next."""
    return unsigned(outstanding_limit(config).bit_length())


def Answer(config: DeviceConfig) -> data.StructLayout:
    """Layout of what a shard says about one request."""
    return data.StructLayout({
        "tenant": 6,
        "tag": tag_shape(config),
        "result": 32,
        "status": Status,
        "shard": ShardId,
    })


class TaggedPacketSignature(wiring.Signature):
    """A packet port inside the engine array.

    tag: place in the tenant's order. price: what the tenant was charged in advance (see `accounts`).
    """

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "header": Out(stream.Signature(data.StructLayout({
                "packet": PacketHeader,
                "tag": tag_shape(config),
                "price": COST_BITS,
            }))),
            "data": Out(stream.Signature(beat_layout(config))),
        })


class ShardSignature(wiring.Signature):
    """A shard, seen from its slot."""

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "request": Out(TaggedPacketSignature(config)),
            "answers": In(stream.Signature(Answer(config))),
            "kind": In(ShardId),
        })
