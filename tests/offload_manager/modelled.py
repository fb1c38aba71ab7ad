"""A modelled device for tests of the manager: no gateware, a transport over the resource manager's golden model.

`ModelTransport` answers register accesses from `ResourceManagerModel` (transaction), from the configuration
(identification) and from plain memory (everything else), and pushes a window at each boundary whose rows come from
a function of (window number, model). Device time passes only when it is granted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from device_link import BusError, Capability, Device, Transport, Window, WindowRow
from device_link.operations import Operation, Read, ReadList, Write, WriteList
from device_link.registers import MAGIC, register_map
from gateware.config import DeviceConfig
from tests.gateware.manager.model import BusError as ModelBusError
from tests.gateware.manager.model import ResourceManagerModel
from tests.offload_manager.views import row

Workload = Callable[[int, ResourceManagerModel], Sequence[WindowRow]]
CONFIG = DeviceConfig(tenants=4)


def quiet(number: int, model: ResourceManagerModel) -> Sequence[WindowRow]:
    """Nobody does anything."""
    return [row()] * model.config.tenants


class ModelTransport(Transport):
    """Registers of the model; `log` keeps the operations, `before` is called with each of them."""

    capabilities = Capability.REGISTERS | Capability.WINDOWS | Capability.TIME_GRANTS

    def __init__(self, workload: Workload = quiet, config: DeviceConfig = CONFIG, *,
                 model: ResourceManagerModel | None = None) -> None:
        super().__init__("model://", writer=True)
        self.model = model or ResourceManagerModel(config)
        self.config, self.workload = config, workload
        self.memory: dict[int, int] = {}
        self.pushed: deque[Window] = deque()
        self.number = 0
        self.exchanges: list[Sequence[Operation]] = []
        self.granted: list[int] = []
        self.before: Callable[[Operation], None] | None = None
        self.map = register_map()
        self.nonce = 77
        self._start = 0
        self._length = 100_000  # of the window that runs; a new one takes effect at the next boundary
        for path, value in self._identity().items():
            self.memory[self.map.register(path).address] = value
        self.memory[self.map.register("analyzer.window").address] = 100_000

    def _identity(self) -> dict[str, int]:
        c = self.config
        return {
            "id.magic": MAGIC, "id.map_hash": self.map.hash, "id.uid_lo": 5, "id.boot_nonce": self.nonce,
            "id.config0": c.ports | c.tenants << 8 | c.slots << 16 | c.classifier_entries << 24,
            "id.config1": c.data_width | c.pages << 16, "id.config2": c.slot_bytes | c.rules << 8
            | c.histograms << 16 | c.access_patterns << 17 | c.forecasts << 18 | c.uartbone << 19
            | c.host_queues << 23 | c.pcie_width // 8 << 24,
            "id.clock": c.clock_hz, "id.uart": c.uart_baud}

    # --- registers ---

    def _load(self, address: int) -> int:
        if 0x1000 <= address < 0x4000:
            return self.model.read(address)
        if address == self.map.register("id.cycle_lo").address:
            return self.model.cycle & 0xFFFF_FFFF
        if address == self.map.register("id.cycle_hi").address:
            return self.model.cycle >> 32
        if address == self.map.register("analyzer.running").address:
            return self._length
        return self.memory.get(address, 0)

    def _store(self, address: int, word: int) -> None:
        if 0x1000 <= address < 0x4000:
            self.model.write(address, word)
        else:
            self.memory[address] = word

    def _execute(self, operations: Sequence[Operation], *, ordered: bool) -> list[list[int]]:
        self.exchanges.append(operations)
        results = []
        for index, operation in enumerate(operations):
            if self.before is not None:
                self.before(operation)
            try:
                results.append(self._one(operation))
            except ModelBusError as error:
                raise BusError(str(error), index=index, addresses=()) from error
        return results

    def _one(self, operation: Operation) -> list[int]:
        match operation:
            case Read(address, count):
                return [self._load(address + 4 * i) for i in range(count)]
            case ReadList(addresses):
                return [self._load(address) for address in addresses]
            case Write(address, words):
                for i, word in enumerate(words):
                    self._store(address + 4 * i, word)
            case WriteList(pairs):
                for address, word in pairs:
                    self._store(address, word)
        return []

    # --- time ---

    def _advance(self, cycles: int) -> dict[str, Any]:
        self.granted.append(cycles)
        left = cycles
        while left:
            length = self._length
            step = min(left, max(1, self._start + length - self.model.cycle))
            self.model.tick(step)
            left -= step
            if self.model.cycle >= self._start + length:
                rows = tuple(self.workload(self.number, self.model))
                self.pushed.append(Window(self.number, self._start, length, self.model.epoch, 0,
                                          self.model.active_tag, rows))
                self._start += length
                self._length = self.memory[self.map.register("analyzer.window").address]
                self.number += 1
        return {"ok": True, "cycle": self.model.cycle}

    def _windows(self, timeout: float) -> list[bytes]:
        windows = [window.encode() for window in self.pushed]
        self.pushed.clear()
        return windows

    def _close(self) -> None:
        pass

    def reset(self) -> None:
        """The device is reset: another boot nonce, the reset table, no claims."""
        cycle = self.model.cycle
        self.model = ResourceManagerModel(self.config, cycle=cycle)
        self.nonce += 1
        self.memory[self.map.register("id.boot_nonce").address] = self.nonce


def modelled_device(workload: Workload = quiet, config: DeviceConfig = CONFIG,
                    transport: ModelTransport | None = None) -> Device:
    """A device over a new (or the given) modelled transport."""
    return Device(transport or ModelTransport(workload, config))


def transport_of(device: Device) -> ModelTransport:
    """The modelled transport of a device."""
    assert isinstance(device.transport, ModelTransport)
    return device.transport
