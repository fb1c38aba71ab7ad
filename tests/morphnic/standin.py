"""A stand-in device for tests of the command line: registers in a dictionary behind the real link protocol.

It serves `sim://NAME` on a Unix socket with the link's own `Responder`, publishes the ready file, and grants the
right to write to one connection at a time. It models no hardware: only what a test put there can be read.
"""

import json
import os
import selectors
import socket
import threading

from device_link import rundir
from device_link.operations import MessageType
from device_link.registers import MAGIC, register_map
from device_link.responder import BusFault, Responder

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


class StandIn:
    """Serves one device in a thread until closed."""

    def __init__(self, name="stand-in"):
        self.registers = Registers()
        folder = rundir.device_dir(name)
        folder.mkdir(parents=True)
        self._folder = folder
        path = rundir.socket_path(name)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self.writer = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        rundir.write_ready(folder, rundir.ReadyFile(
            name=name, pid=os.getpid(), socket=str(path), pty=None,
            map_hash=self.registers.map.hash, build_id=0xB01D, capabilities=("CONTROL", "EXCLUSIVE")))

    def _serve(self):
        responders = {}
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                if key.fileobj is self._listener:
                    connection, _ = self._listener.accept()
                    responders[connection] = Responder(self.registers, boot_nonce=7)
                    self._selector.register(connection, selectors.EVENT_READ)
                    continue
                message = self._received(key.fileobj)
                if not message:
                    if self.writer is key.fileobj:
                        self.writer = None
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()
                elif message[0] == MessageType.CONTROL:
                    key.fileobj.send(self._control(key.fileobj, message))
                else:
                    key.fileobj.send(responders[key.fileobj].handle(message))

    def _received(self, connection):
        try:
            return connection.recv(1 << 16)
        except ConnectionError:
            return b""

    def _control(self, connection, message):
        document = json.loads(message[3:])
        assert document == {"op": "acquire"}
        if self.writer not in (None, connection):
            answer = {"ok": False, "reason": "busy", "error": "the offload manager holds it"}
        else:
            self.writer = connection
            answer = {"ok": True}
        return bytes([MessageType.CONTROL_RESPONSE, *message[1:3]]) + json.dumps(answer).encode()

    def close(self):
        rundir.remove_ready(self._folder)
        self._wake.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()
        self._wake.close()
