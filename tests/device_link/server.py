"""A server of a `DeviceModel` in a thread: on a Unix socket as a simulated device has it, or behind a pty."""

import contextlib
import json
import os
import socket
import threading
import tty

from device_link import rundir
from device_link.framing import FrameDecoder, encode_frame
from device_link.operations import Control, decode_message
from device_link.responder import Responder


class SocketServer:
    """Serves `model` to one connection after another, and publishes a ready file in `folder`.

    control: answers of control documents by `op`; others are refused.
    """

    def __init__(self, model, folder, *, name="model", control=None, capabilities=("WINDOWS", "CONTROL", "EXCLUSIVE"),
                 publish=True):
        self.model = model
        self.controls = []
        self._control = {"acquire": {"ok": True}} | (control or {})
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "device.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._peer = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        if publish:
            rundir.write_ready(folder, rundir.ReadyFile(name, os.getpid(), str(self.path), None, model.map.hash, 1,
                                                        capabilities=capabilities))

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                self._peer, _ = self._listener.accept()
                responder = Responder(self.model, boot_nonce=self.model.peek("id.boot_nonce"))
                while message := self._peer.recv(1 << 18):
                    self._peer.send(self._answer(responder, message))
                    while self.model.pushed:
                        self._peer.send(self.model.pushed.popleft())
                self._peer.close()

    def _answer(self, responder, message):
        decoded = decode_message(message)
        if not isinstance(decoded, Control):
            return responder.handle(message)
        document = json.loads(decoded.document)
        self.controls.append(document)
        answer = self._control.get(document["op"], {"ok": False, "reason": "unknown", "error": "unknown op"})
        return Control(0, decoded.sequence, json.dumps(answer).encode(), answer=True).encode()

    def close(self):
        for one in (self._listener, self._peer):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._thread.join(5)


class PtyServer:
    """Serves `model` behind a pseudo-terminal; `url` opens it."""

    def __init__(self, model):
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self.url = f"uart://{self.path}?baud=3000000"
        self.responder = Responder(model, boot_nonce=model.peek("id.boot_nonce"))
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
        """End the thread first: left reading, it would take what is for the next descriptor of that number."""
        os.close(self._slave)
        self._thread.join()
        os.close(self._master)
