"""`Identity`: the device describes itself, counts its cycles, and raises its interrupt.

Serves the `id` and `interrupt` blocks of the register map. `cycle` counts every clock from reset, in 64 bits, and
stamps everything in the device. `interrupt` is a level: an enabled cause is pending until software clears it by
a write (a cause that comes in the cycle of its clearing stays pending). Register accesses answer as
`RegisterBlock` does.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .config import DeviceConfig
from .csr.bus import CsrSignature
from .csr.registers import RegisterBlock
from .csr.regmap import map_hash

__all__ = ["MAGIC", "Identity"]

MAGIC = int.from_bytes(b"MORF", "little")


class Identity(wiring.Component):
    """Identification, cycle counter and interrupt.

    window, changed, rule: one-cycle causes. events: those that are enabled, as they come, in this order, for interrupts
    that are messages (software must clear what is pending before it looks for work).
    boot_nonce, uid: constant from reset on; a board gives them.
    """

    def __init__(self, config: DeviceConfig, build_id: int):
        if not 0 <= build_id < 1 << 64:
            raise ValueError(f"build_id must be in 0..2**64-1, not {build_id!r}")
        self._config = config
        self._build_id = build_id
        super().__init__({
            "bus": In(CsrSignature(16)),
            "boot_nonce": In(32),
            "uid": In(64),
            "window": In(1),
            "changed": In(1),
            "rule": In(1),
            "cycle": Out(64),
            "interrupt": Out(1),
            "events": Out(3),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = RegisterBlock(["id", "interrupt"])
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        m.d.sync += self.cycle.eq(self.cycle + 1)
        self._describe(m, registers)
        self._interrupt(m, registers)
        return m

    def _describe(self, m, registers):
        config = self._config
        m.d.comb += [
            registers.id_magic_magic.eq(MAGIC),
            registers.id_map_hash_hash.eq(map_hash()),
            registers.id_build_id_lo_value.eq(self._build_id & 0xFFFFFFFF),
            registers.id_build_id_hi_value.eq(self._build_id >> 32),
            registers.id_uid_lo_value.eq(self.uid[:32]),
            registers.id_uid_hi_value.eq(self.uid[32:]),
            registers.id_boot_nonce_value.eq(self.boot_nonce),
            registers.id_config0_ports.eq(config.ports),
            registers.id_config0_tenants.eq(config.tenants),
            registers.id_config0_slots.eq(config.slots),
            registers.id_config0_classifier_entries.eq(config.classifier_entries),
            registers.id_config1_data_width.eq(config.data_width),
            registers.id_config1_pages.eq(config.pages),
            registers.id_config2_slot_bytes.eq(config.slot_bytes),
            registers.id_config2_rules.eq(config.rules),
            registers.id_config2_histograms.eq(config.histograms),
            registers.id_config2_access_patterns.eq(config.access_patterns),
            registers.id_config2_forecasts.eq(config.forecasts),
            registers.id_config2_uartbone.eq(config.uartbone),
            registers.id_config2_pcie_bytes.eq(config.pcie_width // 8),
            registers.id_config2_host_queues.eq(config.host_queues),
            registers.id_config2_scope.eq(bool(config.scope_probes)),
            registers.id_clock_hz.eq(config.clock_hz),
            registers.id_uart_baud.eq(config.uart_baud),
            registers.id_cycle_lo_value.eq(self.cycle[:32]),
            registers.id_cycle_hi_value.eq(self.cycle[32:]),
        ]

    def _interrupt(self, m, registers):
        enabled_causes, events = [], []
        for cause in ("window", "changed", "rule"):
            pending = Signal(name=f"{cause}_pending")
            cleared = getattr(registers, f"interrupt_clear_{cause}")
            m.d.sync += pending.eq((pending & ~cleared) | getattr(self, cause))
            m.d.comb += getattr(registers, f"interrupt_pending_{cause}").eq(pending)
            enabled = getattr(registers, f"interrupt_enable_{cause}")
            enabled_causes.append(pending & enabled)
            events.append(getattr(self, cause) & enabled)
        m.d.comb += [self.interrupt.eq(Cat(enabled_causes).any()), self.events.eq(Cat(events))]
