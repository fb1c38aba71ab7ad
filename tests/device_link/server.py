"""A server of a `DeviceModel` in a thread: on a Unix socket as a simulated device has it, or behind a pty."""

import contextlib
import os
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
