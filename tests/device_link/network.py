"""For tests of shared devices: a server of a `DeviceModel` in a thread, a proxy that cuts connections, certificates."""

import contextlib
import select
import socket
import subprocess
import threading

from device_link.linked import SessionTransport
from device_link.sharing import DeviceServer
from tests.device_link.device_model import DeviceModel, DirectPipe


class LoggedModel(DeviceModel):
    """A model that keeps what was written to the scratch register and to objectives."""

    def __init__(self, **options):
        super().__init__(**options)
        self.log = []

    def write(self, address, word):
        super().write(address, word)
        self.log.append((address, word))


class Shared:
    """`DeviceServer` over `model` in a thread. connect: opens the device; None: the model, directly."""

    def __init__(self, model, *, connect=None, lease=30.0):
        self.model = model
        self.server = DeviceServer("shared", connect or self.open_model, lease=lease)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def open_model(self):
        return SessionTransport(DirectPipe(self.model), url="test://model", writer=True)

    def _run(self):
        try:
            self.server.run()
        finally:
            self.server.close()

    def start(self):
        self._thread.start()
        return self

    def finish(self):
        self.server.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()


class Proxy:
    """Forwards TCP to `port`, until told to cut.

    cut_before: drop what the client sends next, and the connection. cut_after: let the server carry it out, and drop
    the connection instead of the answer. Afterwards it forwards again, unless `dead`.
    """

    def __init__(self, port):
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut_before = self.cut_after = self.dead = False
        self.seen = bytearray()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self.dead:
                    with socket.create_connection(("127.0.0.1", self._target)) as server, contextlib.suppress(OSError):
                        self._forward(client, server)
                client.close()

    def _forward(self, client, server):
        while True:
            for ready in select.select([client, server], [], [])[0]:
                data = ready.recv(1 << 16)
                self.seen += data
                if not data:
                    return
                if ready is client and self.cut_before:
                    self.cut_before = False
                    return
                if ready is server and self.cut_after:
                    self.cut_after = False
                    return
                (server if ready is client else client).sendall(data)

    def close(self):
        self.dead = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def make_certificates(folder):
    """A CA, a server's certificate for 127.0.0.1, a client's, and another CA; files by name, made with openssl."""
    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=folder, timeout=60)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "names", "-out", f"{name}.pem")
    return {path.name: path for path in folder.iterdir()}
