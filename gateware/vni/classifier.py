"""Ingress classifier: network frames become packets of a tenant, by port, VLAN or destination MAC address.

Contract: each good frame of `frames[i]` (net port i, fabric port `config.net_ports[i]`) becomes one packet on
`packets[i]`, unchanged and in order, with the header fields that the first matching entry of the register block
`classifier` gives; without a match it is tenant 0's, to the host port, best effort (the state after reset).
`flow_hash` is described in `fields.py`. Frames shorter than 14 bytes or longer than the largest packet are
discarded whole and counted in `discarded[i]`, modulo 2**32. Store and forward; latency is about five cycles
from the last beat; frames of 16 beats and more pass at line rate on every port at once. An entry that changes
applies to frames looked up from the next cycle on; disable an entry before its key is changed.
"""

from amaranth import *
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from ..stream.packet import PacketSignature, beat_layout
from .fields import Fields, FrameFields
from .framebuffer import FrameBuffer
from .matcher import Action, MatchTable

__all__ = ["Classifier"]


class PortClassifier(wiring.Component):
    """One port: buffer, fields, and the joining of header parts. The match table is shared outside."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "frames": In(stream.Signature(beat_layout(config))),
            "packets": Out(PacketSignature(config)),
            "lookup": Out(stream.Signature(Fields)),
            "answer": In(stream.Signature(Action)),
            "discarded": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer = buffer = FrameBuffer(self._config)
        m.submodules.fields = fields = FrameFields(self._config)
        # As many places as the buffer has for lengths: what was announced always finds one.
        width = Shape.cast(Fields).width
        m.submodules.waiting = waiting = fifo.SyncFIFOBuffered(width=width, depth=32)
        m.submodules.hashes = hashes = fifo.SyncFIFOBuffered(width=16, depth=32)
        wiring.connect(m, wiring.flipped(self.frames), buffer.frames)

        whole = Signal()
        m.d.sync += whole.eq(buffer.whole)
        m.d.comb += [
            fields.beat.eq(buffer.frames.payload),
            fields.take.eq(buffer.taken),
            self.discarded.eq(buffer.discarded),
            waiting.w_data.eq(fields.fields),
            waiting.w_en.eq(whole),
            self.lookup.payload.eq(waiting.r_data),
            self.lookup.valid.eq(waiting.r_rdy),
            waiting.r_en.eq(self.lookup.valid & self.lookup.ready),
            hashes.w_data.eq(fields.flow_hash),
            hashes.w_en.eq(whole),
        ]
        header, lengths, answer = self.packets.header, buffer.lengths, self.answer
        taken = header.valid & header.ready

        # Headers taken minus packets that left: a header may be one packet ahead of the beats; the beats may
        # pass an offered header, but not begin the next packet before it was taken.
        ahead = Signal(signed(3))
        beats = self.packets.data
        may_go = (ahead > 0) | ((ahead == 0) & header.valid)
        ends = beats.valid & beats.ready & beats.payload.last
        m.d.sync += ahead.eq(ahead + taken - ends)
        m.d.comb += [
            beats.payload.eq(buffer.beats.payload),
            beats.valid.eq(buffer.beats.valid & may_go),
            buffer.beats.ready.eq(beats.ready & may_go),
            header.valid.eq(answer.valid & lengths.valid & hashes.r_rdy & (ahead < 2)),
            header.payload.tenant.eq(answer.payload.tenant),
            header.payload.destination.eq(answer.payload.destination),
            header.payload.flow_class.eq(answer.payload.flow_class),
            header.payload.length.eq(lengths.payload),
            header.payload.flow_hash.eq(hashes.r_data),
            answer.ready.eq(taken),
            lengths.ready.eq(taken),
            hashes.r_en.eq(taken),
        ]
        return m


class Classifier(wiring.Component):
    """All network ports, the shared match table and its registers."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        count = len(config.net_ports)
        super().__init__({
            "bus": In(CsrSignature(16)),
            "frames": In(stream.Signature(beat_layout(config))).array(count),
            "packets": Out(PacketSignature(config)).array(count),
            "discarded": Out(32).array(count),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.registers = registers = RegisterBlock({"classifier": config.classifier_entries})
        m.submodules.table = table = MatchTable(config)
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        for index, entry in enumerate(table.entries):
            for name in ("enable", "kind", "port", "tenant", "destination", "flow_class"):
                m.d.comb += getattr(entry, name).eq(getattr(registers, f"classifier_{index}_action_{name}"))
            m.d.comb += [
                entry.key_lo.eq(getattr(registers, f"classifier_{index}_key_lo_key")),
                entry.key_hi.eq(getattr(registers, f"classifier_{index}_key_hi_key")),
            ]
        for index in range(len(self.frames)):
            m.submodules[f"port_{index}"] = port = PortClassifier(config)
            wiring.connect(m, wiring.flipped(self.frames[index]), port.frames)
            wiring.connect(m, port.packets, wiring.flipped(self.packets[index]))
            wiring.connect(m, port.lookup, table.lookups[index])
            wiring.connect(m, table.answers[index], port.answer)
            discarded = self.discarded[index]
            m.d.sync += discarded.eq(discarded + port.discarded)
        return m
