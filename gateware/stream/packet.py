"""What travels through the device: beats, packet headers, and the packet port that pairs them.

A packet port carries two `amaranth.lib.stream`s: `data`, a beat a transfer, and `header`, one transfer a packet.

Contract of a packet port (ARCHITECTURE 3 and 3.1):

- A source offers the header of packet *n* no later than its first beat, and does not wait for `data.ready`
  before it offers the header. A sink may hold `data.ready` low until it has taken the header.
- Headers and packets are in the same order. A packet has 1 to 256 beats; `last` marks the final one, and only
  there `empty` (the number of unused most significant bytes) may be non-zero.
- `valid` does not fall and the payload does not change until the transfer (stream rules of Amaranth).
- Byte 0 of a packet is in the least significant byte of its first beat.
"""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import Out

from ..config import DeviceConfig

__all__ = ["PROCESS", "FlowClass", "Opcode", "PacketHeader", "PacketSignature", "RequestWord", "beat_layout"]

#: Destination of a packet that wants processing wherever its tenant has capacity: the fabric's admission
#: resolves it to the engine port or to the host port by the tenant's `host_share`.
PROCESS = 15


class FlowClass(enum.Enum, shape=unsigned(4)):
    """Traffic class; the upper bit says that the packet begins with a `RequestWord`."""

    BEST_EFFORT = 0
    LATENCY = 1
    BATCH = 2
    REALTIME = 3
    REQUEST = 8
    REQUEST_LATENCY = 9
    REQUEST_BATCH = 10
    RESPONSE = 12


class Opcode(enum.Enum, shape=unsigned(4)):
    """What a request packet asks for. A segment continues the request before it and is not counted as one."""

    SEGMENT = 0
    READ = 1
    WRITE = 2


class RequestWord(data.Struct):
    """First eight bytes of a packet whose class has the request bit.

    lba: first 512-byte sector of the request. sequence: counts the tenant's request packets modulo 2**24, so
    that a response is matched and a loss, duplication or reordering is seen.
    """

    lba: 36
    opcode: Opcode
    sequence: 24


class PacketHeader(data.Struct):
    """Header of one packet, 86 bits.

    `source` and `epoch` are stamped by the fabric at admission and ignored before it, but for the epoch of an engine's
    response, which is its request's. `length` is in bytes.
    `timestamp` is the low half of the device cycle counter: when the host posted the packet (host port), or when it was
    admitted (stamped by the fabric at every other port).
    """

    tenant: 6
    source: 4
    destination: 4
    epoch: 8
    length: 12
    flow_hash: 16
    flow_class: FlowClass
    timestamp: 32


def beat_layout(config: DeviceConfig) -> data.StructLayout:
    """Layout of one beat: `data`, `empty` (unused most significant bytes), `last`."""
    return data.StructLayout({
        "data": config.data_width,
        "empty": range(config.beat_bytes),
        "last": 1,
    })


class PacketSignature(wiring.Signature):
    """A packet port, seen from its source: `header` and `data` streams under the contract above."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "header": Out(stream.Signature(PacketHeader)),
            "data": Out(stream.Signature(beat_layout(config))),
        })

    @property
    def config(self) -> DeviceConfig:
        """Parameters of the device that this port belongs to."""
        return self._config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PacketSignature) and self._config.data_width == other._config.data_width

    def __repr__(self) -> str:
        return f"PacketSignature({self._config!r})"

