"""Push: sends whole windows on the telemetry stream, as `docs/reference/link-protocol.md` describes.

Contract: a window is taken at `complete` if `enable` is high and the one before has been sent to its end; else,
with `enable` high, it is skipped and counted in `skipped`. The words of a window taken are copied as the
snapshot is written and sent from `published` on: header, 16 words a tenant, `last` on the final one; however
slowly the consumer takes them, all are of the same window.
"""

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..stream.telemetry import TELEMETRY_WORD
from .snapshot import ROW_WORDS

__all__ = ["HEADER_WORDS", "SCHEMA", "WindowInfo", "WindowPush"]

HEADER_WORDS = 8
SCHEMA = 0x4D57_0200  # 'MW', schema 2, and the number of tenants in the low byte


class WindowInfo(data.Struct):
    """What belongs to a window as a whole."""

    number: 32
    start: 64
    cycles: 32
    epoch: 8
    tag: 32


class WindowPush(wiring.Component):
    """Copies and sends windows."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "enable": In(1),
            "complete": In(1),
            "published": In(1),
            "info": In(WindowInfo),
            "word_valid": In(1),
            "word_index": In(range(config.tenants * ROW_WORDS)),
            "word": In(32),
            "skipped": Out(32),
            "telemetry": Out(stream.Signature(TELEMETRY_WORD)),
        })

    def elaborate(self, platform):
        m = Module()
        words = self._config.tenants * ROW_WORDS
        m.submodules.store = store = memory.Memory(shape=32, depth=words, init=[])
        write, read = store.write_port(), store.read_port()
        info = Signal(WindowInfo)
        skipped = Signal(32)  # as the header of the window being sent has it
        position = Signal(range(HEADER_WORDS + words + 1))
        out = self.telemetry

        with m.FSM() as fsm:
            # Free for the next complete window.
            with m.State("FREE"):
                with m.If(self.complete & self.enable):
                    m.d.sync += [info.eq(self.info), skipped.eq(self.skipped)]
                    m.next = "COPY"
            # The snapshot is being written; its words are copied.
            with m.State("COPY"):
                m.d.comb += write.en.eq(self.word_valid)
                m.d.sync += position.eq(0)
                with m.If(self.published):
                    m.next = "FETCH"
            # The memory reads the word at `position`.
            with m.State("FETCH"):
                m.next = "SEND"
            # The word is offered until it is taken.
            with m.State("SEND"):
                m.d.comb += out.valid.eq(1)
                with m.If(out.ready):
                    m.d.sync += position.eq(position + 1)
                    m.next = "FETCH"
                    with m.If(out.payload.last):
                        m.next = "FREE"
        with m.If(self.complete & self.enable & ~fsm.ongoing("FREE")):
            m.d.sync += self.skipped.eq(self.skipped + 1)
        m.d.comb += [
            write.addr.eq(self.word_index),
            write.data.eq(self.word),
            read.addr.eq(position - HEADER_WORDS),
            out.payload.data.eq(read.data),
            out.payload.last.eq(position == HEADER_WORDS + words - 1),
        ]
        self._header(m, position, info, skipped)
        return m

    def _header(self, m, position, info, skipped):
        header = [SCHEMA | self._config.tenants, info.number, info.start[:32], info.start[32:],
                  info.cycles, info.epoch, skipped, info.tag]
        with m.Switch(position):
            for index, word in enumerate(header):
                with m.Case(index):
                    m.d.comb += self.telemetry.payload.data.eq(word)
