"""What the fabric tells the resource manager and the workload analyzer, port by port, and what the engines tell it.

All events are single-cycle strobes without back-pressure: a consumer takes one of each kind a port and cycle. With
one-beat packets at line rate there is one of each kind in every cycle.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.packet import PacketHeader, RequestWord

__all__ = ["MOST_WANTED", "EgressEventSignature", "EngineFeedbackSignature", "IngressEventSignature"]

#: Packets that engines may have on the way: enough for one a cycle.
MOST_WANTED = 12


class IngressEventSignature(wiring.Signature):
    """Events at one fabric input, seen from the fabric.

    admit: one packet was admitted; `header` is as stamped (source, destination resolved, epoch, timestamp).
    drop: one packet of `header.tenant` was refused and discarded (no grant, or a network port without pages).
        `admit` and `drop` are never high together.
    request: high for one cycle when the first eight bytes of an *admitted* packet whose class has the request
        bit have arrived; `request_tenant` and `request_word` are valid with it.
    stalled: the packet at the head of this input waits for credit or pages; `stalled_tenant` is its tenant.
    """

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "admit": Out(1),
            "drop": Out(1),
            "header": Out(PacketHeader),
            "request": Out(1),
            "request_tenant": Out(range(config.tenants)),
            "request_word": Out(RequestWord),
            "stalled": Out(1),
            "stalled_tenant": Out(range(config.tenants)),
        })


class EgressEventSignature(wiring.Signature):
    """Events at one fabric output, seen from the fabric.

    leave: the last beat of the packet with `header` was transferred (or the packet was cut off, then `cut` is
        high too); `latency` is device cycles from the timestamp in the header, modulo 2**32.
    """

    def __init__(self, config: DeviceConfig):
        super().__init__({
            "leave": Out(1),
            "cut": Out(1),
            "header": Out(PacketHeader),
            "latency": Out(32),
        })


class EngineFeedbackSignature(wiring.Signature):
    """What the engines tell the scheduler of their column, seen from the engines, and what they hear of it.

    eligible: tenants that may be granted a packet now.
    wanted: how many packets may be on the way, from their grant to the second cycle after their header's transfer. So
        many may still come, of all tenants together, when `eligible` or `wanted` has fallen: keep that much room.
    waiting: tenants that have a packet here, and may send it as far as their shaper is concerned.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "eligible": Out(config.tenants, init=(1 << config.tenants) - 1),
            "wanted": Out(range(MOST_WANTED + 1), init=MOST_WANTED),
            "waiting": In(config.tenants),
        })

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EngineFeedbackSignature) and self._config == other._config

    def __repr__(self) -> str:
        return f"EngineFeedbackSignature({self._config!r})"
