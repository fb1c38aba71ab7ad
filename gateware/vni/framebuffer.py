"""Store and forward of network frames: holds frames until their header is known, and drops bad ones whole.

Contract: a frame's beats are written as they come; with its last beat the frame either becomes whole and is
announced on `lengths` (one transfer a frame, in order) or is discarded without a trace, when it is shorter than
`shortest` or longer than the largest packet (`discarded` strobes). The beats of whole frames are offered on
`beats` from two cycles after the last one was taken, in order and without gaps. The buffer holds twice the
largest packet, so that a frame of any legal length is written while another one leaves; `frames.ready` is low
only while it is full.
"""

from amaranth import *
from amaranth.lib import fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_PACKET_BEATS, DeviceConfig
from ..stream.packet import beat_layout

__all__ = ["FrameBuffer"]

DEPTH = 2 * MAX_PACKET_BEATS
WHOLE_FRAMES = 32


class FrameBuffer(wiring.Component):
    """Buffer of one port. `taken` is high when `frames` transfers a beat; `whole` when it ends a good frame."""

    def __init__(self, config: DeviceConfig, shortest: int = 14):
        if not 1 <= shortest <= config.max_packet_bytes:
            raise ValueError(f"shortest must be in 1..{config.max_packet_bytes}, not {shortest!r}")
        self._config = config
        self._shortest = shortest
        super().__init__({
            "frames": In(stream.Signature(beat_layout(config))),
            "beats": Out(stream.Signature(beat_layout(config))),
            "lengths": Out(stream.Signature(12)),
            "taken": Out(1),
            "whole": Out(1),
            "discarded": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config, beat = self._config, self.frames.payload
        m.submodules.store = store = memory.Memory(shape=beat_layout(config), depth=DEPTH, init=[])
        m.submodules.lengths = lengths = fifo.SyncFIFOBuffered(width=12, depth=WHOLE_FRAMES)
        write_port, read_port = store.write_port(), store.read_port()

        # Pointers carry one bit more than an address: equal is empty, apart by DEPTH is full. What lies between
        # `committed` and `write` is the frame that is still coming in.
        width = DEPTH.bit_length()
        write, committed, read = Signal(width), Signal(width), Signal(width)

        before = Signal(range(config.max_packet_bytes + config.beat_bytes + 1))  # bytes, saturating
        total = Signal(range(config.max_packet_bytes + 2 * config.beat_bytes + 1))
        too_long, good = Signal(), Signal()
        m.d.comb += [
            self.frames.ready.eq(((write - read)[:width] != DEPTH) & lengths.w_rdy),
            self.taken.eq(self.frames.valid & self.frames.ready),
            total.eq(before + config.beat_bytes - Mux(beat.last, beat.empty, 0)),
            too_long.eq(total > config.max_packet_bytes),
            good.eq(~too_long & (total >= self._shortest)),
            self.whole.eq(self.taken & beat.last & good),
            self.discarded.eq(self.taken & beat.last & ~good),
            write_port.addr.eq(write[:-1]),
            write_port.data.eq(beat),
            write_port.en.eq(self.taken & ~too_long),
            lengths.w_data.eq(total),
            lengths.w_en.eq(self.whole),
            self.lengths.payload.eq(lengths.r_data),
            self.lengths.valid.eq(lengths.r_rdy),
            lengths.r_en.eq(self.lengths.ready),
        ]
        with m.If(self.taken):
            with m.If(self.whole):
                m.d.sync += [write.eq(write + 1), committed.eq(write + 1)]
            with m.Elif(beat.last):
                m.d.sync += write.eq(committed)
            with m.Elif(~too_long):
                m.d.sync += write.eq(write + 1)
            # Once too long, it stays too long whatever still comes.
            m.d.sync += before.eq(Mux(beat.last, 0, Mux(too_long, config.max_packet_bytes + 1, total)))
        self._read_side(m, read_port, read, committed)
        return m

    def _read_side(self, m, port, read, committed):
        """Offer the committed beats; the memory's output register is the one that the stream shows."""
        beats = self.beats
        free = ~beats.valid | beats.ready
        m.d.comb += [
            port.addr.eq(read[:-1]),
            port.en.eq(free),
            beats.payload.eq(port.data),
        ]
        with m.If(free):
            m.d.sync += beats.valid.eq(read != committed)
            with m.If(read != committed):
                m.d.sync += read.eq(read + 1)
