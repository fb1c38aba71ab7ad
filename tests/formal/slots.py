"""Contracts of the way from a request to its answer: whoever is asked answers once, with the request's tenant and tag.

Tenant and tag are a request's name. The dispatcher gives each request whole to one slot; a shard makes one answer of
it, or its slot's watchdog does; a slot answers in the order of its queue. What an answer says of the data is not
looked at.
"""

from amaranth import *

from gateware.engine.slot import QUEUED_REQUESTS
from tests.formal.prover import AnyConst, AnySeq, Assert, Assume, free_inputs, internals
from tests.formal.streams import held

NUMBER = 6   # bits of a request's number: more than a slot holds


def moves(port):
    """A transfer of the stream."""
    return port.valid & port.ready


def name_of(what):
    """The name of the request of a tagged header, or of an answer."""
    return Cat(getattr(what, "packet", what).tenant, what.tag)


class PartContract(Elaboratable):
    """Of a part of the engine array. invariant: with what holds inside; else its ports only, for bounded checks."""

    def __init__(self, dut, *, invariant=False):
        self.dut, self.with_invariant = dut, invariant


class DispatcherContract(PartContract):
    """`dut` has the ports of `Dispatcher(config)`: a request that is assigned goes to its target, and nowhere else.

    Assumed of a slot: it takes a request's header with the last of its beats at the latest.
    """

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        source, beats = dut.requests.header, dut.requests.data
        m.d.comb += [Assume(held(m, source, "header")), Assume(held(m, beats, "beats"))]
        # The request at hand: what its target gets, and what of it has still to go.
        expected, target = Signal.like(dut.slots[0].header.payload), Signal.like(dut.target)
        header_due, beats_due = Signal(), Signal()
        goes = Cat(moves(slot.header) for slot in dut.slots).any()
        ends = moves(beats) & beats.payload.last
        with m.If(goes):
            m.d.sync += header_due.eq(0)
        with m.If(ends):
            m.d.sync += beats_due.eq(0)
        with m.If(dut.assigned):
            m.d.sync += [expected.packet.eq(source.payload), expected.tag.eq(dut.tag), expected.price.eq(dut.price),
                         target.eq(dut.target), header_due.eq(1), beats_due.eq(1)]
        for index, slot in enumerate(dut.slots):
            here = target == index
            m.d.comb += [
                Assume(~(ends & here & header_due) | slot.header.ready),
                Assert(~slot.header.valid | (header_due & here)),
                Assert(~slot.header.valid | (Value.cast(slot.header.payload) == Value.cast(expected))),
                Assert(~slot.data.valid | (beats_due & here & beats.valid & (slot.header.valid | ~header_due))),
                Assert(~slot.data.valid | (slot.data.payload.as_value() == beats.payload.as_value())),
                Assert(~here | (moves(slot.data) == moves(beats))),
            ]
        m.d.comb += [
            Assert(dut.assigned == moves(source)),
            Assert(~dut.assigned | (dut.tenant == source.payload.tenant[:len(dut.tenant)])),
            Assert(~dut.assigned | (~dut.full & (~header_due | goes) & (~beats_due | ends))),
            *(Assert(~dut.assigned | (dut.target != index) | (dut.usable[index] & (load < QUEUED_REQUESTS)))
              for index, load in enumerate(dut.load)),
            # What is kept for the ticket is the request's first bytes: its answer is not there yet.
            Assert(~dut.word_enable.any() | (moves(beats) & (dut.word_tag == expected.tag)
                                             & (dut.word_tenant == expected.packet.tenant[:len(dut.tenant)]))),
        ]
        if self.with_invariant:
            chosen = Cat(Value.cast(expected), target)
            m.d.comb += [
                Assert(inside["valid"] == beats_due),
                Assert(inside["header_sent"] == (beats_due & ~header_due)),
                Assert(beats_due | ~header_due),
                Assert(~beats_due | (inside["chosen"] == chosen)),
            ]
        return m


class ShardContract(Elaboratable):
    """`shard` is a component as `shard.py` says, which may be reset whenever it offers no answer."""

    def __init__(self, shard):
        self.shard = shard

    def elaborate(self, platform):
        m = Module()
        reset = Signal()
        m.submodules.shard, _ = internals(ResetInserter(reset)(self.shard))
        slot = self.shard.slot
        free_inputs(m, self.shard)
        header, beats, answers = slot.request.header, slot.request.data, slot.answers
        owed, name = Signal(), Signal.like(name_of(header.payload))
        done = moves(header)
        with m.If(moves(answers)):
            m.d.sync += owed.eq(0)
        with m.If(done):
            m.d.sync += [owed.eq(1), name.eq(name_of(header.payload))]
        m.d.comb += [
            reset.eq(AnySeq(1)), Assume(~reset | ~(header.valid | answers.valid)),
            Assume(reset | (held(m, header, "header") & held(m, beats, "beats"))),
            Assert(answers.valid == owed),
            Assert(~answers.valid | (name_of(answers.payload) == name)),
            Assert(held(m, answers, "answers")),
            Assert(~done | ~owed | moves(answers)),
            Assert(done == (moves(beats) & beats.payload.last)),
        ]
        return m


class SlotContract(PartContract):
    """`dut` has the ports of `EngineSlot`: the n-th answer has the name of the n-th request, and no answer is without.

    A request is announced (`assigned`) only while `load` is below the queue's length, and its header comes then, before
    the next one is announced; it never waits.
    """

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        header, answers = dut.requests.header, dut.answers
        self.coming = coming = Signal()   # announced, and not there
        came, gone, number = (Signal(NUMBER, name=name) for name in ("came", "gone", "number"))
        self.came, self.gone, self.number = came, gone, number
        self.name = name = Signal.like(name_of(header.payload))
        with m.If(moves(header)):
            m.d.sync += [came.eq(came + 1), coming.eq(0)]
            with m.If(came == number):
                m.d.sync += name.eq(name_of(header.payload))
        with m.If(dut.assigned):
            m.d.sync += coming.eq(1)
        with m.If(moves(answers)):
            m.d.sync += gone.eq(gone + 1)
        m.d.comb += [
            number.eq(AnyConst(NUMBER)),
            Assume(~dut.assigned | ((dut.load < QUEUED_REQUESTS) & (~coming | moves(header)))),
            Assume(~header.valid | coming),
            Assert(header.ready | ~coming),
            Assert(~answers.valid | (came != gone)),
            Assert(~answers.valid | (gone != number) | (name_of(answers.payload) == name)),
        ]
        if self.with_invariant:
            self._invariant(m, inside)
        return m

    def _invariant(self, m, inside):
        """Where the requests are: in the queue (a memory and a register behind it) or in the shard, as an answer."""
        level, consume, full = (inside[f"header.{name}"] for name in ("inner_level", "consume", "r_rdy"))
        produce, flush, answered = inside["header.produce"], inside["flush"], self.dut._shard.slot.answers.valid
        depth = QUEUED_REQUESTS - 1
        done, ahead, at = Signal(NUMBER), Signal(NUMBER), Signal(NUMBER + 1)
        front = self.dut.requests.header.payload.shape()
        head, stored = (front(Value.cast(data)) for data in (inside["header.r_data"],
                                                             inside.word(m, "header.storage", at[:4])))
        offset = (ahead - full)[:NUMBER]
        m.d.comb += [
            done.eq(self.gone + answered), ahead.eq(self.number - done),
            at.eq(Mux(consume + offset >= depth, consume + offset - depth, consume + offset)),
            Assert((self.came - done)[:NUMBER] == level + full),
            Assert(self.dut.load == level + full + self.coming),
            Assert(self.dut.load <= QUEUED_REQUESTS),
            Assert((level <= depth) & (full | (level <= 1))),
            Assert((consume < depth) & (produce < depth)),
            Assert(produce == Mux(consume + level >= depth, consume + level - depth, consume + level)),
            Assert(~flush | (full & ~answered)),
            Assert(~full | (ahead != 0) | (name_of(head) == self.name)),
            Assert((ahead < full) | (ahead >= level + full) | (name_of(stored) == self.name)),
            Assert(~answered | (self.number != self.gone) | (name_of(self.dut._shard.slot.answers.payload)
                                                                    == self.name)),
        ]
