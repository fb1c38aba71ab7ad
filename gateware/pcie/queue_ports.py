"""The fabric's side of the host queues: `QueueSender` and `QueueReceiver`, each with room for one packet.

Between a packet port, which must not wait for host memory, and DMA, which may fail half way, lies a whole packet: what
is offered to the fabric is complete, and what the fabric delivers is taken at once if the place is free. Neither is
touched by a function reset, so that a packet is never cut off.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import CREDIT_BEATS, MAX_PACKET_BEATS, DeviceConfig
from ..stream.packet import PacketHeader, PacketSignature

__all__ = ["QueueReceiver", "QueueSender"]


class QueueSender(wiring.Component):
    """Sends the packet in its buffer.

    Ports: `write`: beats, into the buffer from `clear` on; `start`, while not `busy`: send `header.length` bytes of
    them with `header`. A header is offered one cycle later, a beat each two cycles. At most `CREDIT_BEATS` beats.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "clear": In(1), "write": In(stream.Signature(config.data_width, always_ready=True)),
            "header": In(PacketHeader), "start": In(1), "busy": Out(1),
            "packets": Out(PacketSignature(config)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.beats = beats = Memory(shape=unsigned(config.data_width), depth=CREDIT_BEATS, init=[])
        store, fetch = beats.write_port(), beats.read_port()
        filled, place, left = Signal(range(CREDIT_BEATS)), Signal(range(CREDIT_BEATS)), Signal(13)
        offered, header, payload = Signal(), self.packets.header, self.packets.data.payload
        m.d.comb += [
            store.addr.eq(filled), store.data.eq(self.write.payload), store.en.eq(self.write.valid),
            fetch.addr.eq(place),
            header.valid.eq(offered),
            payload.data.eq(fetch.data), payload.last.eq(left <= config.beat_bytes),
            payload.empty.eq(Mux(payload.last, config.beat_bytes - left, 0)),
        ]
        with m.If(self.clear):
            m.d.sync += filled.eq(0)
        with m.Elif(self.write.valid):
            m.d.sync += filled.eq(filled + 1)
        with m.If(header.valid & header.ready):
            m.d.sync += offered.eq(0)
        with m.FSM():
            with m.State("idle"):
                m.d.sync += [place.eq(0), left.eq(self.header.length)]
                with m.If(self.start):
                    m.d.sync += [offered.eq(1), header.payload.eq(self.header)]
                    m.next = "look up"
            with m.State("look up"):
                m.d.comb += self.busy.eq(1)
                m.next = "send"
            with m.State("send"):
                # The last beat waits for the header.
                m.d.comb += [self.busy.eq(1), self.packets.data.valid.eq(~payload.last | ~offered | header.ready)]
                with m.If(self.packets.data.valid & self.packets.data.ready):
                    m.d.sync += [place.eq(place + 1), left.eq(left - config.beat_bytes)]
                    m.next = "look up"
                    with m.If(payload.last):
                        m.next = "idle"
        return m


class QueueReceiver(wiring.Component):
    """Takes packets of tenants with a queue; those of others pass on as `others`, with one cycle more.

    Ports: `full`: the packet of `tenant`, of `length` bytes, is in the buffer until `release`. `row` looks a beat up,
    which is `beat` in the next cycle.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "packets": In(PacketSignature(config)), "others": Out(PacketSignature(config)),
            "enabled": In(config.tenants), "full": Out(1), "tenant": Out(6), "length": Out(12), "release": In(1),
            "row": In(range(MAX_PACKET_BEATS)), "beat": Out(config.data_width),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.beats = beats = Memory(shape=unsigned(self._config.data_width), depth=MAX_PACKET_BEATS, init=[])
        store, fetch = beats.write_port(), beats.read_port()
        header, data = self.packets.header, self.packets.data
        place, sent = Signal(range(MAX_PACKET_BEATS)), Signal()
        m.d.comb += [
            fetch.addr.eq(self.row), self.beat.eq(fetch.data),
            store.addr.eq(place), store.data.eq(data.payload.data),
            self.others.header.payload.eq(header.payload), self.others.data.payload.eq(data.payload),
        ]
        with m.FSM():
            with m.State("choose"):
                m.d.sync += [place.eq(0), sent.eq(0)]
                with m.If(header.valid):
                    m.next = "pass"
                    with m.If(self.enabled.bit_select(header.payload.tenant, 1)):
                        m.d.sync += [self.tenant.eq(header.payload.tenant), self.length.eq(header.payload.length)]
                        m.d.comb += header.ready.eq(1)
                        m.next = "fill"
            with m.State("fill"):
                m.d.comb += [data.ready.eq(1), store.en.eq(data.valid)]
                with m.If(data.valid):
                    m.d.sync += place.eq(place + 1)
                    with m.If(data.payload.last):
                        m.next = "full"
            with m.State("full"):
                m.d.comb += self.full.eq(1)
                with m.If(self.release):
                    m.next = "choose"
            with m.State("pass"):
                held = data.payload.last & ~sent & ~self.others.header.ready
                m.d.comb += [
                    self.others.header.valid.eq(header.valid & ~sent),
                    header.ready.eq(self.others.header.ready & ~sent),
                    self.others.data.valid.eq(data.valid & ~held),
                    data.ready.eq(self.others.data.ready & ~held),
                ]
                with m.If(header.valid & header.ready):
                    m.d.sync += sent.eq(1)
                with m.If(data.valid & data.ready & data.payload.last):
                    m.next = "choose"
        return m
