"""Contracts of the register bus: arbiter, decoder, register block.

Initiators are free within the bus contract (an access is held until it is answered). Targets answer when they like,
within `ANSWER` cycles where a bound is claimed.
"""

from amaranth import *

from tests.formal.prover import Assert, Assume, free_inputs, internals

REQUEST = ("write", "address", "w_data", "w_mask")
ANSWER = 6  # cycles after which a target has answered, in the proof of bounded waiting


def request_of(bus):
    """All that an initiator asks, as one number."""
    return Cat(getattr(bus, field) for field in REQUEST)


def obeys(m, bus, name):
    """True as long as the initiator of `bus` holds its access until it is answered."""
    request = request_of(bus)
    waited = Signal(name=f"{name}_waited")
    before = Signal(len(request), name=f"{name}_before")
    m.d.sync += [waited.eq(bus.valid & ~bus.ready), before.eq(request)]
    return ~waited | (bus.valid & (request == before))


class ArbiterContract(Elaboratable):
    """At most one initiator is answered in a cycle, by the answer to its own access, which nobody interrupts."""

    def __init__(self, dut):
        self.dut = dut

    def elaborate(self, platform):
        m = Module()
        dut, bus = self.dut, self.dut.bus
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        m.d.comb += Assume(bus.valid | ~bus.ready)
        # What the target was asked and said in the cycle before, if it answered.
        due, served, said = Signal(), Signal(len(request_of(bus))), Signal(33)
        m.d.sync += [due.eq(bus.valid & bus.ready), served.eq(request_of(bus)), said.eq(Cat(bus.r_data, bus.error))]
        for number, initiator in enumerate(dut.initiators):
            m.d.comb += Assume(obeys(m, initiator, f"initiator_{number}"))
            with m.If(initiator.ready):
                m.d.comb += [Assert(initiator.valid & due), Assert(request_of(initiator) == served),
                             Assert(Cat(initiator.r_data, initiator.error) == said)]
        answered = Cat(initiator.ready for initiator in dut.initiators)
        m.d.comb += [
            Assert((answered & (answered - 1)[:len(answered)]) == 0),
            Assert(answered.any() == due),
            Assert(obeys(m, bus, "bus")),
        ]
        # The induction: an access stays its owner's until that one is answered.
        owner = inside["owner"]
        asks = Array(initiator.valid for initiator in dut.initiators)[owner]
        asked = Array(request_of(initiator) for initiator in dut.initiators)[owner]
        m.d.comb += [Assert(owner < len(dut.initiators)), Assert(inside["answered"] == due), Assert(~(bus.valid & due))]
        with m.If(bus.valid):
            m.d.comb += Assert(asks & (asked == request_of(bus)))
        with m.If(due):
            m.d.comb += Assert(asks & (asked == served))
        return m


class ArbiterWaitContract(Elaboratable):
    """An initiator waits for at most one access of each other, and for a bounded number of cycles.

    The bound is `n` accesses of `ANSWER` + 2 cycles each: one in which the next is chosen, the target's, the answer's.
    """

    def __init__(self, dut, watched):
        self.dut, self.watched = dut, watched

    def elaborate(self, platform):
        m = Module()
        dut, bus, count = self.dut, self.dut.bus, len(self.dut.initiators)
        m.submodules.dut, inside = internals(dut)
        free_inputs(m, dut)
        mine = dut.initiators[self.watched]
        owner, answered, turn = inside["owner"], inside["answered"], ANSWER + 2
        m.d.comb += Assume(bus.valid | ~bus.ready)
        for number, initiator in enumerate(dut.initiators):
            m.d.comb += Assume(obeys(m, initiator, f"initiator_{number}"))
        slow = Signal(range(ANSWER + 1))  # cycles that the access on the bus has waited
        m.d.sync += slow.eq(Mux(bus.valid & ~bus.ready, slow + 1, 0))
        m.d.comb += [Assume(~bus.valid | bus.ready | (slow < ANSWER - 1)), Assert(slow < ANSWER)]

        others = Signal(range(2 * count))
        cycles = Signal(range(2 * count * turn))
        waits = mine.valid & ~mine.ready
        m.d.sync += cycles.eq(Mux(waits, cycles + 1, 0))
        other = Cat(initiator.ready for initiator in dut.initiators).any() & ~mine.ready
        m.d.sync += others.eq(Mux(waits, others + other, 0))
        # Others that may still be served first: those between the owner and the watched one in turn, and the owner.
        behind = Signal(range(count))
        with m.Switch(owner):
            for number in range(count):
                with m.Case(number):
                    m.d.comb += behind.eq((self.watched - number - 1) % count)
        busy = bus.valid | answered
        ahead = Mux(busy, Mux(owner == self.watched, 0, behind + 1), behind)
        spent = Mux(bus.valid, slow + 1, Mux(answered, ANSWER + 1, 0))  # cycles of the turn under way, at most
        m.d.comb += [
            Assert(owner < count), Assert(~busy | Array(one.valid for one in dut.initiators)[owner]),
            Assert(~(bus.valid & answered)), Assert(bus.valid | (slow == 0)),
        ]
        with m.If(waits):
            m.d.comb += [
                Assert(others + ahead <= count - 1),
                Assert(cycles <= others * turn + spent),
                Assert(cycles <= count * turn),
            ]
        return m


class DecoderContract(Elaboratable):
    """Every access reaches the one target whose range holds its address, or is answered with an error at once."""

    def __init__(self, dut, ranges):
        self.dut, self.ranges = dut, ranges

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        free_inputs(m, dut)
        bus, hits = dut.bus, []
        for target, part in zip(dut.targets, self.ranges, strict=True):
            hit = (bus.address >= part.start) & (bus.address < part.stop)
            hits.append(hit)
            m.d.comb += [Assume(target.valid | ~target.ready), Assert(target.valid == (bus.valid & hit))]
            with m.If(target.valid):
                m.d.comb += [Assert(getattr(target, field) == getattr(bus, field)) for field in REQUEST]
                m.d.comb += [Assert(bus.ready == target.ready), Assert(bus.error == target.error),
                             Assert(bus.r_data == target.r_data)]
        with m.If(bus.valid & ~Cat(hits).any()):
            m.d.comb += Assert(bus.ready & bus.error)
        m.d.comb += Assert(bus.valid | ~bus.ready)
        return m


class RegisterContract(Elaboratable):
    """A block of registers: what was written with byte enables is read, and nothing else ever changes a value.

    `fields`: (word address, lsb, port, may be written) of every field, pulses left out; a port that software only
    reads is an input of `dut` and free here. `dut` also has the ports of `CsrSignature` at `bus`.
    """

    def __init__(self, dut, fields, resets):
        self.dut, self.fields, self.resets = dut, fields, resets

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        free_inputs(m, dut)
        bus = dut.bus
        m.d.comb += Assume(obeys(m, bus, "bus"))
        acting, answering = Signal(), Signal()  # an access is in its second cycle, in its third
        m.d.sync += [acting.eq(bus.valid & ~acting & ~answering), answering.eq(acting)]
        mask = Cat(bit.replicate(8) for bit in bus.w_mask)
        expected = Signal(32)  # the word as it was before the access changed it
        for number, (address, lsb, name, writable) in enumerate(self.fields):
            port = getattr(dut, name)
            here = bus.address == address
            if writable:
                model = Signal(len(port), init=self.resets[name], name=f"model_{number}")
                m.d.comb += Assert(port == model)
                with m.If(acting & here & bus.write):
                    place = mask[lsb:lsb + len(port)]
                    m.d.sync += model.eq((model & ~place) | (bus.w_data[lsb:lsb + len(port)] & place))
            with m.If(acting & here):
                m.d.sync += expected[lsb:lsb + len(port)].eq(port)
        self._answers(m, bus, answering, expected)
        return m

    def _answers(self, m, bus, answering, expected):
        """Three cycles an access; errors exactly where nothing can answer; data as the model has it."""
        read_here = Cat(bus.address == address for address in {field[0] for field in self.fields}).any()
        write_here = Cat(bus.address == address for address in {field[0] for field in self.fields if field[3]}).any()
        with m.If(answering):
            m.d.comb += [Assert(bus.ready), Assert(bus.error == ~Mux(bus.write, write_here, read_here))]
        with m.Else():
            m.d.comb += Assert(~bus.ready)
        for address in sorted({field[0] for field in self.fields}):
            bits = 0
            for at, lsb, name, _ in self.fields:
                if at == address:
                    bits |= ((1 << len(getattr(self.dut, name))) - 1) << lsb
            with m.If(answering & ~bus.write & (bus.address == address)):
                m.d.comb += Assert(bus.r_data == (expected & bits))
