"""Contracts of what stands around the gates of the DMA engines: nothing leaves beside them, and who asks is the owner.

`ClosedContract`: an endpoint whose gates let nothing pass (`GateWith`) sends no request, whatever its engines, its
completer, the link and software do, while MSI-X is off; with MSI-X on only interrupts leave. So every other request
passes a gate.

`OwnerContract`: each DMA command of the host queues names the tenant from whose row, or from whose descriptor, its
address comes, and the generation of that row. To see where an address comes from, the neighbours colour it: what the
table says of tenant t, and what is read by a command of tenant t, has t in its top bit; generations have it in their
lowest. The contract plays the table, the DMA engines and the fabric, at will.
"""

from unittest import mock

from amaranth import *
from amaranth.lib import wiring

from gateware.config import DeviceConfig
from gateware.pcie.dma import Outcome
from gateware.pcie.protection import LENGTH_BITS, Gate
from gateware.pcie.queue_engine import QueueEngine
from gateware.pcie.queue_ports import QueueReceiver, QueueSender
from gateware.pcie.queue_table import CONTROL, RING
from tests.formal.prover import AnySeq, Assert, Assume, free_inputs

#: Commands under way at once; cycles in which `QueueTable` clears a row before it enables it.
TENANTS, COMMANDS, CLEAR = 2, 4, 8


class GateWith(Gate):
    """In the place of a `Gate`: any outputs at any time; what leaves it is valid at will if `opened`, or never."""

    def __init__(self, width, opened):
        self._opened = opened
        super().__init__(width)

    def elaborate(self, platform):
        m = Module()
        for _, member, value in self.signature.flatten(self):
            if member.flow is wiring.Out:
                signal = Value.cast(value)
                m.d.comb += signal.eq(AnySeq(len(signal)))
        if not self._opened:
            m.d.comb += self.passed.valid.eq(0)
        return m


class ClosedContract(Elaboratable):
    """`make` makes the endpoint, which is elaborated with gates that are `opened` or closed."""

    def __init__(self, make, opened=False):
        self._make, self._opened = make, opened

    def elaborate(self, platform):
        m = Module()
        with mock.patch("gateware.pcie.dma_write.Gate", lambda width: GateWith(width, self._opened)), \
             mock.patch("gateware.pcie.dma_read.Gate", lambda width: GateWith(width, self._opened)):
            dut = self._make()
            m.submodules.dut = Fragment.get(dut, None)
        free_inputs(m, dut)
        m.d.comb += [Assume(~dut.msix_enable), Assert(~dut.requests.valid)]
        return m


class OwnerContract(Elaboratable):
    """`make` makes the engine from a configuration, a sender and a receiver; it has the ports of `QueueEngine`."""

    def __init__(self, make=QueueEngine):
        self._make = make

    def elaborate(self, platform):
        m = Module()
        config = DeviceConfig(tenants=TENANTS, pcie_width=64, host_queues=True)
        sender, receiver = QueueSender(config), QueueReceiver(config)
        m.submodules.dut = dut = self._make(config, sender, receiver)
        free_inputs(m, dut)
        for port in (sender.next.ready, sender.settled, receiver.asks.valid, Value.cast(receiver.asks.payload),
                     receiver.beats.valid, Value.cast(receiver.beats.payload)):
            m.d.comb += port.eq(AnySeq(len(port)))
        self._table(m, dut.table)
        self._packets(m, receiver.asks)
        self._memory(m, dut.dma)
        for commands in (dut.dma.read_commands, dut.dma.write_commands):
            command = commands.payload
            m.d.comb += Assert(~commands.valid | (
                (command.tenant < TENANTS) & (command.address[-1] == command.tenant[0])
                & (command.generation[0] == command.tenant[0])))
        return m

    def _table(self, m, table):
        """Rows of any content but for the colour; no ring lies so high that its end has another one. A row is enabled
        when the engine was not at work for it while its eight words were cleared; one that it stops is disabled."""
        word, tenant, enabled, stopped = Signal(4), Signal(), Signal(TENANTS), Signal(TENANTS)
        m.d.sync += [word.eq(table.word), tenant.eq(table.tenant), enabled.eq(table.enabled),
                     stopped.eq(table.stop << table.tenant[0])]
        high, control = (word == RING + 1) | (word == RING + 3), word == CONTROL
        m.d.comb += [
            Assume(~high | (table.value[30:] == tenant << 1)), Assume(~control | (table.value[8] == tenant)),
            Assume((table.enabled & stopped) == 0),
        ]
        for index in range(TENANTS):
            quiet = Signal(range(CLEAR + 1), init=CLEAR, name=f"quiet{index}")
            with m.If(table.enabled[index] | table.busy[index]):
                m.d.sync += quiet.eq(0)
            with m.Elif(quiet != CLEAR):
                m.d.sync += quiet.eq(quiet + 1)
            m.d.comb += Assume(~table.enabled[index] | enabled[index] | (quiet == CLEAR))

    def _packets(self, m, asks):
        """Only tenants with a queue are asked for; what is offered is held."""
        before = Signal.like(Value.cast(asks.payload))
        waits = Signal()
        m.d.sync += [before.eq(asks.payload), waits.eq(asks.valid & ~asks.ready)]
        m.d.comb += [Assume(asks.payload.tenant < TENANTS),
                     Assume(~waits | (asks.valid & (Value.cast(asks.payload) == before)))]

    def _memory(self, m, dma):
        """Data and reports come in the order of the commands. A command fails, with any data, or brings as many beats
        as it asked for, each with the colour of its tenant; its report follows its last beat."""
        commands, data, reports = dma.read_commands, dma.read_data, dma.read_reports
        owners, fails, fail = Signal(COMMANDS), Signal(COMMANDS), AnySeq(1)
        sizes = Array(Signal(LENGTH_BITS, name=f"size{index}") for index in range(COMMANDS))
        given, taken, ended = (Signal(range(COMMANDS), name=name) for name in ("given", "taken", "ended"))
        beat, good = Signal(LENGTH_BITS), ~fails.bit_select(taken, 1)
        m.d.comb += [
            Assume(~commands.ready | ((given + 1)[:len(given)] != ended)), Assume(~data.valid | (given != taken)),
            Assume(~good | (data.payload.data[-1] == owners.bit_select(taken, 1))),
            Assume(~good | (data.payload.last == (beat * 8 + 8 >= sizes[taken]))),
            Assume(~reports.valid | (taken != ended)),
            Assume((reports.payload.outcome == Outcome.DONE) == ~fails.bit_select(ended, 1)),
        ]
        with m.If(commands.valid & commands.ready):
            m.d.sync += [owners.bit_select(given, 1).eq(commands.payload.tenant), fails.bit_select(given, 1).eq(fail),
                         sizes[given].eq(commands.payload.length), given.eq(given + 1)]
        with m.If(data.valid & data.ready):
            m.d.sync += [beat.eq(Mux(data.payload.last, 0, beat + 1)), taken.eq(taken + data.payload.last)]
        with m.If(reports.valid & reports.ready):
            m.d.sync += ended.eq(ended + 1)
