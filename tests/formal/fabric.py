"""Contract of the fabric on its ports: what leaves was admitted, by a table that grants it, once and in order.

Tenant, input, output and packet are symbolic: any, but fixed. The environment is that of the device. The allocation bus
behaves as the resource manager is proven to (`allocation.py`): rows are written outside the table in force, bank and
epoch change together. Each input offers packets of one or two beats, any header, at any time, under the contract of a
packet port; each word carries the number of its packet at that input. Sinks stall at will. Nothing of how the fabric
works is used. Weights are 0 or 1024, each tenant has its part of the pages. Left out: shaping (every rate is full), the
stall time-out, the engines' feedback (always eligible).

`Crossing` is one crosspoint between an admission and a reader, with the ports of a fabric; who is granted is free, so
that what holds for it holds under any scheduler and shaper.
"""

from functools import reduce

from amaranth import *
from amaranth.lib import wiring

from gateware.fabric.admission import Admission
from gateware.fabric.crosspoint import Crosspoint
from gateware.fabric.fabric import Fabric
from gateware.fabric.reader import Reader
from gateware.manager.allocation import BANKS, FULL_RATE, AllocationRow, reset_row
from tests.formal.prover import AnyConst, AnySeq, Assert, Assume

COUNT = 6  # bits of a packet's number; below 64 packets an input


def open_row(tenant, config):
    """A row that grants every tenant every port, and each its part of the pages."""
    return {**reset_row(tenant, config), "weight": 1024, "pages": config.pages // config.tenants,
            "ports": (1 << config.ports) - 1}


class FabricContract(Elaboratable):
    """`dut` has the ports of `Fabric(config)`; `inputs` of it are driven, the others are silent.

    order: also follow a packet, to see that each leaves once, whole, and in order. changing: tables change; else the
    one that the memories begin with is in force for ever (`open_row` grants everybody everything).
    """

    def __init__(self, dut, config, inputs=None, order=True, changing=True):
        self.dut, self.config, self.order, self.changing = dut, config, order, changing
        self.inputs = range(config.ports) if inputs is None else inputs

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        config = self.config
        self.tenant = Signal(range(config.tenants))
        self.source = Signal(range(config.ports))
        self.output = Signal(range(config.ports))
        for chosen, bound in ((self.tenant, config.tenants), (self.source, config.ports), (self.output, config.ports)):
            m.d.comb += [chosen.eq(AnyConst(len(chosen))), Assume(chosen < bound)]
        m.d.comb += Assume(Cat(self.source == number for number in self.inputs).any())
        m.d.comb += [dut.engine.eligible.eq(~0), dut.cycle.eq(0), dut.stall_timeout.eq(0)]
        if self.changing:
            granted = self._table(m)
        else:
            granted = C(1)
            self.epoch = C(0, 8)
            m.d.comb += dut.allocation.sum_pages.eq(config.pages)
        decided = [self._input(m, number) for number in self.inputs]
        for output in dut.outputs:
            m.d.comb += [output.header.ready.eq(AnySeq(1)), output.data.ready.eq(AnySeq(1))]
        self._follow(m, granted, decided)
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
        """Offers packets at one input, and numbers its decisions, which come in the order of the packets."""
        port, config = self.dut.inputs[number], self.config
        sent, header_left, beats_left, offers = Signal(COUNT), Signal(), Signal(2), Signal()
        begin, header = Signal(), Signal.like(port.header.payload)
        fresh, two = Signal.like(header), Signal()
        m.d.comb += [
            begin.eq(AnySeq(1)), two.eq(AnySeq(1)), offers.eq(AnySeq(1)),
            fresh.as_value().eq(AnySeq(len(fresh.as_value()))),
            Assume((fresh.flow_hash == 0) & (fresh.timestamp == 0) & (fresh.epoch == 0) & (fresh.source == 0)),
            Assume(fresh.length == Mux(two, 2 * config.beat_bytes, config.beat_bytes)),
            Assume(fresh.tenant <= config.tenants),
            port.header.valid.eq(header_left), port.header.payload.eq(header),
            port.data.valid.eq((beats_left != 0) & offers),
            port.data.payload.data.eq(sent), port.data.payload.last.eq(beats_left == 1),
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
            m.d.sync += [header.eq(fresh), header_left.eq(1), beats_left.eq(Mux(two, 2, 1)), sent.eq(sent + 1)]
        event, decided = self.dut.ingress[number], Signal(COUNT)
        with m.If(event.admit | event.drop):
            m.d.sync += decided.eq(decided + 1)
        m.d.comb += Assert(~(event.admit & event.drop))
        mine = (self.source == number) & event.admit & (event.header.tenant == self.tenant) \
            & (event.header.destination == self.output)
        return Mux(mine, decided + 1, 0)

    def _follow(self, m, granted, decided):
        """The followed packet, by its number at its input, and its place among those of its flow."""
        config = self.config
        admitted = Signal(COUNT)   # number of the packet that is admitted to the flow in this cycle, or 0
        m.d.comb += admitted.eq(reduce(lambda a, b: a | b, decided))
        wanted, place = Signal(COUNT), Signal(COUNT)
        count, known = Signal(COUNT), Signal()
        m.d.comb += wanted.eq(AnyConst(COUNT))
        with m.If(admitted != 0):
            m.d.sync += count.eq(count + 1)
            with m.If(admitted == wanted):
                m.d.sync += [known.eq(1), place.eq(count)]
        self.left = [Signal(COUNT, name=f"left_{number}") for number in range(config.ports)]
        for number, output in enumerate(self.dut.outputs):
            with m.If(self.output == number):
                self._leave(m, number, output, granted, wanted, known & (place == self.left[number]), count)

    def _leave(self, m, number, output, granted, wanted, is_next, count):
        """Headers and words of one output; `is_next`: the flow's next packet is the followed one."""
        header, word, beats = output.header, output.data, Signal(2, name=f"beats_{number}")
        left = self.left[number]
        headers, packets, words = (Signal(COUNT, name=f"{name}_{number}") for name in ("headers", "packets", "words"))
        gone, position, length = Signal(name=f"gone_{number}"), Signal(COUNT, name=f"position_{number}"), Signal(12)
        flow, here, mine = (Signal(name=f"{name}_{number}") for name in ("flow", "here", "mine"))
        m.d.comb += [
            flow.eq(header.valid & (header.payload.tenant == self.tenant) & (header.payload.source == self.source)),
            here.eq(flow & is_next & (headers == packets)),           # its header is on offer
            mine.eq(here | (gone & (position == packets))),           # the word on offer is the followed packet's
            beats.eq(Mux(here, header.payload.length, length) >> (self.config.beat_bytes.bit_length() - 1)),
        ]
        with m.If(header.valid):
            m.d.comb += Assert(header.payload.destination == number)
            with m.If((header.payload.tenant == self.tenant) & (header.payload.epoch == self.epoch)):
                m.d.comb += Assert(granted)
        if not self.order:
            return
        with m.If(flow):
            m.d.comb += Assert(left < count)              # nothing that was not admitted, nothing twice
        with m.If(header.valid & header.ready):
            m.d.sync += [headers.eq(headers + 1), left.eq(left + flow)]
            with m.If(flow & is_next):
                m.d.sync += [gone.eq(1), position.eq(headers), length.eq(header.payload.length)]
        with m.If(word.valid):
            m.d.comb += Assert(header.valid | (packets != headers))   # no word before its header
            with m.If(mine):
                m.d.comb += [Assert(word.payload.data == wanted), Assert(word.payload.last == (words + 1 == beats))]
            with m.If(word.ready):
                m.d.sync += [words.eq(Mux(word.payload.last, 0, words + 1)), packets.eq(packets + word.payload.last)]


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
