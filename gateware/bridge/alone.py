"""`LinkAlone`: the link without a device, for simulating the line: serial port, bridge, memory in place of registers.

Words 0 to `MEMORY_WORDS` answer but for the `link` block, which is the bridge's own; other addresses are refused. With
`uart_pins` the link is on the pins, else on the byte streams behind them, as in `Device`. `applied` is high for one
cycle behind each write that the bus took, with its address and data.
"""

from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import DeviceConfig
from ..csr.bus import CsrSignature
from ..csr.decoder import CsrDecoder
from ..csr.regmap import WORD_ADDRESS_WIDTH, word_ranges
from ..stream.telemetry import TELEMETRY_WORD
from .link import LinkBridge
from .serial import SerialPort
from .uart import period_of

__all__ = ["MEMORY_WORDS", "LinkAlone"]

MEMORY_WORDS = 1 << 15
BOOT_NONCE = 0x1F2E_3D4C


class _MemoryTarget(wiring.Component):
    """Words of memory on the register bus; an access takes two cycles."""

    bus: In(CsrSignature(WORD_ADDRESS_WIDTH))

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = memory.Memory(shape=32, depth=MEMORY_WORDS, init=[])
        write, read = words.write_port(granularity=8), words.read_port()
        fetched = Signal()
        m.d.sync += fetched.eq(self.bus.valid & ~fetched)
        m.d.comb += [
            write.addr.eq(self.bus.address),
            write.data.eq(self.bus.w_data),
            read.addr.eq(self.bus.address),
            self.bus.r_data.eq(read.data),
            self.bus.ready.eq(self.bus.valid & fetched),
        ]
        with m.If(self.bus.valid & self.bus.write & fetched):
            m.d.comb += write.en.eq(self.bus.w_mask)
        return m


class LinkAlone(wiring.Component):
    """The top level. config: of the device whose link it is."""

    def __init__(self, config: DeviceConfig):
        self._config = config
        super().__init__({
            "uart_rx": In(1, init=1),
            "uart_tx": Out(1, init=1),
            "uart_pins": In(1),
            "link_rx": In(stream.Signature(8)),
            "link_tx": Out(stream.Signature(8)),
            "telemetry": In(stream.Signature(TELEMETRY_WORD)),
            "applied": Out(1),
            "applied_address": Out(WORD_ADDRESS_WIDTH),
            "applied_data": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        own, = word_ranges(["link"])
        memory_ranges = [range(own.start), range(own.stop, MEMORY_WORDS)]
        m.submodules.port = port = SerialPort(period_of(config.clock_hz, config.uart_baud))
        m.submodules.link = link = LinkBridge(config)
        m.submodules.decoder = decoder = CsrDecoder([own, memory_ranges])
        m.submodules.target = target = _MemoryTarget()
        m.d.comb += [
            port.rx_pin.eq(self.uart_rx),
            self.uart_tx.eq(port.tx_pin),
            link.boot_nonce.eq(BOOT_NONCE),
        ]
        with m.If(self.uart_pins):
            wiring.connect(m, port.rx, link.rx)
            wiring.connect(m, link.tx, port.tx)
        with m.Else():
            wiring.connect(m, wiring.flipped(self.link_rx), link.rx)
            wiring.connect(m, link.tx, wiring.flipped(self.link_tx))
        m.d.sync += [
            self.applied.eq(link.bus.valid & link.bus.write & link.bus.ready & ~link.bus.error),
            self.applied_address.eq(link.bus.address),
            self.applied_data.eq(link.bus.w_data),
        ]
        wiring.connect(m, wiring.flipped(self.telemetry), link.telemetry)
        wiring.connect(m, link.bus, decoder.bus)
        wiring.connect(m, decoder.targets[0], link.registers)
        wiring.connect(m, decoder.targets[1], target.bus)
        return m
