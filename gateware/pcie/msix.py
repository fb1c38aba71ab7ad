"""`MsixTable`: message signalled interrupts with a table of vectors, masks and pending bits.

Contract (PCI Local Bus Specification 3.0, 6.8.2, as the PCI Express Base Specification 4.0 refers to it in 6.1.4): a
vector that is raised is sent as a write of its data to its address. If it or the function is masked, its pending bit is
set instead, and it is sent when neither is; raising a pending vector again changes nothing. While MSI-X is off
(`enable`), what is raised is forgotten. A vector's address and data are read when it is sent.

Software sees four words a vector (address low, address high, data, and control, whose bit 0 masks; it is 1 after reset)
from word 0, and the pending bits, which it only reads, from word `pba`: vector v is bit v % 32 of word v // 32. Other
addresses are answered with `error`; reserved bits read 0. An access takes two cycles.

Latency: 3 cycles from `raised` to the offer of the write, if nothing else waits; of several pending vectors the lowest
is sent first.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..csr.bus import CsrSignature
from .tlp import RequestKind, request_layout

__all__ = ["MsixTable", "pending_word"]


def pending_word(vectors: int) -> int:
    """Word address of the pending bits behind a table of `vectors` vectors."""
    return 4 << (vectors - 1).bit_length()


class MsixTable(wiring.Component):
    """Table of `vectors` vectors. `raised`: a bit a vector, high for a cycle to raise it. `bus`: word addresses."""

    def __init__(self, width: int, vectors: int):
        if not 1 <= vectors <= 128:
            raise ValueError(f"vectors must be in 1..128, not {vectors!r}")
        self._vectors = vectors
        self._pba = pending_word(vectors)
        super().__init__({
            "bus": In(CsrSignature(10)),
            "raised": In(vectors),
            "enable": In(1),
            "function_mask": In(1),
            "requester_id": In(16),
            "requests": Out(stream.Signature(request_layout(width))),
        })

    @property
    def pba(self) -> int:
        """Word address of the pending bits."""
        return self._pba

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = Memory(shape=unsigned(96), depth=self._vectors, init=[])
        pending, masked = Signal(self._vectors), Signal(self._vectors, init=(1 << self._vectors) - 1)
        sent = Signal(self._vectors)
        self._elaborate_bus(m, words.write_port(granularity=8), words.read_port(), pending, masked)
        due, vector, entry = Signal(self._vectors), Signal(range(self._vectors)), words.read_port()
        m.d.comb += [due.eq(Mux(self.function_mask | ~self.enable, 0, pending & ~masked)), entry.addr.eq(vector)]
        # Raised anew while it is being sent, a vector is sent again.
        m.d.sync += pending.eq(Mux(self.enable, (pending & ~sent) | self.raised, 0))
        for index in reversed(range(self._vectors)):
            with m.If(due[index]):
                m.d.comb += vector.eq(index)
        header = self.requests.payload.header
        with m.FSM():
            with m.State("idle"):
                with m.If(due.any()):
                    m.d.comb += sent.eq(1 << vector)
                    m.next = "read"
            with m.State("read"):
                m.d.sync += [header.address.eq(entry.data[2:64]), self.requests.payload.data.eq(entry.data[64:]),
                             self.requests.valid.eq(1)]
                m.next = "send"
            with m.State("send"):
                with m.If(self.requests.ready):
                    m.d.sync += self.requests.valid.eq(0)
                    m.next = "idle"
        m.d.comb += [
            header.kind.eq(RequestKind.WRITE), header.length.eq(1), header.first_be.eq(0xF),
            header.requester_id.eq(self.requester_id),
            self.requests.payload.first.eq(1), self.requests.payload.last.eq(1),
        ]
        return m

    def _elaborate_bus(self, m, store, fetch, pending, masked):
        """The first cycle of an access writes or looks up, the second answers."""
        word, vector, second = self.bus.address[:2], self.bus.address[2:], Signal()
        in_table, in_pba = Signal(), Signal()
        pending_words = [pending[start:start + 32] for start in range(0, self._vectors, 32)]
        m.d.comb += [
            in_table.eq(vector < self._vectors),
            in_pba.eq((self.bus.address >= self._pba) & (self.bus.address < self._pba + len(pending_words))),
            fetch.addr.eq(vector), store.addr.eq(vector), store.data.eq(self.bus.w_data.replicate(3)),
            self.bus.ready.eq(self.bus.valid & second),
            self.bus.error.eq(~in_table & ~(in_pba & ~self.bus.write)),
        ]
        m.d.sync += second.eq(self.bus.valid & ~second)
        with m.If(in_pba):
            m.d.comb += self.bus.r_data.eq(Array(pending_words)[self.bus.address - self._pba])
        with m.Elif(word == 3):
            m.d.comb += self.bus.r_data.eq(masked.bit_select(vector, 1))
        with m.Else():
            m.d.comb += self.bus.r_data.eq(fetch.data.word_select(word, 32))
        with m.If(self.bus.valid & ~second & self.bus.write & in_table):
            with m.If(word != 3):
                # The two low bits of an address are not kept: messages are aligned.
                m.d.comb += store.en.eq(self.bus.w_mask << (word << 2))
            with m.Elif(self.bus.w_mask[0]):
                m.d.sync += masked.bit_select(vector, 1).eq(self.bus.w_data[0])
