"""Traffic generator and checker: packets of a known pattern into the host port, and a monitor of what returns.

Contract: while enabled, a packet starts every `interval` cycles (or as soon as the one before was accepted)
until `count` were sent; each carries the flow hash `FLOW_HASH` and the pattern of `pattern.py`. Settings are
taken at the start of a packet; a length outside 16..`max_packet_bytes` is cut to these limits. `returned` only
watches: its `ready` outputs are always high, and a transfer is counted when its `valid` is. A packet back with
the same tenant, flow hash and class is `received`; `corrupted` if its length or any byte differs from the
pattern of the sequence number that it carries; `missequenced` if that number is not the one after the last
packet's. `clear` zeroes the counters and restarts both sequences: use it when nothing is in flight.
"""

from amaranth import *
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from ..stream.packet import PacketHeader, PacketSignature
from .pattern import FLOW_HASH, PatternSource

__all__ = ["Checker", "Generator", "Sender"]

SHORTEST = 16


class Sender(wiring.Component):
    """Sends the packets. `begin` asks for one; it is `idle` in between; `sent` strobes at each last beat."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "packets": Out(PacketSignature(config)),
            "header": In(PacketHeader),
            "sequence": In(24),
            "begin": In(1),
            "idle": Out(1),
            "sent": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.pattern = pattern = PatternSource(config)
        header, beats = self.packets.header, self.packets.data
        length, sequence = Signal(12), Signal(24)
        left = Signal(12)  # bytes from the current beat to the end
        m.d.comb += length.eq(
            Mux(self.header.length < SHORTEST, SHORTEST,
                Mux(self.header.length > config.max_packet_bytes, config.max_packet_bytes, self.header.length)))

        finished = beats.valid & beats.ready & beats.payload.last
        m.d.comb += [
            self.idle.eq(~header.valid & (~beats.valid | finished)),
            self.sent.eq(finished),
            pattern.tenant.eq(header.payload.tenant),
            pattern.sequence.eq(sequence),
            pattern.restart.eq(self.idle),
            pattern.advance.eq(beats.valid & beats.ready),
            beats.payload.data.eq(pattern.data),
            beats.payload.last.eq(left <= config.beat_bytes),
            beats.payload.empty.eq(Mux(beats.payload.last, config.beat_bytes - left, 0)),
        ]
        with m.If(header.ready):
            m.d.sync += header.valid.eq(0)
        with m.If(beats.valid & beats.ready):
            m.d.sync += [left.eq(left - config.beat_bytes), beats.valid.eq(~beats.payload.last)]
        with m.If(self.begin & self.idle):
            m.d.sync += [
                header.valid.eq(1),
                header.payload.eq(self.header),
                header.payload.length.eq(length),
                beats.valid.eq(1),
                left.eq(length),
                sequence.eq(self.sequence),
            ]
        return m


class Checker(wiring.Component):
    """Watches transfers of a packet port. Strobes: `received`, and with it `corrupted` and `missequenced`.

    Header and beats of a packet pass in any order relative to each other, so both sides are queued (4 deep) and
    judged as a pair.
    """

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "returned": In(PacketSignature(config)),
            "tenant": In(6),
            "flow_class": In(4),
            "clear": In(1),
            "received": Out(1),
            "corrupted": Out(1),
            "missequenced": Out(1),
        })

    def _watch_beats(self, m):
        """Compare each beat with the pattern; return a queue of (matches, bytes, sequence), one a packet."""
        config, beats = self._config, self.returned.data
        m.submodules.pattern = pattern = PatternSource(config)
        verdict = data.StructLayout({"matches": 1, "length": 13, "sequence": 24})
        m.submodules.verdicts = verdicts = fifo.SyncFIFOBuffered(width=verdict.size, depth=4)

        # The sequence number is in bytes 5..7: in the first beat, or with 32-bit beats in the second, and the
        # first then holds its copy in the sector number.
        first, matches, length, held = Signal(init=1), Signal(init=1), Signal(13), Signal(24)
        place = 40 if config.data_width >= 64 else 0
        sequence = Mux(first, beats.payload.data[place:place + 24], held)
        used = config.beat_bytes - beats.payload.empty
        same = Cat((beats.payload.data.word_select(byte, 8) == pattern.data.word_select(byte, 8)) | (used <= byte)
                   for byte in range(config.beat_bytes)).all()
        m.d.comb += [
            beats.ready.eq(1),
            pattern.tenant.eq(self.tenant),
            pattern.sequence.eq(sequence),
            pattern.advance.eq(beats.valid),
            pattern.restart.eq(beats.valid & beats.payload.last),
            verdicts.w_en.eq(beats.valid & beats.payload.last),
            verdicts.w_data.eq(Cat(matches & same, (length + used)[:13], sequence)),
        ]
        with m.If(beats.valid):
            m.d.sync += [first.eq(0), held.eq(sequence), matches.eq(matches & same), length.eq(length + used)]
            with m.If(beats.payload.last):
                m.d.sync += [first.eq(1), matches.eq(1), length.eq(0)]
        return verdicts, data.View(verdict, verdicts.r_data)

    def elaborate(self, platform):
        m = Module()
        verdicts, verdict = self._watch_beats(m)
        header = self.returned.header
        m.submodules.headers = headers = fifo.SyncFIFOBuffered(width=Shape.cast(PacketHeader).width, depth=4)
        m.d.comb += [
            header.ready.eq(1),
            headers.w_en.eq(header.valid),
            headers.w_data.eq(header.payload),
        ]
        packet = PacketHeader(headers.r_data)
        both, ours = Signal(), Signal()
        expected = Signal(24)
        m.d.comb += [
            both.eq(headers.r_rdy & verdicts.r_rdy),
            headers.r_en.eq(both),
            verdicts.r_en.eq(both),
            ours.eq((packet.tenant == self.tenant) & (packet.flow_hash == FLOW_HASH)
                    & (packet.flow_class.as_value() == self.flow_class)),
            self.received.eq(both & ours),
            self.corrupted.eq(self.received & (~verdict.matches | (verdict.length != packet.length))),
            self.missequenced.eq(self.received & (verdict.sequence != expected)),
        ]
        with m.If(self.clear):
            m.d.sync += expected.eq(0)
        with m.Elif(self.received):
            m.d.sync += expected.eq(verdict.sequence + 1)
        return m


class Generator(wiring.Component):
    """Registers, pacing, `Sender` and `Checker`."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "bus": In(CsrSignature(16)),
            "cycle": In(64),
            "packets": Out(PacketSignature(config)),
            "returned": In(PacketSignature(config)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = RegisterBlock(("generator",))
        m.submodules.sender = sender = Sender(self._config)
        m.submodules.checker = checker = Checker(self._config)
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        wiring.connect(m, sender.packets, wiring.flipped(self.packets))
        wiring.connect(m, wiring.flipped(self.returned), checker.returned)

        started, wait, clear = Signal(32), Signal(32), registers.generator_control_clear
        enough = (registers.generator_count_packets != 0) & (started >= registers.generator_count_packets)
        m.d.comb += [
            sender.begin.eq(registers.generator_control_enable & ~clear & ~enough & (wait == 0)),
            sender.sequence.eq(started),
            sender.header.tenant.eq(registers.generator_packet_tenant),
            sender.header.destination.eq(registers.generator_packet_destination),
            sender.header.flow_class.eq(registers.generator_packet_flow_class),
            sender.header.length.eq(registers.generator_packet_length),
            sender.header.flow_hash.eq(FLOW_HASH),
            sender.header.timestamp.eq(self.cycle[:32]),
            checker.tenant.eq(registers.generator_packet_tenant),
            checker.flow_class.eq(registers.generator_packet_flow_class),
            checker.clear.eq(clear),
        ]
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.If(clear):
            m.d.sync += [started.eq(0), wait.eq(0)]
        with m.Elif(sender.begin & sender.idle):
            interval = registers.generator_interval_cycles
            m.d.sync += [started.eq(started + 1), wait.eq(Mux(interval == 0, 0, interval - 1))]
        for name, strobe in (("sent", sender.sent), ("received", checker.received),
                             ("corrupted", checker.corrupted), ("missequenced", checker.missequenced)):
            counter = Signal(32, name=name)
            m.d.sync += counter.eq(Mux(clear, 0, counter + strobe))
            m.d.comb += getattr(registers, f"generator_{name}_value").eq(counter)
        return m
