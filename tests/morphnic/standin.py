"""A stand-in device for tests of the command line: registers in a dictionary behind the real link protocol.

It serves `sim://NAME` on a Unix socket with the server that every device has, and publishes the ready file. It models
no hardware: only what a test put there can be read.
"""

import os

from device_link import rundir
from device_link.registers import MAGIC, register_map
from device_link.responder import BusFault
from tests.device_link.server import ModelServer

CONFIG0 = 4 | 16 << 8 | 2 << 16 | 16 << 24  # ports, tenants, slots, classifier entries
CONFIG1 = 64 | 64 << 16  # data width, pages
CONFIG2 = 4 | 16 << 8 | 1 << 16  # no access patterns, no forecasts


class Registers:
    """Words by address. `snapshot`, `staging` ... exist for the 16 tenants of the device, as in hardware."""

    def __init__(self):
        self.map = register_map()
        self.words = {}
        self.read_log = []
        self.on_read = lambda address: None
        rows = {"port": 4, "slot": 2}
        for block in self.map:
            if block.name == "scope":  # config2 says that there is none
                continue
            for index in range(min(block.count, rows.get(block.name, 16))) if block.count else [None]:
                for register in block.registers(index):
                    self.words[register.address] = 0
        for name, value in {
            "id.magic": MAGIC, "id.map_hash": self.map.hash, "id.build_id_lo": 0xB01D, "id.uid_lo": 0x1234,
            "id.boot_nonce": 7, "id.config0": CONFIG0, "id.config1": CONFIG1, "id.config2": CONFIG2,
            "id.clock": 100_000_000, "id.uart": 1_000_000, "id.cycle_lo": 5000, "rm.active": 3,
            "analyzer.window": 100_000, "analyzer.sequence": 9, "analyzer.cycles": 100_000, "rm.weight_capacity": 65536,
        }.items():
            self.set(name, value)

    def set(self, name, value):
        self.words[self.map.register(name).address] = value

    def get(self, name):
        return self.words[self.map.register(name).address]

    def read(self, address):
        self.on_read(address)
        if address not in self.words:
            raise BusFault(address)
        return self.words[address]

    def write(self, address, word):
        if address not in self.words:
            raise BusFault(address)
        self.words[address] = word


class StandIn(ModelServer):
    """Serves one device in a thread until closed."""

    def __init__(self, name="stand-in"):
        self.registers = Registers()
        super().__init__(self.registers, name, boot_nonce=7, capabilities=("CONTROL", "EXCLUSIVE"))
        self._folder = rundir.device_dir(name)
        self._folder.mkdir(parents=True)
        path = rundir.socket_path(name)
        self.listen_unix(path)
        self.start()
        rundir.write_ready(self._folder, rundir.ReadyFile(
            name=name, pid=os.getpid(), socket=str(path), pty=None,
            map_hash=self.registers.map.hash, build_id=0xB01D, capabilities=("CONTROL", "EXCLUSIVE")))

    def hold(self, name="the offload manager"):
        """Let another program hold the right to write."""
        self.control["acquire"] = {"ok": False, "reason": "busy", "error": f"{name} holds it"}

    def finish(self):
        """Stop."""
        rundir.remove_ready(self._folder)
        super().finish()
