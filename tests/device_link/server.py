"""A server of a `DeviceModel` in a thread: on a Unix socket as a simulated device has it, or behind a pty."""

import contextlib
import os
import select
import threading
import tty

from device_link import rundir
from device_link.framing import FrameDecoder, encode_frame
from device_link.responder import BusResponder, carry_out
from device_link.serving import LinkServer, Refusal


class ModelServer(LinkServer):
    """A link server over registers.

    control: answers of control documents by `op`, before the server's own; `documents` are those that came.
    """

    def __init__(self, bus, name, *, boot_nonce, control=None, capabilities=("WINDOWS", "CONTROL", "EXCLUSIVE"),
                 lease=None):
        super().__init__(name, url=f"sim://{name}", boot_nonce=boot_nonce, capabilities=capabilities, lease=lease)
        self.bus = bus
        self.documents = []
        self.control = control or {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def carry_out(self, operations, *, repetition=False):
        return carry_out(self.bus, operations, repetition=repetition)

    def describe(self):
        return {"url": self.url, "board": "model", "uid": 0x1234, "map_hash": self.bus.map.hash, "build_id": 0xB01D}

    def _operate(self, client, sequence, document):
        if document.get("op") not in ("attach", "describe"):
            self.documents.append(document)
        if document.get("op") in self.control:
            return self.control[document["op"]]
        return super()._operate(client, sequence, document)

    def operate(self, client, sequence, document):
        raise Refusal("unknown", "unknown op")

    def start(self):
        self._thread.start()

    def _run(self):
        while not self.stopped:
            self.step(1.0)
            pushed = getattr(self.bus, "pushed", [])
            while pushed:
                self.push(pushed.popleft())
            self.deliver()
        self.close()

    def finish(self):
        self.stop()
        self._thread.join(5)


class SocketServer(ModelServer):
    """Serves a `DeviceModel` from `folder`, and publishes a ready file there."""

    def __init__(self, model, folder, *, name="model", control=None, capabilities=("WINDOWS", "CONTROL", "EXCLUSIVE"),
                 publish=True):
        super().__init__(model, name, boot_nonce=model.peek("id.boot_nonce"), control=control,
                         capabilities=capabilities)
        self.model = model
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "device.sock"
        self.listen_unix(self.path)
        if publish:
            rundir.write_ready(folder, rundir.ReadyFile(name, os.getpid(), str(self.path), None, model.map.hash, 1,
                                                        capabilities=capabilities))
        self.start()


class PtyServer:
    """Serves `model` behind a pseudo-terminal; `url` opens it."""

    def __init__(self, model):
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self.url = f"uart://{self.path}?baud=3000000"
        self.responder = BusResponder(model, boot_nonce=model.peek("id.boot_nonce"))
        self.muted = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        decoder = FrameDecoder()
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 4096):
                for message in decoder.feed(data):
                    answer = self.responder.corrupt() if message is None else self.responder.handle(message)
                    frame = b"" if self.muted else encode_frame(answer)
                    while frame:
                        frame = frame[os.write(self._master, frame):]

    def close(self):
        os.close(self._slave)  # ends the thread's read; only then may the master's number go to another pty
        self._thread.join(5)
        os.close(self._master)


class PluggedServer:
    """A device with `registers` behind a pseudo-terminal whose cable can be pulled; `path` stays the port's name.

    pull: when the next request that writes pulls the cable: "before" it is carried out, or "behind" that; "" never.
    answering: off, requests are carried out and not answered.
    """

    def __init__(self, registers, folder, *, boot_nonce=0xB007):
        self.registers = registers
        self.path = str(folder / "tty")
        self.responder = BusResponder(registers, boot_nonce=boot_nonce)
        self.pull = ""
        self.answering = True
        self.pulled = threading.Event()
        self._thread = None
        self.plug()

    def plug(self):
        """Put the cable in: another pseudo-terminal, of the same name."""
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.pulled.clear()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        os.symlink(os.ttyname(self._slave), self.path)

    def unplug(self):
        """Pull the cable."""
        self.pulled.set()
        self._thread.join(10)

    def send(self, data):
        """Bytes to the host by themselves."""
        os.write(self._master, data)

    def _serve(self):
        decoder = FrameDecoder()
        while not self.pulled.is_set():
            if not select.select([self._master], [], [], 0.01)[0]:
                continue
            for message in decoder.feed(os.read(self._master, 4096)):
                frame = self._answer(message)
                while frame and not self.pulled.is_set():
                    frame = frame[os.write(self._master, frame):]
        os.unlink(self.path)
        os.close(self._slave)
        os.close(self._master)

    def _answer(self, message):
        pull = self.pull if message is not None and message[0] == 1 and message[3] in (3, 4) else ""
        if pull == "before":
            self.pulled.set()
        if self.pulled.is_set():
            return b""
        answer = self.responder.corrupt() if message is None else self.responder.handle(message)
        if pull:
            self.pulled.set()
        return encode_frame(answer) if self.answering else b""
