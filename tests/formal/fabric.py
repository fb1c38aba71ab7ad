"""Contract of the fabric on its ports: what leaves was admitted, by a table that grants it, once, whole and in order.

Tenant, input, output, packet and word are symbolic: any, but fixed. The followed packet carries a mark in its header
and in its words, one of which carries a second one; all others carry none. Packets are not told apart by anything else,
so what holds for a marked one holds for each.

The environment is that of the device. The allocation bus behaves as the resource manager is proven to
(`allocation.py`): rows are written outside the table in force, bank and epoch change together. Each input offers
packets of the `lengths` given, any header, at any time, under the contract of a packet port. Sinks stall at will.
Nothing of how the fabric works is used. Weights are 0 or 1024, each tenant has its part of the pages. Left out:
shaping (every rate is full), the stall time-out, the engines' feedback (always eligible), and who grants answers, the
packets of class `RESPONSE` at the engines' input: no table does.

`Crossing` is one crosspoint between an admission and a reader, with the ports of a fabric; who is granted is free, so
that what holds for it holds under any scheduler and shaper.
"""

from amaranth import *
from amaranth.lib import wiring

from gateware.fabric.admission import Admission
from gateware.fabric.crosspoint import Crosspoint
from gateware.fabric.fabric import Fabric
from gateware.fabric.reader import Reader
from gateware.manager.allocation import BANKS, FULL_RATE, AllocationRow, reset_row
from gateware.stream.packet import FlowClass, PacketHeader
from tests.formal.prover import AnyConst, AnySeq, Assert, Assume


def open_row(tenant, config):
    """A row that grants every tenant every port, and each its part of the pages."""
    return {**reset_row(tenant, config), "weight": 1024, "pages": config.pages // config.tenants,
            "ports": (1 << config.ports) - 1}


class FabricContract(Elaboratable):
    """`dut` has the ports of `Fabric(config)`; `inputs` of it are driven, the others are silent.

    order: also follow a packet, to see that each leaves once, whole, and in order. changing: tables change; else the
    one that the memories begin with is in force for ever (`open_row` grants everybody everything). lengths: of packets,
    in beats.
    """

    def __init__(self, dut, config, inputs=None, order=True, changing=True, lengths=(1, 2)):
        self.dut, self.config, self.order, self.changing, self.lengths = dut, config, order, changing, lengths
        self.inputs = range(config.ports) if inputs is None else inputs

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        config = self.config
        self.tenant, self.source, self.output = (
            Signal(range(bound), name=name) for name, bound in (
                ("tenant", config.tenants), ("source", config.ports), ("output", config.ports)))
        self.word, self.marked = Signal(range(max(self.lengths) + 1)), Signal()
        for chosen, bound in ((self.tenant, config.tenants), (self.source, config.ports), (self.output, config.ports)):
            m.d.comb += [chosen.eq(AnyConst(len(chosen))), Assume(chosen < bound)]
        m.d.comb += [Assume(Cat(self.source == number for number in self.inputs).any()),
                     self.word.eq(AnyConst(len(self.word)))]
        m.d.comb += [dut.engine.eligible.eq(~0), dut.cycle.eq(0), dut.stall_timeout.eq(0)]
        if self.changing:
            granted = self._table(m)
        else:
            granted = C(1)
            self.epoch = C(0, 8)
            m.d.comb += dut.allocation.sum_pages.eq(config.pages)
        for number in self.inputs:
            self._input(m, number)
        for output in dut.outputs:
            m.d.comb += [output.header.ready.eq(AnySeq(1)), output.data.ready.eq(AnySeq(1))]
        self._grants(m, granted)
        if self.order:
            self._follow(m)
        return m

    def _table(self, m):
        """Drives the allocation bus; returns whether the followed epoch grants the followed tenant the output."""
        bus, config = self.dut.allocation, self.config
        change, bank = Signal(), Signal.like(bus.active_bank)
        before = Signal.like(bank, init=1)   # in force before the last change
        row, weighs, processed = Signal(AllocationRow), Signal(), Signal()
        m.d.comb += [
            change.eq(AnySeq(1)), bank.eq(AnySeq(len(bank))), Assume((bank < BANKS) & (bank != bus.active_bank)),
            bus.write.eq(AnySeq(1)), bus.bank.eq(AnySeq(len(bus.bank))), bus.tenant.eq(AnySeq(len(bus.tenant))),
            row.weight.eq(weighs << 10), row.pages.eq(config.pages // config.tenants),
            row.ports.eq(AnySeq(config.ports)), row.host_share.eq(processed << 8), row.rate.eq(FULL_RATE),
            row.burst.eq(512), weighs.eq(AnySeq(1)), processed.eq(AnySeq(1)), bus.row.eq(row),
            bus.sum_pages.eq(config.pages),
            Assume(~bus.write | ((bus.bank < BANKS) & (bus.bank != bus.active_bank) & (bus.bank != before))),
            Assume(bus.tenant < config.tenants),
            Assume(~change | ~(bus.write & (bus.bank == bank))),
        ]
        active, epoch = Signal.like(bank), Signal.like(bus.epoch)
        m.d.comb += [bus.active_bank.eq(active), bus.epoch.eq(epoch)]
        with m.If(change):
            m.d.sync += [active.eq(bank), before.eq(active), epoch.eq(epoch + 1)]
        tables = [[Signal(AllocationRow, init=reset_row(tenant, config), name=f"bank_{number}_row_{tenant}")
                   for tenant in range(config.tenants)] for number in range(BANKS)]
        self.epoch = Signal.like(bus.epoch)
        m.d.comb += self.epoch.eq(AnyConst(len(self.epoch)))
        now, ever = Signal(), Signal()
        for number, rows in enumerate(tables):
            for tenant, mine in enumerate(rows):
                with m.If(bus.write & (bus.bank == number) & (bus.tenant == tenant)):
                    m.d.sync += mine.eq(bus.row)
                with m.If((active == number) & (self.tenant == tenant)):
                    m.d.comb += now.eq((mine.weight != 0) & mine.ports.bit_select(self.output, 1))
        with m.If((epoch == self.epoch) & now):
            m.d.sync += ever.eq(1)
        return ever | ((epoch == self.epoch) & now)

    def _input(self, m, number):
        """Offers packets at one input; one of those at the followed one may be marked."""
        port, longest = self.dut.inputs[number], max(self.lengths)
        header_left, beats_left, offers, begin = Signal(), Signal(range(longest + 1)), Signal(), Signal()
        mark, marks, answers = Signal(), Signal(), Signal()
        header, fresh, beats = Signal(PacketHeader), Signal(PacketHeader), Signal(range(longest + 1))
        m.d.comb += [
            *(signal.eq(AnySeq(len(signal))) for signal in (
                begin, beats, offers, mark, answers, fresh.tenant, fresh.destination)),
            Assume(Cat(beats == length for length in self.lengths).any()),
            Assume(fresh.tenant <= self.config.tenants),
            marks.eq(mark & ~self.marked & (self.source == number) & (fresh.tenant == self.tenant)),
            fresh.length.eq(beats * self.config.beat_bytes), fresh.flow_hash.eq(marks),
            fresh.flow_class.eq(Mux(answers, FlowClass.RESPONSE.value, FlowClass.BEST_EFFORT.value)),
            port.header.valid.eq(header_left), port.header.payload.eq(header),
            port.data.valid.eq((beats_left != 0) & offers),
            port.data.payload.data.eq(Cat(header.flow_hash[0], header.flow_hash[0] & (beats_left == self.word))),
            port.data.payload.last.eq(beats_left == 1),
        ]
        # An offer is held until it is taken.
        waited = Signal()
        m.d.sync += waited.eq(port.data.valid & ~port.data.ready)
        m.d.comb += Assume(~waited | port.data.valid)
        with m.If(port.header.ready & header_left):
            m.d.sync += header_left.eq(0)
        with m.If(port.data.valid & port.data.ready):
            m.d.sync += beats_left.eq(beats_left - 1)
        with m.If(begin & ~header_left & (beats_left == 0)):
            m.d.sync += [header.eq(fresh), header_left.eq(1), beats_left.eq(beats)]
            with m.If(marks):
                m.d.sync += self.marked.eq(1)
        event = self.dut.ingress[number]
        m.d.comb += Assert(~(event.admit & event.drop))

    def _grants(self, m, granted):
        """What leaves, leaves where it was sent to, under a table that grants it, unless it is an answer."""
        for number, output in enumerate(self.dut.outputs):
            header, followed, answer = output.header.payload, Signal(), Signal()
            m.d.comb += [
                answer.eq((header.source == self.config.engine_port) & (header.flow_class == FlowClass.RESPONSE)),
                followed.eq(output.header.valid & (self.output == number) & (header.tenant == self.tenant)
                            & (header.epoch == self.epoch)),
                Assert(~output.header.valid | (header.destination == number)),
                Assert(~followed | answer | granted),
            ]

    def _follow(self, m):
        """The packets of the followed flow that are inside, and the marked one's place among them."""
        event, left = Array(self.dut.ingress)[self.source], Array(self.dut.outputs)[self.output]
        header = left.header
        flow, leaves = Signal(), Signal()
        inside, ahead = Signal(6), Signal(6)   # packets of the flow; those that leave before the marked one
        known, gone, due = Signal(), Signal(), Signal()   # it was admitted; its header left; it is next
        admits = event.admit & (event.header.tenant == self.tenant) & (event.header.destination == self.output)
        marked_in = event.admit & event.header.flow_hash[0]
        kept = Signal(PacketHeader)
        # Of any output and tenant, so it is no restriction that the marked packet goes to this one.
        m.d.comb += [Assume(~marked_in | (event.header.destination == self.output)),
                     Assert(~marked_in | (~known & (event.header.tenant == self.tenant)))]
        m.d.comb += [
            flow.eq(header.valid & (header.payload.tenant == self.tenant) & (header.payload.source == self.source)),
            leaves.eq(flow & header.ready), due.eq(known & ~gone & (ahead == 0)),
            Assert(~flow | (inside != 0)),   # nothing that was not admitted, nothing twice
            Assert(~header.valid | (header.payload.flow_hash[0] == (flow & due))),
            *(Assert(~(flow & due) | (Value.cast(header.payload[name]) == Value.cast(kept[name])))
              for name in ("length", "flow_class", "epoch")),
        ]
        m.d.sync += inside.eq(inside + admits - leaves)
        with m.If(marked_in):
            m.d.sync += [known.eq(1), kept.eq(event.header), ahead.eq(inside - leaves)]
        with m.Elif(leaves & (ahead != 0)):
            m.d.sync += ahead.eq(ahead - 1)
        with m.If(leaves & due):
            m.d.sync += gone.eq(1)
        for number, output in enumerate(self.dut.outputs):   # no other output shows a mark
            m.d.comb += Assert((self.output == number) | (
                ~(output.header.valid & output.header.payload.flow_hash[0])
                & ~(output.data.valid & output.data.payload.data[0])))
        self._words(m, header, left.data, flow & due, gone, kept)

    def _words(self, m, header, word, offered, gone, kept):
        """Each header's words follow it; the marked one's are its own, all of them and in order.

        offered: its header is on offer; gone: it was taken.
        """
        behind = Signal(signed(4))               # headers that left, less packets whose last word did
        before, ended = Signal(4), Signal()      # packets under way before the marked one; it has left as well
        words, rest, mine, ends = Signal.like(self.word), Signal.like(self.word), Signal(), Signal()
        data, last, takes = word.payload.data, word.payload.last, Signal()
        shift = self.config.beat_bytes.bit_length() - 1
        m.d.comb += [
            takes.eq(header.valid & header.ready),
            ends.eq(word.valid & word.ready & last),
            mine.eq(~ended & Mux(gone, before == 0, offered & (behind == 0))),
            rest.eq((kept.length >> shift) - words),
            Assert(~word.valid | (behind > 0) | ((behind == 0) & header.valid)),   # no word before its header
            Assert(~word.valid | (data[0] == mine)),
            Assert(~(word.valid & mine) | (data[1] == (rest == self.word))),
            Assert(~(word.valid & mine) | (last == (rest == 1))),
        ]
        m.d.sync += behind.eq(behind + takes - ends)
        with m.If(takes & offered):
            m.d.sync += before.eq(behind - ends)
        with m.Elif(ends & (before != 0)):
            m.d.sync += before.eq(before - 1)
        with m.If(word.valid & word.ready & mine):
            m.d.sync += [words.eq(words + 1), ended.eq(last)]


class Crossing(wiring.Component):
    """The crosspoint from input `port` to output 0, as a fabric of which nothing else is there.

    Packets to other outputs wait at the input for ever. Header and first beat leave together. Credit and the events of
    outputs stay low.
    """

    def __init__(self, config, port=0):
        self.config, self.port = config, port
        super().__init__(Fabric(config).signature)

    def elaborate(self, platform):
        m = Module()
        config, port = self.config, self.port
        m.submodules.admission = admission = Admission(config, port)
        m.submodules.crosspoint = crosspoint = self.make_crosspoint()
        m.submodules.reader = reader = Reader(config, 0)
        wiring.connect(m, wiring.flipped(self.inputs[port]), admission.packets)
        wiring.connect(m, wiring.flipped(self.ingress[port]), admission.ingress)
        for part in (admission, crosspoint):
            wiring.connect(m, wiring.flipped(self.allocation), part.allocation)
        wiring.connect(m, admission.bookings[0], crosspoint.booking)
        wiring.connect(m, admission.crosspoints[0], crosspoint.w)
        wiring.connect(m, reader.crosspoints[port], crosspoint.r)
        for booking in admission.bookings[1:]:
            m.d.comb += booking.hold.eq(1)

        tenant, grant = Signal(range(config.tenants)), reader.grant
        m.d.comb += [
            tenant.eq(AnySeq(len(tenant))), Assume(tenant < config.tenants),
            grant.valid.eq(AnySeq(1)), grant.payload.mask.eq(1 << tenant), grant.payload.tenant.eq(tenant),
        ]
        header, word = self.outputs[0].header, self.outputs[0].data
        m.d.comb += [
            header.valid.eq(reader.valid & reader.first), header.payload.eq(reader.header),
            word.valid.eq(reader.valid), word.payload.eq(reader.beat),
            Assume(header.ready == word.ready), reader.take.eq(reader.valid & word.ready),
        ]
        return m

    def make_crosspoint(self):
        """The one between them; a wrong one in a test."""
        return Crosspoint(self.config)
