"""`DmaBuffer`: moves bytes between host memory and a buffer on the device, when software says so.

It is there to commission a link and to test it: the bytes take the way of every DMA, through engines, gates and the
memory table. Registers are the blocks `dma` and `dma_buffer` of the register map.

Contract: a command that is written while nothing is being moved begins a transfer of `length` bytes between the guest
address of the tenant and the first bytes of the buffer; others are ignored. It ends with an outcome, a count, and the
strobe `ended`. One that is longer than the buffer ends at once with `TOO_LONG`. While a transfer is under way the
buffer answers the register bus with an error: neither side sees what the other half did. What did not arrive is zeros.

Latency: two cycles from the write of the command to the engine. A beat a cycle into the buffer, one in two out of it.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..csr.bus import CsrSignature
from ..csr.regmap import WORD_ADDRESS_WIDTH
from .dma import Command
from .share import DmaSignature
from .tlp import check_width

__all__ = ["BUFFER_BYTES", "TOO_LONG", "DmaBuffer"]

BUFFER_BYTES = 4096
#: The outcome that no engine has.
TOO_LONG = 12


class DmaBuffer(wiring.Component):
    """Buffer with beats of `width` bits. `command` is taken with `read` or `write`; `bus`: the words of the buffer."""

    def __init__(self, width: int = 64):
        self._width = check_width(width)
        super().__init__({
            "bus": In(CsrSignature(WORD_ADDRESS_WIDTH)),
            "command": In(Command), "read": In(1), "write": In(1),
            "busy": Out(1), "outcome": Out(4), "ended": Out(1),
            "dma": Out(DmaSignature(self._width)),
        })

    def elaborate(self, platform):
        m = Module()
        beat_bytes = self._width // 8
        depth = BUFFER_BYTES // beat_bytes
        m.submodules.words = words = Memory(shape=unsigned(self._width), depth=depth, init=[])
        store, fetch = words.write_port(granularity=8), words.read_port()
        place, left = Signal(range(depth)), Signal(range(depth + 1))
        current, whole = Signal(Command), Signal()  # whole: the last beat is in the buffer
        m.d.comb += [
            self.busy.eq(1), self.dma.read_commands.payload.eq(current),
            self.dma.write_commands.payload.eq(current), self.dma.write_data.payload.eq(fetch.data)]
        self._elaborate_bus(m, store, fetch)
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.busy.eq(0)
                m.d.sync += [current.eq(self.command), place.eq(0), whole.eq(0),
                             left.eq((self.command.length + (beat_bytes - 1)) // beat_bytes)]
                with m.If((self.read | self.write) & (self.command.length > BUFFER_BYTES)):
                    m.d.sync += self.outcome.eq(TOO_LONG)
                    m.d.comb += self.ended.eq(1)
                with m.Elif(self.read):
                    m.next = "ask for data"
                with m.Elif(self.write):
                    m.next = "announce data"
            with m.State("ask for data"):
                m.d.comb += self.dma.read_commands.valid.eq(1)
                with m.If(self.dma.read_commands.ready):
                    m.next = "fill"
            with m.State("fill"):
                self._elaborate_fill(m, store, place, whole)
                # The report may be offered while the last beats are still on their way.
                with m.If(whole):
                    self._elaborate_end(m, self.dma.read_reports)
            with m.State("announce data"):
                m.d.comb += [self.dma.write_commands.valid.eq(1), fetch.addr.eq(place)]
                with m.If(self.dma.write_commands.ready):
                    m.next = "look up"
            with m.State("look up"):
                m.d.comb += fetch.addr.eq(place)
                m.next = "send"
            with m.State("send"):
                # The address is held: a memory's output stays what was looked up.
                m.d.comb += [fetch.addr.eq(place), self.dma.write_data.valid.eq(left != 0)]
                with m.If(self.dma.write_data.valid & self.dma.write_data.ready):
                    m.d.sync += [place.eq(place + 1), left.eq(left - 1)]
                    m.next = "look up"
                self._elaborate_end(m, self.dma.write_reports)
        return m

    def _elaborate_fill(self, m, store, place, whole):
        m.d.comb += self.dma.read_data.ready.eq(1)
        with m.If(self.dma.read_data.valid):
            m.d.comb += [store.addr.eq(place), store.data.eq(self.dma.read_data.payload.data), store.en.eq(~0)]
            m.d.sync += [place.eq(place + 1), whole.eq(self.dma.read_data.payload.last)]

    def _elaborate_end(self, m, reports):
        m.d.comb += reports.ready.eq(1)
        with m.If(reports.valid):
            m.d.sync += self.outcome.eq(reports.payload.outcome)
            m.d.comb += self.ended.eq(1)
            m.next = "idle"

    def _elaborate_bus(self, m, store, fetch):
        """The first cycle of an access writes or looks up, the second answers. Of this, a transfer takes the ports."""
        lanes = self._width // 32
        second, refused, lane = Signal(), Signal(), Signal(range(lanes))
        word = self.bus.address[:10]
        m.d.comb += [
            fetch.addr.eq(word // lanes), store.addr.eq(word // lanes),
            store.data.eq(self.bus.w_data.replicate(lanes)),
            self.bus.ready.eq(self.bus.valid & second), self.bus.error.eq(refused),
            self.bus.r_data.eq(fetch.data.word_select(lane, 32)),
        ]
        m.d.sync += [second.eq(self.bus.valid & ~second), refused.eq(self.busy), lane.eq(word % lanes)]
        with m.If(self.bus.valid & ~second & self.bus.write & ~self.busy):
            m.d.comb += store.en.eq(self.bus.w_mask << (4 * (word % lanes)))
