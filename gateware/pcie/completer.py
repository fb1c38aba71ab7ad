"""`Completer`: memory requests to BAR0 become accesses of the register bus.

Contract:

- Writes of any length and byte enables are carried out word by word, in address order, in the order of arrival; a
  word without enabled bytes is not accessed. A poisoned write is discarded whole (2.7.2.2) and `poisoned` strobes. A
  write that a register refuses changes nothing there, and `write_refused` strobes; the words around it are written.
- A read is answered with the bytes from the first to the last enabled one, in completions that end at multiples of
  128 bytes, the read completion boundary of an endpoint (2.3.1.1): so every one is within any payload size. A word
  that the bus refuses ends the read with a completer abort; parts answered before it stay. A read of no bytes
  accesses nothing, and is answered with a word of zero.
- Requests of other kinds, and to other BARs, are unsupported: answered so if they are not posted, discarded if they
  are; `unsupported` strobes.
- A read sees every write before it. A write is accepted although reads before it wait to be answered (2.4.1): so
  the link must not offer more non-posted requests than `nonposted_credit` has strobed for: `depth` at once after
  reset, one more for each that was answered.

Latency: two cycles from a write's beat to the bus, three from a read's. A word takes the time of the bus
and one cycle of its arbiter; a completion is sent, a beat a cycle, when all its words are there.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..csr.arbiter import CsrArbiter
from ..csr.bus import CsrSignature
from ..csr.regmap import WORD_ADDRESS_WIDTH
from .tlp import (
    CompletionStatus,
    RequestHeader,
    RequestKind,
    byte_count,
    check_width,
    completion_layout,
    first_byte,
    is_posted,
    request_layout,
)

__all__ = ["RCB_BYTES", "Completer"]

#: Read completion boundary of everything but a root complex (2.3.1.1).
RCB_BYTES = 128


class Completer(wiring.Component):
    """Completer of BAR0 with beats of `width` bits, for up to `depth` non-posted requests at a time.

    Ports: `requests` and `completions` are TLP streams; `bus` is an initiator of the register bus; `completer_id` is
    this function's. Strobes: `nonposted_credit`, `poisoned`, `unsupported`, `write_refused`.
    """

    def __init__(self, width: int = 64, depth: int = 4):
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth!r}")
        self._width = check_width(width)
        self._depth = depth
        super().__init__({
            "requests": In(stream.Signature(request_layout(width))),
            "completions": Out(stream.Signature(completion_layout(width))),
            "bus": Out(CsrSignature(WORD_ADDRESS_WIDTH)),
            "completer_id": In(16),
            "nonposted_credit": Out(1),
            "poisoned": Out(1),
            "unsupported": Out(1),
            "write_refused": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.arbiter = arbiter = CsrArbiter(2)
        m.submodules.writer = writer = _Writer(self._width)
        m.submodules.reader = reader = _Reader(self._width)
        m.submodules.waiting = waiting = SyncFIFO(width=RequestHeader.as_shape().size, depth=self._depth)
        wiring.connect(m, writer.bus, arbiter.initiators[0])
        wiring.connect(m, reader.bus, arbiter.initiators[1])
        wiring.connect(m, arbiter.bus, wiring.flipped(self.bus))
        wiring.connect(m, wiring.flipped(self.requests), writer.requests)
        wiring.connect(m, reader.completions, wiring.flipped(self.completions))
        m.d.comb += [
            waiting.w_data.eq(writer.nonposted.payload),
            waiting.w_en.eq(writer.nonposted.valid),
            writer.nonposted.ready.eq(waiting.w_rdy),
            reader.requests.payload.eq(waiting.r_data),
            reader.requests.valid.eq(waiting.r_rdy),
            waiting.r_en.eq(reader.requests.ready),
            reader.completer_id.eq(self.completer_id),
            self.poisoned.eq(writer.poisoned),
            self.write_refused.eq(writer.refused),
            self.unsupported.eq(writer.unsupported),
        ]
        owed = Signal(range(self._depth + 1), init=self._depth)  # places that the link was not yet told of
        m.d.comb += self.nonposted_credit.eq(owed != 0)
        m.d.sync += owed.eq(owed - self.nonposted_credit + reader.requests.ready)
        return m


class _Writer(wiring.Component):
    """Carries out writes, and passes on the headers of requests that want an answer."""

    def __init__(self, width):
        self._lanes = width // 32
        super().__init__({
            "requests": In(stream.Signature(request_layout(width))),
            "nonposted": Out(stream.Signature(RequestHeader)),
            "bus": Out(CsrSignature(WORD_ADDRESS_WIDTH)),
            "poisoned": Out(1),
            "refused": Out(1),
            "unsupported": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        beat, header = self.requests.payload, self.requests.payload.header
        answered = ~is_posted(header)
        wanted = (header.kind == RequestKind.WRITE) & (header.bar == 0)
        m.d.comb += self.nonposted.payload.eq(header)
        with m.FSM():
            # The first beat of a request decides what becomes of all of it.
            with m.State("decide"):
                with m.If(self.requests.valid):
                    with m.If(answered):
                        m.d.comb += self.nonposted.valid.eq(1)
                        with m.If(self.nonposted.ready):
                            m.d.comb += self.unsupported.eq((header.kind != RequestKind.READ) | (header.bar != 0))
                            m.next = "discard"
                    with m.Elif(wanted & ~header.poisoned):
                        m.next = "write"
                    with m.Else():
                        m.d.comb += [self.poisoned.eq(wanted), self.unsupported.eq(~wanted)]
                        m.next = "discard"
            with m.State("discard"):
                m.d.comb += self.requests.ready.eq(1)
                with m.If(self.requests.valid & beat.last):
                    m.next = "decide"
            with m.State("write"):
                self._elaborate_write(m, beat, header)
        return m

    def _elaborate_write(self, m, beat, header):
        """Word by word. The beat goes when its last word is written: what comes after it sees it."""
        lane, done = Signal(range(self._lanes)), Signal(11)  # words written of the beat, and of the request
        enables, over = Signal(4), Signal()
        last_word = done + 1 == header.length
        m.d.comb += [
            enables.eq(Mux(done == 0, header.first_be, Mux(last_word, header.last_be, 0xF))),
            self.bus.valid.eq(self.requests.valid & enables.any()),
            self.bus.write.eq(1),
            self.bus.address.eq(header.address + done),
            self.bus.w_data.eq(beat.data.word_select(lane, 32)),
            self.bus.w_mask.eq(enables),
            over.eq(self.requests.valid & (self.bus.ready | ~enables.any())),
            self.refused.eq(self.bus.valid & self.bus.ready & self.bus.error),
        ]
        with m.If(over):
            m.d.sync += [lane.eq(lane + 1), done.eq(done + 1)]
            with m.If(last_word | (lane == self._lanes - 1)):
                m.d.comb += self.requests.ready.eq(1)
                with m.If(beat.last):
                    m.d.sync += [lane.eq(0), done.eq(0)]
                    m.next = "decide"


class _Reader(wiring.Component):
    """Answers requests one after another; a completion is sent when all its words were read."""

    def __init__(self, width):
        self._width, self._lanes = width, width // 32
        super().__init__({
            "requests": In(stream.Signature(RequestHeader)),
            "completions": Out(stream.Signature(completion_layout(width))),
            "bus": Out(CsrSignature(WORD_ADDRESS_WIDTH)),
            "completer_id": In(16),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = Memory(shape=unsigned(self._width), depth=RCB_BYTES * 8 // self._width, init=[])
        store, fetch = words.write_port(granularity=32), words.read_port(domain="comb")
        header, state = self.requests.payload, _Progress()
        is_read = header.kind == RequestKind.READ
        self._elaborate_completion(m, header, state, is_read)
        m.d.comb += [
            self.bus.address.eq(state.address),
            store.addr.eq(state.taken // self._lanes),
            store.data.eq(self.bus.r_data.replicate(self._lanes)),
            fetch.addr.eq(state.sent),
            self.completions.payload.data.eq(fetch.data),
        ]
        with m.FSM():
            with m.State("idle"):
                m.d.sync += [
                    state.address.eq(header.address), state.left.eq(header.length), state.bytes_left.eq(
                        Mux(is_read, byte_count(header), 4)),
                    state.lower.eq(Mux(is_read, Cat(first_byte(header), header.address[:5]), 0)),
                    state.taken.eq(0), state.status.eq(CompletionStatus.SUCCESS),
                ]
                with m.If(self.requests.valid):
                    m.next = "fetch"
                    with m.If(~is_read | (header.bar != 0)):
                        m.d.sync += state.status.eq(CompletionStatus.UNSUPPORTED)
                        m.next = "send"
            # Read up to the next boundary.
            with m.State("fetch"):
                # A read of no bytes (2.2.5) must have no effect but to be answered.
                nothing = header.first_be == 0
                m.d.comb += self.bus.valid.eq(~nothing)
                with m.If(self.bus.ready | nothing):
                    m.d.comb += store.en.eq(1 << (state.taken % self._lanes))
                    with m.If(nothing):
                        m.d.comb += store.data.eq(0)
                    m.d.sync += [state.address.eq(state.address + 1), state.taken.eq(state.taken + 1),
                                 state.left.eq(state.left - 1)]
                    with m.If((state.left == 1) | state.address[:5].all()):
                        m.next = "send"
                    with m.If(~nothing & self.bus.error):
                        m.d.sync += state.status.eq(CompletionStatus.ABORT)
                        m.next = "send"
            with m.State("send"):
                self._elaborate_send(m, state)
        return m

    def _elaborate_completion(self, m, header, state, is_read):
        completion = self.completions.payload.header
        m.d.comb += [
            completion.status.eq(state.status),
            completion.length.eq(Mux(state.good, state.taken, 0)),
            completion.byte_count.eq(state.bytes_left),
            completion.lower_address.eq(state.lower),
            completion.requester_id.eq(header.requester_id),
            completion.completer_id.eq(self.completer_id),
            completion.tag.eq(header.tag),
            completion.traffic_class.eq(header.traffic_class),
            completion.attributes.eq(header.attributes),
            completion.locked.eq(header.kind == RequestKind.READ_LOCKED),
            state.good.eq(state.status == CompletionStatus.SUCCESS),
        ]

    def _elaborate_send(self, m, state):
        last = Signal()
        m.d.comb += [
            last.eq(~state.good | ((state.sent + 1) * self._lanes >= state.taken)),
            self.completions.valid.eq(1),
            self.completions.payload.first.eq(state.sent == 0),
            self.completions.payload.last.eq(last),
        ]
        with m.If(self.completions.ready):
            m.d.sync += state.sent.eq(state.sent + 1)
            with m.If(last):
                m.d.sync += [
                    state.sent.eq(0), state.taken.eq(0), state.lower.eq(0),
                    state.bytes_left.eq(state.bytes_left - (state.taken << 2) + state.lower[:2]),
                ]
                m.next = "fetch"
                with m.If((state.left == 0) | ~state.good):
                    m.d.comb += self.requests.ready.eq(1)
                    m.next = "idle"


class _Progress:
    """How far a read has come."""

    def __init__(self):
        self.status = Signal(CompletionStatus)
        self.good = Signal()
        self.address = Signal(WORD_ADDRESS_WIDTH)
        self.left = Signal(11)        # words that are not read
        self.bytes_left = Signal(13)  # bytes that are not answered
        self.lower = Signal(7)        # lower address of the completion that is made
        self.taken = Signal(6)        # words of it that are read
        self.sent = Signal(5)         # beats of it that are sent
