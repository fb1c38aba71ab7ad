"""A model of a whole device at register level, for tests of what uses a device: no gateware, no simulation.

Identity, scratch and rows hold; the resource manager is the golden model of the gateware's tests; the generator
sends and receives at once; windows are pushed as device time passes, 40 cycles an access.
"""

from collections import deque

from device_link.operations import WindowPush
from device_link.pipe import MessagePipe
from device_link.registers import MAGIC, register_map
from device_link.responder import BusFault, Responder
from device_link.window import Window, WindowRow
from gateware.config import DeviceConfig
from tests.gateware.manager.model import BusError, ResourceManagerModel

ACCESS_CYCLES = 40
MANAGED = ("rm", "guarantee", "staging", "active")


class DeviceModel:
    """Registers of a device. `pushed` collects the messages of windows."""

    def __init__(self, config=None, *, boot_nonce=0xB007):
        self.config = config or DeviceConfig(tenants=4)
        self.manager = ResourceManagerModel(self.config)
        self.map = register_map()
        self.cycle = 0
        self.pushed = deque()
        self.words = {}
        self.registers = {}
        self._window = (0, 0)  # number and start of the current one
        counts = {"objective": self.config.tenants, "snapshot": self.config.tenants, "detail": self.config.tenants,
                  "port": self.config.ports, "rule": self.config.rules, "prepared": self.config.rules,
                  "classifier": self.config.classifier_entries, "slot": self.config.slots}
        for block in self.map:
            if block.name in (*MANAGED, "scope") or block.memory_words:
                continue
            for index in range(counts[block.name]) if block.count else [None]:
                for register in block.registers(index):
                    self.registers[register.address] = register
        self._describe(boot_nonce)

    def _describe(self, boot_nonce):
        config = self.config
        for name, word in {
            "id.magic": MAGIC, "id.map_hash": self.map.hash, "id.build_id_lo": 0x1234, "id.uid_hi": 0x5678,
            "id.boot_nonce": boot_nonce, "id.clock": config.clock_hz, "id.uart": config.uart_baud,
            "id.config0": config.ports | config.tenants << 8 | config.slots << 16 | config.classifier_entries << 24,
            "id.config1": config.data_width | config.pages << 16, "id.config2": config.slot_bytes | config.rules << 8
            | config.histograms << 16 | config.access_patterns << 17 | config.forecasts << 18,
            "analyzer.window": 100_000,
        }.items():
            self.poke(name, word)

    def poke(self, name, word):
        """Set a register, whoever may write it."""
        self.words[self.map.register(name).address] = word

    def peek(self, name):
        """Value of a register."""
        return self.words.get(self.map.register(name).address, 0)

    def read(self, address):
        self._pass_time()
        if address not in self.registers:
            return self._managed(lambda: self.manager.read(address))
        name = self.registers[address].name
        if name == "id.cycle_lo":
            return self.cycle & 0xFFFFFFFF
        if name == "id.cycle_hi":
            return self.cycle >> 32
        return self.words.get(address, 0)

    def write(self, address, word):
        self._pass_time()
        if address not in self.registers:
            self._managed(lambda: self.manager.write(address, word))
            return
        register = self.registers[address]
        if not register.writable:
            raise BusFault(address)
        mask = sum((1 << field.width) - 1 << field.lsb for field in register.fields.values() if "w" in field.access)
        self.words[address] = word & mask
        if register.name == "generator.control":
            self._generate(word)

    def _managed(self, access):
        try:
            return access()
        except BusError as error:
            raise BusFault from error

    def _generate(self, word):
        self.words[self.map.register("generator.control").address] = word & 1
        if word & 2:
            for name in ("sent", "received", "corrupted", "missequenced"):
                self.poke(f"generator.{name}", 0)
        if word & 1:
            count = self.peek("generator.count")
            self.poke("generator.sent", count)
            self.poke("generator.received", count)
            self.poke("port[0].admitted", self.peek("port[0].admitted") + count)

    def _pass_time(self):
        self.cycle += ACCESS_CYCLES
        self.manager.tick(ACCESS_CYCLES)
        number, start = self._window
        length = self.peek("analyzer.window")
        if self.cycle - start >= length:
            if self.peek("analyzer.control"):
                rows = tuple(WindowRow(*[tenant] * 16) for tenant in range(self.config.tenants))
                window = Window(number, start, length, self.manager.epoch, 0, self.manager.active_tag, rows)
                self.pushed.append(WindowPush(window.encode()).encode())
            self._window = (number + 1, start + length)


class DirectPipe(MessagePipe):
    """Messages straight to a responder over a `DeviceModel`, without a line."""

    def __init__(self, model, *, reliable=True):
        self.model = model
        self.responder = Responder(model, boot_nonce=model.peek("id.boot_nonce"))
        self.reliable = reliable
        self._answers = deque()
        self._time = 0.0

    def send(self, messages, *, resynchronise=False):
        self._answers += [self.responder.handle(message) for message in messages]

    def receive(self, timeout):
        found = [*self._answers, *self.model.pushed]
        self._answers.clear()
        self.model.pushed.clear()
        self._time += 0 if found else timeout + 1e-6
        return found

    def now(self):
        return self._time

    def close(self):
        pass
