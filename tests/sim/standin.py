"""`StandIn`: a small top level with the ports of `gateware.device.Device`, for tests of the board itself.

It loops every port, and can be told to lose, duplicate, corrupt, reorder or misroute one packet of the host
port, so that a test sees whether the board's scoreboard notices. It is a test fixture, not a device.

Registers (word addresses): 0 magic, 1 the word 0x5A5A0001, 0xA and 0xB the cycle counter, 0xC scratch,
0x20 fault (bits 2..0) and the number of the packet it hits (bits 31..16, counted from 0 since reset), 0x21 tenants
without credit at the host port (a bit each). 0x30 never answers. Every other address answers an error.
"""

from amaranth import *
from amaranth.lib import enum, stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.config import MAX_PACKET_BEATS, DeviceConfig
from gateware.csr.bus import CsrSignature
from gateware.stream.packet import FlowClass, PacketHeader, PacketSignature, beat_layout

MAGIC = 0x46524F4D
REG_FAULT = 0x20
REG_NO_CREDIT = 0x21
REG_MUTE = 0x30
WINDOW_CYCLES = 1000
WINDOW_WORDS = 24
WINDOW_SCHEMA = 0x4D57_0201  # one tenant


class Fault(enum.Enum, shape=unsigned(3)):
    """What happens to one packet of the host port."""

    NONE = 0
    LOSE = 1
    DUPLICATE = 2
    CORRUPT = 3
    REORDER = 4
    MISROUTE = 5  # leaves as another tenant's
    SHORTEN = 6  # loses its last beat


class LoopPort(wiring.Component):
    """Store-and-forward loop of one port: a packet is taken whole, then sent; a fault may hit the `nth` packet.

    With `framed` false there is no header stream in: tenant 0, destination and source `port`, the length counted.
    """

    def __init__(self, config: DeviceConfig, *, port: int, framed: bool):
        self._config, self._port, self._framed = config, port, framed
        super().__init__({
            "header": In(stream.Signature(PacketHeader)),
            "rx": In(stream.Signature(beat_layout(config))),
            "tx": Out(PacketSignature(config)),
            "fault": In(Fault),
            "nth": In(16),
            "cycle": In(32),
        })

    def elaborate(self, platform):
        m = Module()
        layout = beat_layout(self._config)
        m.submodules.store = store = Memory(shape=layout, depth=2 * MAX_PACKET_BEATS, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        headers = Array(Signal(PacketHeader, name=f"header{i}") for i in range(2))
        lengths = Array(Signal(range(MAX_PACKET_BEATS + 1), name=f"beats{i}") for i in range(2))
        bank, beat, count = Signal(), Signal(range(MAX_PACKET_BEATS + 1)), Signal(16)
        again, header_sent = Signal(2), Signal()
        hit = Signal()
        m.d.comb += [
            hit.eq((self.fault != Fault.NONE) & (count == self.nth)),
            write.addr.eq(Cat(beat[:8], bank)), write.data.eq(self.rx.payload),
            read.addr.eq(Cat(beat[:8], bank)),
        ]
        have_header = Signal()
        with m.FSM():
            # Take one packet: the header first, then its beats.
            with m.State("RECEIVE"):
                m.d.comb += self.rx.ready.eq(have_header | (not self._framed))
                if self._framed:
                    m.d.comb += self.header.ready.eq(~have_header)
                    with m.If(self.header.valid & ~have_header):
                        m.d.sync += [have_header.eq(1), headers[bank].eq(self.header.payload),
                                     headers[bank].source.eq(self._port),
                                     headers[bank].timestamp.eq(self.cycle)]
                with m.If(self.rx.valid & self.rx.ready):
                    m.d.comb += write.en.eq(1)
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(self.rx.payload.last):
                        if not self._framed:
                            m.d.sync += self._make_header(headers[bank], beat)
                        m.d.sync += [beat.eq(0), lengths[bank].eq(beat), have_header.eq(0)]
                        m.next = "DECIDE"
            # Nth packet: apply the fault.
            with m.State("DECIDE"):
                m.d.sync += [count.eq(count + 1), again.eq(1)]
                m.next = "SEND"
                with m.If(hit):
                    with m.Switch(self.fault):
                        with m.Case(Fault.LOSE):
                            m.next = "RECEIVE"
                        with m.Case(Fault.DUPLICATE):
                            m.d.sync += again.eq(2)
                        with m.Case(Fault.REORDER):
                            m.d.sync += bank.eq(1)
                            m.next = "RECEIVE"
                        with m.Case(Fault.MISROUTE):
                            m.d.sync += headers[bank].tenant.eq(headers[bank].tenant ^ 1)
                with m.Elif(bank):
                    m.d.sync += again.eq(1)
            with m.State("SEND"):
                with m.If(self.tx.header.valid & self.tx.header.ready):
                    m.d.sync += header_sent.eq(1)
                m.d.comb += [
                    self.tx.header.valid.eq(~header_sent), self.tx.header.payload.eq(headers[bank]),
                    self.tx.data.valid.eq(1), self.tx.data.payload.eq(read.data),
                ]
                corrupt = (self.fault == Fault.CORRUPT) & (count == self.nth + 1) & (beat == lengths[bank])
                with m.If(corrupt):
                    m.d.comb += self.tx.data.payload.data.eq(read.data.data ^ 4)
                shorten = (self.fault == Fault.SHORTEN) & (count == self.nth + 1) & (lengths[bank] != 0)
                final = Signal()
                m.d.comb += final.eq(read.data.last | (shorten & (beat == lengths[bank] - 1)))
                with m.If(final):
                    m.d.comb += self.tx.data.payload.last.eq(1)
                with m.If(self.tx.data.ready):
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(final):
                        m.d.sync += [beat.eq(0), again.eq(again - 1), header_sent.eq(0)]
                        with m.If(again == 1):
                            m.next = "RECEIVE"
                            # A held packet (reordered) follows the one that overtook it.
                            with m.If(bank):
                                m.d.sync += [bank.eq(0), again.eq(1)]
                                m.next = "SEND"
        return m

    def _make_header(self, header, beat):
        """Statements that fill the header of a packet that came without one."""
        size = self._config.beat_bytes
        return [header.eq(0), header.source.eq(self._port), header.destination.eq(self._port),
                header.length.eq((beat + 1) * size - self.rx.payload.empty),
                header.flow_class.eq(FlowClass.BEST_EFFORT), header.timestamp.eq(self.cycle)]


class StandIn(wiring.Component):
    """See the module's docstring."""

    def __init__(self, config: DeviceConfig | None = None, more: dict | None = None):
        self.config = config = config or DeviceConfig()
        n_net = len(config.net_ports)
        super().__init__({
            "mmio": In(CsrSignature(16)),
            "link_rx": In(stream.Signature(8)), "link_tx": Out(stream.Signature(8)),
            "uart_rx": In(1, init=1), "uart_tx": Out(1, init=1), "uart_pins": In(1),
            "telemetry": Out(stream.Signature(StructLayout({"data": 32, "last": 1}))),
            "host_rx": In(PacketSignature(config)), "host_tx": Out(PacketSignature(config)),
            "net_rx": In(stream.Signature(beat_layout(config))).array(n_net),
            "net_tx": Out(PacketSignature(config)).array(n_net),
            "cycle": Out(64), "epoch": Out(8), "boot_nonce": In(32), "uid": In(64), "interrupt": Out(1),
            "host_credit": Out(config.tenants, init=-1),
        } | (more or {}))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += [self.cycle.eq(self.cycle + 1), self.uart_tx.eq(self.uart_rx)]
        fault, no_credit = Signal(32), Signal(32)
        m.d.comb += self.host_credit.eq(~no_credit)
        self._registers(m, {REG_FAULT: fault, REG_NO_CREDIT: no_credit})
        self._window(m)
        m.submodules.host = host = LoopPort(self.config, port=0, framed=True)
        connect(m, flipped(self.host_rx).header, host.header)
        connect(m, flipped(self.host_rx).data, host.rx)
        connect(m, host.tx, flipped(self.host_tx))
        m.d.comb += [host.fault.eq(fault[:3]), host.nth.eq(fault[16:]), host.cycle.eq(self.cycle)]
        for index, port in enumerate(self.config.net_ports):
            m.submodules[f"net{index}"] = net = LoopPort(self.config, port=port, framed=False)
            connect(m, flipped(self.net_rx[index]), net.rx)
            connect(m, net.tx, flipped(self.net_tx[index]))
            m.d.comb += net.cycle.eq(self.cycle)
        connect(m, flipped(self.link_rx), flipped(self.link_tx))
        return m

    def _registers(self, m, settings):
        """A few registers; each access takes two cycles."""
        bus, scratch = self.mmio, Signal(32)
        writable = {0xC: scratch, **settings}
        values = {0: C(MAGIC, 32), 1: C(0x5A5A0001, 32), 0x6: self.boot_nonce, 0xA: self.cycle[:32],
                  0xB: self.cycle[32:], **writable}
        waited = Signal()
        m.d.sync += waited.eq(bus.valid & ~waited)
        m.d.comb += [bus.ready.eq(waited & bus.valid & (bus.address != REG_MUTE)), bus.error.eq(1)]
        with m.Switch(bus.address):
            for address, value in values.items():
                with m.Case(address):
                    m.d.comb += [bus.r_data.eq(value), bus.error.eq(bus.write & (address not in writable))]
                    if address in writable:
                        with m.If(bus.valid & bus.ready & bus.write):
                            mask = Cat(bit.replicate(8) for bit in bus.w_mask)
                            m.d.sync += value.eq((bus.w_data & mask) | (value & ~mask))
        m.d.comb += self.epoch.eq(scratch[:8])

    def _window(self, m):
        """A window on the telemetry stream every `WINDOW_CYCLES`; the interrupt pulses at its end."""
        timer, word, number = Signal(range(WINDOW_CYCLES)), Signal(range(WINDOW_WORDS)), Signal(32)
        m.d.sync += timer.eq(timer + 1)
        with m.If(timer == WINDOW_CYCLES - 1):
            m.d.sync += timer.eq(0)
        busy = Signal()
        with m.If(timer == 0):
            m.d.sync += busy.eq(1)
        out = self.telemetry
        m.d.comb += [out.valid.eq(busy), out.payload.last.eq(word == WINDOW_WORDS - 1)]
        with m.Switch(word):
            with m.Case(0):
                m.d.comb += out.payload.data.eq(WINDOW_SCHEMA)
            with m.Case(1):
                m.d.comb += out.payload.data.eq(number)
            with m.Default():
                m.d.comb += out.payload.data.eq(word)
        with m.If(busy & out.ready):
            m.d.sync += word.eq(word + 1)
            with m.If(out.payload.last):
                m.d.sync += [word.eq(0), busy.eq(0), number.eq(number + 1), self.interrupt.eq(1)]
        with m.If(self.interrupt):
            m.d.sync += self.interrupt.eq(0)
