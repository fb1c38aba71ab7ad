"""Contracts of the stream blocks: nothing is lost, repeated, reordered or changed; an offer is held until it is taken.

A word is followed by its number: the source's `index`-th word is `value`, any index and any value, and so must the
`index`-th word at the sink be. Numbers wrap at 2**`COUNT`; that is sound while fewer words than that are inside.
"""

from amaranth import *

from tests.formal.prover import AnyConst, Assert, Assume, free_inputs, internals

COUNT = 4
WIDTH = 3  # of a payload


class Followed:
    """Counts the transfers of a stream, and tells when the followed word is the one on offer."""

    def __init__(self, m, port, index, name):
        self.port = port
        self.count = Signal(COUNT, name=f"{name}_count")
        self.moves = port.valid & port.ready
        self.here = self.count == index
        with m.If(self.moves):
            m.d.sync += self.count.eq(self.count + 1)


def held(m, port, name):
    """True as long as the offers of `port` are held until they are taken."""
    payload = Value.cast(port.payload)
    waited, before = Signal(name=f"{name}_waited"), Signal(len(payload), name=f"{name}_before")
    m.d.sync += [waited.eq(port.valid & ~port.ready), before.eq(payload)]
    return ~waited | (port.valid & (payload == before))


class BufferContract(Elaboratable):
    """`dut` (ports `i` and `o`) is a queue of at most `capacity` words; `invariant(dut's internals, ...)` may help.

    at_once: what comes is offered in the same cycle.
    """

    def __init__(self, dut, capacity, invariant=None, *, at_once=False):
        self.dut, self.capacity, self.invariant, self.at_once = dut, capacity, invariant, at_once

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        index = Signal(COUNT)
        value = Signal(WIDTH)
        m.d.comb += [index.eq(AnyConst(COUNT)), value.eq(AnyConst(WIDTH))]
        source, sink = Followed(m, dut.i, index, "source"), Followed(m, dut.o, index, "sink")
        waiting = Signal(COUNT)
        m.d.comb += waiting.eq(source.count - sink.count)
        with m.If(source.moves & source.here):
            m.d.comb += Assume(dut.i.payload == value)
        with m.If(dut.o.valid & sink.here):
            m.d.comb += Assert(dut.o.payload == value)
        m.d.comb += [
            Assert(waiting <= self.capacity),
            # Offers whenever it has something: nothing is stuck.
            Assert(dut.o.valid == ((waiting != 0) | (self.at_once & dut.i.valid))),
            Assert(dut.i.ready | (waiting == self.capacity)),
            Assert(held(m, dut.o, "o")),
        ]
        if self.invariant is not None:
            m.d.comb += [Assert(claim) for claim in self.invariant(inside, waiting, index - sink.count, value)]
        return m


def skid_invariant(inside, waiting, position, value):
    """How many words a skid buffer holds, and where the followed one lies."""
    full, caught = inside["full"], inside["caught"]
    return [full == (waiting == 2), ~(full & (position[:COUNT] == 1)) | (caught == value)]


def ready_invariant(inside, waiting, position, value):
    """The same of a ready buffer, which holds one."""
    full, caught = inside["full"], inside["caught"]
    return [full == (waiting == 1), ~(full & (position[:COUNT] == 0)) | (caught == value)]


class ForkContract(Elaboratable):
    """Each output of a fork takes every word once, in order, and none runs ahead by more than the word on offer."""

    def __init__(self, dut):
        self.dut = dut

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        index = Signal(COUNT)
        value = Signal(WIDTH)
        m.d.comb += [index.eq(AnyConst(COUNT)), value.eq(AnyConst(WIDTH))]
        source = Followed(m, dut.input, index, "source")
        m.d.comb += Assume(held(m, dut.input, "input"))
        with m.If(dut.input.valid & source.here):
            m.d.comb += Assume(dut.input.payload == value)
        waited = Signal()
        m.d.sync += waited.eq(dut.input.valid & ~dut.input.ready)
        for number, output in enumerate(dut.outputs):
            sink = Followed(m, output, index, f"sink_{number}")
            ahead = Signal(COUNT, name=f"ahead_{number}")
            m.d.comb += ahead.eq(sink.count - source.count)
            with m.If(output.valid & sink.here):
                m.d.comb += Assert(output.payload == value)
            m.d.comb += [
                Assert(ahead <= 1),
                Assert((ahead == 0) | waited),
                Assert(inside["taken"][number] == ahead[0]),
                Assert(output.valid == (dut.input.valid & (ahead == 0))),
                Assert(held(m, output, f"output_{number}")),
            ]
        return m


class PacketMuxContract(Elaboratable):
    """Packets of two sources leave whole: header first or with the last beat at the latest, beats of one source only.

    What passes is what one source offers in that very cycle, so nothing can be lost, repeated or reordered as long as
    no source but the one in passage is ever taken from, and both sides of a transfer happen together.
    """

    def __init__(self, dut):
        self.dut = dut

    def elaborate(self, platform):
        m = Module()
        dut, output = self.dut, self.dut.output
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        for number, source in enumerate(dut.inputs):
            m.d.comb += [Assume(held(m, source.header, f"header_{number}")),
                         Assume(held(m, source.data, f"data_{number}"))]
        moved = {name: [Signal(name=f"{name}_{number}") for number in range(dut.count)] for name in ("header", "data")}
        owner = Signal(range(dut.count))
        open_ = Signal()
        header_done = Signal()
        for name, strobes in moved.items():
            port = getattr(output, name)
            for number, strobe in enumerate(strobes):
                stream = getattr(dut.inputs[number], name)
                m.d.comb += strobe.eq(stream.valid & stream.ready)
                with m.If(strobe):
                    m.d.comb += [Assert(port.valid & port.ready),
                                 Assert(Value.cast(port.payload) == Value.cast(stream.payload)),
                                 Assert(~open_ | (owner == number))]
                    m.d.sync += [owner.eq(number), open_.eq(1)]
            m.d.comb += [Assert(sum(strobes) <= 1), Assert((port.valid & port.ready) == Cat(strobes).any())]
        header, beat = Cat(moved["header"]).any(), Cat(moved["data"]).any()
        last = beat & output.data.payload.last
        with m.If(header):
            m.d.comb += Assert(~header_done)          # one header a packet
            m.d.sync += header_done.eq(1)
        with m.If(last):
            m.d.comb += Assert(header_done | header)   # never a packet without one
            m.d.sync += [header_done.eq(0), open_.eq(0)]
        with m.If(header & beat):
            m.d.comb += Assert(Cat(moved["header"]) == Cat(moved["data"]))
        # The mux is in passage whenever a packet is open, of the source that the packet is from.
        passing = inside["fsm_state"]
        chosen_header = Array(source.header.valid for source in dut.inputs)[inside["chosen"]]
        m.d.comb += [Assert(~open_ | ((passing == 1) & (inside["chosen"] == owner))),
                     Assert((passing == 0) | inside["header_done"] | chosen_header),
                     Assert(~(passing == 1) | (inside["header_done"] == header_done)),
                     Assert((passing == 1) | ~header_done), Assert(passing <= 1),
                     Assert(inside["chosen"] < dut.count),
                     Assert(held(m, output.data, "output_data") | ~open_)]
        return m


class WaitContract(Elaboratable):
    """A source of the mux that offers a header is chosen before any other source begins a second packet."""

    def __init__(self, dut, watched):
        self.dut, self.watched = dut, watched

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        mine = dut.inputs[self.watched].header
        m.d.comb += Assume(held(m, mine, "mine"))
        others = Signal(4)  # headers of others taken while this one waits
        other = Cat(source.header.valid & source.header.ready for number, source in enumerate(dut.inputs)
                    if number != self.watched).any()
        with m.If(~mine.valid | mine.ready):
            m.d.sync += others.eq(0)
        with m.Elif(other):
            m.d.sync += others.eq(others + 1)
        # One header of the other source may be in passage when this one is first offered, and one more is never taken.
        passing, chosen, done = inside["fsm_state"], inside["chosen"], inside["header_done"]
        elsewhere = (passing == 1) & (chosen != self.watched)
        m.d.comb += [
            Assert(others <= dut.count - 1),
            Assert(~(elsewhere & ~done) | (others <= dut.count - 2)),
            Assert((passing == 1) | (others == 0) | (chosen != self.watched)),
            Assert((passing == 0) | (chosen != self.watched) | ~done | (others == 0)),
            Assert(chosen < dut.count), Assert(passing <= 1),
        ]
        return m
