"""Contract of the whole fabric, for ever: what leaves an output was sent there, and was granted the way.

Tenant, input, output and a moment are symbolic: any, but fixed. The fabric looks at neither the flow hash nor the words
of a packet, so they can carry what has to be known of it: marks, given where it is offered and read where it leaves.
`WAY` is on the followed tenant's packets that are offered at the followed input from that moment on; `ELSEWHERE` on
what is bound for another output. So it is no matter whom the header that leaves names, nor in which list the packet was
kept. As tenant and all are any, what holds for a marked packet holds for each.

The crosspoints' memories of beats and descriptors are abstracted (`AnyMemory`): one gives any word that keeps the
claim, and of each word that is written it is claimed that it does. That is sound: a word that keeps it once does so for
ever, as does the zero that a memory begins with, so the first word to break it would be one that is written. Where
words are kept, and how many there are, does not matter then: so the crosspoints' accounts and lists give anything as
well, in every cycle (`anything`). Whatever they really do is among that.

Everything else is free: headers, lengths and words, whether they fit each other or not; sinks, shares, rates, time, the
stall time-out, the engines' feedback. Of the allocation bus is assumed what the resource manager is proven to keep
(`allocation.py`): rows are written outside the table in force, bank and epoch change together. Epochs are compared and
counted, no more, so instead of any epoch one is followed, and the first one is any. Left out is who grants answers, the
packets of class `RESPONSE` at the engines' input: no table does.
"""

from types import SimpleNamespace
from unittest.mock import patch

from amaranth import *
from amaranth.lib.wiring import Out

from gateware.fabric import crosspoint
from gateware.fabric.crosspoint import stored_header
from gateware.manager.allocation import BANKS, reset_row
from gateware.stream.packet import PROCESS, FlowClass, PacketHeader, beat_layout
from tests.formal.prover import AnyConst, AnySeq, Assert, Assume, free_inputs, internals

EPOCH = 0  # the followed one; the first one is any
AHEAD = 1  # packets of which a header was offered and the last word was not
WAY, ELSEWHERE = 0, 1  # marks: bits of flow hash and words
#: Of the claims: about what leaves, if what is kept is right; about what is kept of headers; of words.
PARTS = ("leaves", "headers", "words")


class AnyMemory(Elaboratable):
    """In place of `amaranth.lib.memory.Memory`: `read` is any word, in every cycle; `written` is a word or zero."""

    def __init__(self, *, shape, depth, init, attrs):
        if init:
            raise ValueError("init must be empty: the claims about a word must hold for what a memory begins with")
        self._write = SimpleNamespace(en=Signal(), addr=Signal(range(depth)), data=Signal(shape))
        self._read = SimpleNamespace(addr=Signal(range(depth)), data=Signal(shape))

    def write_port(self):
        """Of what `crosspoint` uses."""
        return self._write

    def read_port(self, *, domain):
        """Combinational."""
        return self._read

    def elaborate(self, platform):
        m = Module()
        word, any_word = Value.cast(self._write.data), Value.cast(self._read.data)
        read, written = Signal(len(word), name="read"), Signal(len(word), name="written")
        m.d.comb += [read.eq(AnySeq(len(read))), any_word.eq(read), written.eq(Mux(self._write.en, word, 0))]
        return m


def anything(kind):
    """In place of the component class `kind`: the same ports, of which the outputs are any, in every cycle."""
    class Anything(kind):
        def elaborate(self, platform):
            m = Module()
            for _, member, value in self.signature.flatten(self):
                if member.flow is Out:
                    output = Value.cast(value)
                    m.d.comb += output.eq(AnySeq(len(output)))
            return m
    return Anything


class IsolationContract(Elaboratable):
    """`dut` has the ports of `Fabric(config)`, and is a fabric or has one inside; part: of the claims, see `PARTS`."""

    def __init__(self, dut, config, part):
        self.dut, self.config, self.part = dut, config, part

    def elaborate(self, platform):
        m = Module()
        dut, config = self.dut, self.config
        with patch.multiple(crosspoint, memory=SimpleNamespace(Memory=AnyMemory),
                            Account=anything(crosspoint.Account), Chain=anything(crosspoint.Chain)):
            m.submodules.dut, self.inside = internals(dut)
        free_inputs(m, dut)
        self.tenant, self.source, self.output = chosen = [
            Signal(range(bound), name=name) for name, bound in (
                ("tenant", config.tenants), ("source", config.ports), ("output", config.ports))]
        for signal, bound in zip(chosen, (config.tenants, config.ports, config.ports), strict=True):
            m.d.comb += [signal.eq(AnyConst(len(signal))), Assume(signal < bound)]
        self.follows, followed = Signal(), Signal()   # packets are marked that are offered now
        m.d.comb += self.follows.eq(AnySeq(1) | followed)
        m.d.sync += followed.eq(self.follows)
        granted = self._table(m)
        self.by_epoch, self.since = (self._ever(m, granted & when, name) for when, name in (
            (dut.allocation.epoch == EPOCH, "by_epoch"), (self.follows, "since")))
        for number, port in enumerate(dut.inputs):
            self._offer(m, number, port)
        for number, port in enumerate(dut.outputs):
            self._claim(m, number, port)
        return m

    def _claim(self, m, column, port):
        """The claims about one output, and about what is kept for it."""
        header, word = port.header, port.data
        leaves = self.part == "leaves"
        if leaves:
            m.d.comb += [Assert(~header.valid | self._header(column, header.payload)),
                         Assert(~word.valid | self._word(column, word.payload))]
        for row in range(self.config.ports):
            for part, memory, layout, keeps in (("headers", "descriptors", stored_header, self._header),
                                                ("words", "beats", beat_layout, self._word)):
                path = f"crosspoint_{row}_{column}.{memory}"
                written, read = (keeps(column, layout(self.config)(self._find(f"{path}.{end}")))
                                 for end in ("written", "read"))
                if leaves:
                    m.d.comb += Assume(read)
                elif part == self.part:
                    m.d.comb += Assert(written)

    def _find(self, path):
        """A signal of the fabric, which may be inside the `dut`."""
        for name in self.inside:
            if name.endswith(path):
                return self.inside[name]
        raise KeyError(f"the fabric has no {path}")

    def _header(self, column, header):
        """A header, in a crosspoint or behind it, was not bound for another output; a followed one was granted."""
        return self._keeps(column, header.flow_hash, self.by_epoch | (header.epoch != EPOCH))

    def _word(self, column, word):
        return self._keeps(column, word.data, self.since)

    def _keeps(self, column, marks, granted):
        return (self.output != column) | (~marks[ELSEWHERE] & (~marks[WAY] | granted))

    def _ever(self, m, now, name):
        """It holds, or did."""
        ever = Signal(name=name)
        m.d.sync += ever.eq(ever | now)
        return ever | now

    def _table(self, m):
        """Drives the allocation bus; returns whether the table in force grants the followed tenant the way.

        That is: to the output, and if the engines are there, back to the input as well.
        """
        bus, config = self.dut.allocation, self.config
        change, bank, now = Signal(), Signal.like(bus.active_bank), Signal()
        active, epoch, begun, start = Signal.like(bank), Signal.like(bus.epoch), Signal(), Signal.like(bus.epoch)
        m.d.sync += begun.eq(1)
        m.d.comb += [
            change.eq(AnySeq(1)), bank.eq(AnySeq(len(bank))), start.eq(AnySeq(len(start))),
            bus.active_bank.eq(active), bus.epoch.eq(Mux(begun, epoch, start)),
            Assume((bank < BANKS) & (bus.bank < BANKS) & (bus.tenant < config.tenants)),
            Assume((bank != active) & ~(bus.write & ((bus.bank == active) | (change & (bus.bank == bank))))),
        ]
        m.d.sync += epoch.eq(bus.epoch + change)
        with m.If(change):
            m.d.sync += active.eq(bank)
        for number in range(BANKS):
            for tenant in range(config.tenants):
                ports, admits = self._row(m, number, tenant)
                back = (self.output != config.engine_port) | ports.bit_select(self.source, 1)
                with m.If((active == number) & (self.tenant == tenant)):
                    m.d.comb += now.eq(admits & ports.bit_select(self.output, 1) & back)
        return now

    def _row(self, m, bank, tenant):
        """What the bus said of a row: its ports, and whether it has weight."""
        bus, config = self.dut.allocation, self.config
        reset = reset_row(tenant, config)
        ports = Signal(config.ports, init=reset["ports"], name=f"ports_{bank}_{tenant}")
        admits = Signal(init=reset["weight"] != 0, name=f"admits_{bank}_{tenant}")
        with m.If(bus.write & (bus.bank == bank) & (bus.tenant == tenant)):
            m.d.sync += [ports.eq(bus.row.ports), admits.eq(bus.row.weight != 0)]
        return ports, admits

    def _offer(self, m, number, port):
        """Offers packets at an input: any, but that an offer is held, and no word comes before its packet's header."""
        header, word, fresh = port.header, port.data, Signal(PacketHeader)
        begins, goes_on, ends = Signal(), Signal(), Signal()   # a header, a word, a last word is offered next
        marks, inside = Signal(2 * AHEAD), Signal(range(AHEAD + 1))   # of the packets inside, oldest first
        mine, held = Signal(2), Signal(2)
        m.d.comb += [
            *(signal.eq(AnySeq(len(Value.cast(signal)))) for signal in (fresh, goes_on, ends)),
            begins.eq(AnySeq(1) & (~header.valid | header.ready) & (inside != AHEAD)),
            mine.eq(self._marks(number, fresh)),
        ]
        header_valid, header_held, word_valid, last = Signal(), Signal(PacketHeader), Signal(), Signal()
        may = ~word.valid | word.ready
        marks_now, inside_now = Signal.like(marks), Signal.like(inside)
        m.d.comb += [
            header.valid.eq(header_valid), header.payload.eq(header_held), word.valid.eq(word_valid),
            word.payload.last.eq(last), word.payload.data[:2].eq(held),
            marks_now.eq(marks | (Mux(begins, mine, 0) << (inside << 1))), inside_now.eq(inside + begins),
        ]
        sends = goes_on & may & (inside_now != 0)
        with m.If(~header_valid | header.ready):
            m.d.sync += [header_valid.eq(begins), header_held.eq(fresh), header_held.flow_hash.eq(mine)]
        with m.If(may):
            m.d.sync += [word_valid.eq(sends), last.eq(ends), held.eq(marks_now[:2])]
        gone = sends & ends
        m.d.sync += [marks.eq(Mux(gone, marks_now >> 2, marks_now)), inside.eq(inside_now - gone)]

    def _marks(self, number, header):
        """Of a packet that is offered: it is followed; it is bound for another output."""
        config = self.config
        answer = (number == config.engine_port) & (header.flow_class == FlowClass.RESPONSE)
        first = self.follows & (self.source == number) & (header.tenant == self.tenant) & ~answer
        processed = (header.destination == PROCESS) & ((self.output == config.host_port)
                                                       | (self.output == config.engine_port))
        return Cat(first, (header.destination != self.output) & ~processed)
