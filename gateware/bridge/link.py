"""`LinkBridge`: from the byte streams of a serial line to the register bus, by the framed link protocol.

Contract: `docs/reference/link-protocol.md`. Bytes on `rx` are always taken; what a line or a host does wrong is
answered or dropped and counted in the `link` registers, and never stops the link. Requests are carried out in
order, one bus access at a time, while their answer leaves; pushed windows stand between two answers. `tx` may
stall for any time: then requests wait in a buffer of 4 KiB, and windows are skipped. The telemetry stream is never
stalled. A request that arrives complete is begun about 8 cycles behind its last byte.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.registers import RegisterBlock
from ..stream.skid import SkidBuffer
from ..stream.telemetry import TELEMETRY_WORD
from .cobs import FRAME_BYTE
from .executor import Executor
from .framing import FrameDecoder, FrameEncoder
from .mux import MessageMux
from .receive import MessageBuffer
from .window import WindowPusher

__all__ = ["MAX_REQUEST_BYTES", "LinkBridge"]

MAX_REQUEST_BYTES = 512
_WINDOW_HEADER_WORDS = 8
_WINDOW_ROW_WORDS = 16


class LinkBridge(wiring.Component):
    """The link of one device."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "rx": In(stream.Signature(8)),
            "tx": Out(stream.Signature(8)),
            "bus": Out(CsrSignature(16)),
            "registers": In(CsrSignature(16)),
            "telemetry": In(stream.Signature(TELEMETRY_WORD)),
            "boot_nonce": In(32),
        })

    @property
    def config(self) -> DeviceConfig:
        """Parameters of the device that this link belongs to."""
        return self._config

    def elaborate(self, platform):
        m = Module()
        words = _WINDOW_HEADER_WORDS + _WINDOW_ROW_WORDS * self._config.tenants
        m.submodules.decoder = decoder = FrameDecoder(MAX_REQUEST_BYTES)
        m.submodules.buffer = buffer = MessageBuffer(max_bytes=MAX_REQUEST_BYTES)
        m.submodules.executor = executor = Executor(MAX_REQUEST_BYTES)
        m.submodules.pusher = pusher = WindowPusher(words)
        m.submodules.mux = mux = MessageMux(2)
        m.submodules.encoder = encoder = FrameEncoder()

        wiring.connect(m, wiring.flipped(self.rx), decoder.input)
        wiring.connect(m, decoder.output, buffer.input)
        self._connect_executor(m, buffer, executor)
        m.d.comb += [
            pusher.input.valid.eq(self.telemetry.valid),
            pusher.input.payload.eq(self.telemetry.payload),
            self.telemetry.ready.eq(1),
        ]
        wiring.connect(m, executor.output, mux.inputs[0])
        # What leaves a memory or the chooser is registered before the encoder looks at it.
        m.submodules.pushed = pushed = SkidBuffer(FRAME_BYTE)
        m.submodules.chosen = chosen = SkidBuffer(FRAME_BYTE)
        wiring.connect(m, pusher.output, pushed.i)
        wiring.connect(m, pushed.o, mux.inputs[1])
        wiring.connect(m, mux.output, chosen.i)
        wiring.connect(m, chosen.o, encoder.input)
        wiring.connect(m, encoder.output, wiring.flipped(self.tx))
        self._elaborate_registers(m, decoder, executor, pusher, encoder)
        return m

    def _connect_executor(self, m, buffer, executor):
        wiring.connect(m, buffer.output, executor.input)
        wiring.connect(m, executor.bus, wiring.flipped(self.bus))
        m.d.comb += [
            executor.present.eq(buffer.present),
            executor.corrupt.eq(buffer.corrupt),
            executor.remaining.eq(buffer.remaining),
            buffer.rewind.eq(executor.rewind),
            buffer.release.eq(executor.release),
            executor.boot_nonce.eq(self.boot_nonce),
        ]

    def _elaborate_registers(self, m, decoder, executor, pusher, encoder):
        m.submodules.block = block = RegisterBlock(["link"])
        wiring.connect(m, wiring.flipped(self.registers), block.bus)
        token = decoder.output
        events = {
            "frames_received": token.valid & token.payload.end & ~token.payload.error,
            "frames_sent": encoder.sent,
            "crc_errors": decoder.crc_error,
            "framing_errors": decoder.framing_error | executor.unknown,
            "repeats": executor.repeat,
            "bus_errors": self.bus.valid & self.bus.ready & self.bus.error,
        }
        for name, event in events.items():
            counter = Signal(32, name=name)
            m.d.sync += counter.eq(counter + event)
            m.d.comb += getattr(block, f"link_{name}_value").eq(counter)
        m.d.comb += [
            pusher.push.eq(block.link_control_push),
            block.link_windows_skipped_value.eq(pusher.skipped),
        ]
