"""`DeviceConfig`: every parameter of a device, in one frozen dataclass that imports no HDL.

The same object parametrises the gateware, names a Verilated model in the cache, and is read back from the ID
block of a running device, so that software never assumes a size.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

MAX_TENANTS = 64  # strides in the register map are fixed for this many
MAX_PORTS = 16
MAX_RULES = 16
MAX_PACKET_BEATS = 256
PAGE_BEATS = 16
#: Largest packet for which the fabric promises credit. One that shares its first page needs no page more than one that
#: begins on a page of its own.
CREDIT_BEATS = 32
CREDIT_PAGES = CREDIT_BEATS // PAGE_BEATS


@dataclass(frozen=True)
class DeviceConfig:
    """Parameters of one device.

    ports: fabric ports; port 0 is the host, the last one the engines, those between are network ports.
    data_width: bits of one beat.
    tenants: rows of the allocation table; tenant 0 is the host itself.
    slots: engine slots behind the last port.
    slot_bytes: payload bytes that one engine slot takes in a cycle: 1, 2 or 4. By default the slots together take half
        of what a port brings, so that processing is what tenants compete for.
    pages: buffer pages of `PAGE_BEATS` beats in each crosspoint.
    classifier_entries: match entries of the ingress classifier.
    rules: reflex rules of the resource manager, 1..16; those beyond are refused as addresses.
    histograms: latency histograms in the analyzer (8 Kibit a tenant and port); without, their addresses are refused.
    access_patterns: sequential and strided accesses in the analyzer (63 bytes a tenant); without, those figures are 0.
    forecasts: the analyzer's forecasts of demand (70 bytes a tenant); without, they are 0.
    uartbone: the serial link speaks LiteX's UARTBone for its tools, in place of the framed protocol of `device_link`.
    pcie_width: bits of a beat of the PCIe endpoint: 64, 128, 256 or 512; 0: no endpoint.
    host_queues: a queue pair for each tenant between host memory and the host port; wants `pcie_width` = `data_width`.
    scope_probes: what the logic analyzer samples: ports of the device's blocks by name, such as
        `fabric.outputs0.header.tenant`, or groups of them (`fabric.outputs0.header`); see `gateware/scope/probes.py`.
        Without, the device has none.
    scope_rows: rows of its buffer, a power of two in 16..16384; a row is a sample and 16 bits.
    clock_hz: frequency of the one `sync` domain.
    uart_baud: rate of the serial link after reset.
    """

    ports: int = 4
    data_width: int = 64
    tenants: int = 16
    slots: int = 2
    slot_bytes: int = 2
    pages: int = 64
    classifier_entries: int = 16
    rules: int = 16
    histograms: bool = True
    access_patterns: bool = True
    forecasts: bool = True
    uartbone: bool = False
    pcie_width: int = 0
    host_queues: bool = False
    scope_probes: tuple[str, ...] = ()
    scope_rows: int = 1024
    clock_hz: int = 100_000_000
    uart_baud: int = 1_000_000

    def __post_init__(self) -> None:
        if isinstance(self.scope_probes, list):  # as JSON has it
            object.__setattr__(self, "scope_probes", tuple(self.scope_probes))
        checks = [
            (2 <= self.ports <= 8, "ports", "in 2..8", self.ports),
            (self.data_width in (32, 64, 128, 256, 512), "data_width", "32, 64, 128, 256 or 512",
             self.data_width),
            (2 <= self.tenants <= MAX_TENANTS, "tenants", f"in 2..{MAX_TENANTS}", self.tenants),
            (1 <= self.slots <= 16, "slots", "in 1..16", self.slots),
            (self.slot_bytes in (1, 2, 4), "slot_bytes", "1, 2 or 4", self.slot_bytes),
            (self.pages in (32, 64, 128, 256, 512, 1024), "pages", "a power of two in 32..1024", self.pages),
            (1 <= self.classifier_entries <= 64, "classifier_entries", "in 1..64", self.classifier_entries),
            (1 <= self.rules <= MAX_RULES, "rules", f"in 1..{MAX_RULES}", self.rules),
            *((isinstance(getattr(self, name), bool), name, "False or True", getattr(self, name))
              for name in ("histograms", "access_patterns", "forecasts", "uartbone", "host_queues")),
            (self.pcie_width in (0, 64, 128, 256, 512), "pcie_width", "0, 64, 128, 256 or 512", self.pcie_width),
            (not self.host_queues or self.pcie_width == self.data_width, "pcie_width",
             f"{self.data_width}, which data_width is, for host_queues", self.pcie_width),
            (isinstance(self.scope_probes, tuple) and all(isinstance(name, str) for name in self.scope_probes),
             "scope_probes", "a tuple of names", self.scope_probes),
            (self.scope_rows in [1 << bits for bits in range(4, 15)], "scope_rows", "a power of two in 16..16384",
             self.scope_rows),
            (self.clock_hz >= 1_000_000, "clock_hz", "at least 1000000", self.clock_hz),
            (0 < self.uart_baud <= self.clock_hz // 4, "uart_baud", "in 1..clock_hz/4", self.uart_baud),
        ]
        for holds, name, rule, value in checks:
            if not holds:
                raise ValueError(f"{name} must be {rule}, not {value!r}")

    @property
    def beat_bytes(self) -> int:
        """Bytes of one beat."""
        return self.data_width // 8

    @property
    def host_port(self) -> int:
        """Fabric port of the host queues."""
        return 0

    @property
    def engine_port(self) -> int:
        """Fabric port of the engine slots."""
        return self.ports - 1

    @property
    def net_ports(self) -> range:
        """Fabric ports of the network interfaces (`net0` is port 1)."""
        return range(1, self.ports - 1)

    @property
    def max_packet_bytes(self) -> int:
        """Bytes of the largest packet, limited by `MAX_PACKET_BEATS` and the 12-bit length of the header."""
        return min(MAX_PACKET_BEATS * self.beat_bytes, 4095)

    @property
    def engine_beats(self) -> float:
        """Beats a cycle that all engine slots take together, at most the engine port's one."""
        return min(1.0, self.slots * self.slot_bytes / self.beat_bytes)

    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over the parameters, in a canonical form."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]
