"""`Device`: the whole offload device behind vendor-neutral ports, as simulated and as wrapped by a board.

One packet's way: `net_rx` -> `Classifier` (tenant, destination, class) or `host_rx` -> `Fabric` (admission under the
allocation in force, crosspoint queue, scheduled output) -> `net_tx`, `host_tx` or `EngineArray`, whose responses
enter the fabric again. The `Analyzer` and the `ResourceManager` listen to the fabric's events; the manager's
allocation bus reaches every consumer. The logic analyzer `Scope`, where there is one, listens to ports of these blocks.
Software comes in by `mmio` (a processor beside the device), by the serial `LinkBridge` (or `UartBone`), or by BAR0 of
the PCIe `HostInterface` where the configuration has one; they share one CSR bus, in turn.

Ports that are not obvious: `uart_pins` 1 puts the link on the pins `uart_rx`/`uart_tx` through the bit-level
serialiser, 0 on the byte streams `link_rx`/`link_tx` behind it. `telemetry` carries every pushed window; the serial
link gets its own copy when `link.control.push` is set, and neither waits for the other. `pcie`, with
`config.pcie_width`, is the endpoint core's side of the link (`gateware/pcie/tlp.py`).
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .analyzer.analyzer import Analyzer
from .bridge.link import LinkBridge
from .bridge.serial import SerialPort
from .bridge.uart import period_of
from .bridge.uartbone import UartBone
from .config import DeviceConfig
from .csr.arbiter import CsrArbiter
from .csr.bus import CsrSignature
from .csr.decoder import CsrDecoder
from .csr.regmap import word_ranges
from .engine.array import EngineArray
from .engine.generator import Generator
from .fabric.counters import PortCounters
from .fabric.fabric import Fabric
from .identity import Identity
from .manager.manager import ResourceManager
from .pcie.endpoint import LinkSignature
from .pcie.host import HostInterface
from .pcie.host import blocks as pcie_blocks
from .scope.probes import catalogue, choose
from .scope.scope import Scope
from .stream.fork import StreamFork
from .stream.mux import PacketMux
from .stream.packet import PacketSignature, beat_layout
from .stream.telemetry import TELEMETRY_WORD
from .vni.classifier import Classifier

__all__ = ["TELEMETRY_WORD", "Device"]

class Device(wiring.Component):
    """The offload device.

    config: parameters. build_id: 64 bits that name this build; software compares them after flashing.
    """

    def __init__(self, config: DeviceConfig, build_id: int = 0):
        self._config = config
        self._build_id = build_id
        nets = len(config.net_ports)
        super().__init__({
            "mmio": In(CsrSignature(16)),
            "link_rx": In(stream.Signature(8)),
            "link_tx": Out(stream.Signature(8)),
            "uart_rx": In(1, init=1),
            "uart_tx": Out(1, init=1),
            "uart_pins": In(1),
            "telemetry": Out(stream.Signature(TELEMETRY_WORD)),
            "host_rx": In(PacketSignature(config)),
            "host_credit": Out(config.tenants),
            "host_tx": Out(PacketSignature(config)),
            "net_rx": In(stream.Signature(beat_layout(config))).array(nets),
            "net_tx": Out(PacketSignature(config)).array(nets),
            "cycle": Out(64),
            "epoch": Out(8),
            "boot_nonce": In(32),
            "uid": In(64),
            "interrupt": Out(1),
        } | ({"pcie": Out(LinkSignature(config.pcie_width))} if config.pcie_width else {}))

    @property
    def config(self) -> DeviceConfig:
        """Parameters of this device."""
        return self._config

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.identity = identity = Identity(config, self._build_id)
        m.submodules.manager = manager = ResourceManager(config)
        m.submodules.fabric = fabric = Fabric(config)
        m.submodules.counters = counters = PortCounters(config)
        m.submodules.analyzer = analyzer = Analyzer(config)
        m.submodules.classifier = classifier = Classifier(config)
        m.submodules.engines = engines = EngineArray(config)
        m.submodules.generator = generator = Generator(config)
        m.submodules.link = link = UartBone(config) if config.uartbone else LinkBridge(config)

        self._connect_time(m, identity, manager, fabric, analyzer, generator, link)
        initiators, more_blocks = [wiring.flipped(self.mmio), link.bus], {}
        host = self._connect_pcie(m, identity, initiators, more_blocks) if config.pcie_width else None
        self._connect_packets(m, fabric, classifier, engines, generator, host if config.host_queues else None)
        self._connect_allocation(m, manager, fabric, analyzer, engines)
        self._connect_events(m, fabric, manager, [counters, analyzer])
        self._connect_serial(m, link)
        self._connect_telemetry(m, analyzer, link, identity)
        targets = {
            ("id", "interrupt"): identity.bus,
            ("link",): link.registers,
            ("rm", "guarantee", "staging", "active", "rules", "rule", "prepared"): manager.bus,
            ("analyzer", "objective", "snapshot", "detail", "histogram"): analyzer.bus,
            ("classifier",): classifier.bus,
            ("port",): counters.bus,
            ("slot",): engines.bus,
            ("generator",): generator.bus,
        } | more_blocks
        if config.scope_probes:
            scope = self._add_scope(m, {
                "identity": identity, "manager": manager, "fabric": fabric, "counters": counters, "analyzer": analyzer,
                "classifier": classifier, "engines": engines, "generator": generator, "link": link, "device": self})
            targets["scope", "scope_pattern", "scope_description", "scope_rows"] = scope.bus
        self._connect_registers(m, initiators, targets)
        return m

    def _connect_time(self, m, identity, manager, fabric, analyzer, generator, link):
        m.d.comb += [
            identity.boot_nonce.eq(self.boot_nonce),
            identity.uid.eq(self.uid),
            identity.changed.eq(manager.changed),
            identity.rule.eq(manager.fired),
            link.boot_nonce.eq(self.boot_nonce),
            manager.cycle.eq(identity.cycle),
            fabric.cycle.eq(identity.cycle),
            analyzer.cycle.eq(identity.cycle),
            generator.cycle.eq(identity.cycle),
            self.cycle.eq(identity.cycle),
            self.interrupt.eq(identity.interrupt),
        ]

    def _connect_packets(self, m, fabric, classifier, engines, generator, queues):
        config = self._config
        m.submodules.host_mux = host_mux = PacketMux(config, 3 if queues else 2)
        wiring.connect(m, wiring.flipped(self.host_rx), host_mux.inputs[0])
        wiring.connect(m, generator.packets, host_mux.inputs[1])
        wiring.connect(m, host_mux.output, fabric.inputs[config.host_port])
        leaving = fabric.outputs[config.host_port]
        if queues:
            wiring.connect(m, queues.transmit, host_mux.inputs[2])
            wiring.connect(m, leaving, queues.receive)
            m.d.comb += [queues.credit.eq(fabric.credit), queues.cycle.eq(fabric.cycle)]
            leaving = queues.others
        wiring.connect(m, leaving, wiring.flipped(self.host_tx))
        m.d.comb += self.host_credit.eq(fabric.credit)
        for index, port in enumerate(config.net_ports):
            wiring.connect(m, wiring.flipped(self.net_rx[index]), classifier.frames[index])
            wiring.connect(m, classifier.packets[index], fabric.inputs[port])
            wiring.connect(m, fabric.outputs[port], wiring.flipped(self.net_tx[index]))
        wiring.connect(m, fabric.outputs[config.engine_port], engines.requests)
        wiring.connect(m, engines.responses, fabric.inputs[config.engine_port])
        wiring.connect(m, engines.feedback, fabric.engine)
        # The checker only listens: it sees the transfers on the host port as they happen.
        for name in ("header", "data"):
            seen, port = getattr(generator.returned, name), getattr(self.host_tx, name)
            m.d.comb += [
                seen.payload.eq(port.payload),
                seen.valid.eq(port.valid & port.ready),
            ]

    def _connect_allocation(self, m, manager, fabric, analyzer, engines):
        for consumer in (fabric, engines, analyzer):
            for name in manager.allocation.signature.members:
                m.d.comb += getattr(consumer.allocation, name).eq(getattr(manager.allocation, name))
        m.d.comb += [
            fabric.stall_timeout.eq(manager.stall_timeout),
            analyzer.epoch.eq(manager.allocation.epoch),
            analyzer.active_tag.eq(manager.active_tag),
            self.epoch.eq(manager.allocation.epoch),
        ]
        wiring.connect(m, analyzer.figures, manager.figures)
        m.d.sync += analyzer.credit.eq(fabric.credit)
        for listening, slot in zip(analyzer.engine_busy, engines.busy, strict=True):
            m.d.sync += listening.eq(slot)

    def _connect_events(self, m, fabric, manager, counting):
        """The manager hears of packets at once; who only counts them hears a cycle later, from registers.

        An event is known late in its cycle, and counting takes long.
        """
        for side in ("ingress", "egress"):
            for port, source in enumerate(getattr(fabric, side)):
                for name in source.signature.members:
                    event = getattr(source, name)
                    heard = Signal.like(event, name=f"{side}_{port}_{name}")
                    m.d.sync += heard.eq(event)
                    m.d.comb += getattr(getattr(manager, side)[port], name).eq(event)
                    m.d.comb += [getattr(getattr(part, side)[port], name).eq(heard) for part in counting]

    def _connect_serial(self, m, link):
        config = self._config
        m.submodules.uart = uart = SerialPort(period_of(config.clock_hz, config.uart_baud))
        m.d.comb += [
            uart.rx_pin.eq(self.uart_rx),
            self.uart_tx.eq(uart.tx_pin),
        ]
        with m.If(self.uart_pins):
            wiring.connect(m, uart.rx, link.rx)
            wiring.connect(m, link.tx, uart.tx)
        with m.Else():
            wiring.connect(m, wiring.flipped(self.link_rx), link.rx)
            wiring.connect(m, link.tx, wiring.flipped(self.link_tx))

    def _connect_telemetry(self, m, analyzer, link, identity):
        m.submodules.fork = fork = StreamFork(TELEMETRY_WORD, 2)
        wiring.connect(m, analyzer.telemetry, fork.input)
        wiring.connect(m, fork.outputs[0], wiring.flipped(self.telemetry))
        wiring.connect(m, fork.outputs[1], link.telemetry)
        m.d.comb += identity.window.eq(analyzer.complete)

    def _add_scope(self, m, blocks):
        """The logic analyzer, with the probes that the configuration names among the ports of `blocks`."""
        probes = choose(self._config.scope_probes, catalogue(blocks))
        m.submodules.scope = scope = Scope(probes, self._config.scope_rows)
        m.d.comb += [scope.sampled.eq(Cat(probe.signal for probe in probes)), scope.cycle.eq(self.cycle)]
        return scope

    def _connect_pcie(self, m, identity, initiators, targets):
        m.submodules.host = host = HostInterface(self._config)
        wiring.connect(m, host.link, wiring.flipped(self.pcie))
        m.d.comb += host.events.eq(identity.events)
        initiators.append(host.bus)
        targets[pcie_blocks(self._config)] = host.registers
        return host

    def _connect_registers(self, m, initiators, targets):
        m.submodules.arbiter = arbiter = CsrArbiter(len(initiators))
        m.submodules.decoder = decoder = CsrDecoder([word_ranges(names) for names in targets])
        for initiator, port in zip(initiators, arbiter.initiators, strict=True):
            wiring.connect(m, initiator, port)
        wiring.connect(m, arbiter.bus, decoder.bus)
        for port, bus in zip(decoder.targets, targets.values(), strict=True):
            wiring.connect(m, port, bus)
