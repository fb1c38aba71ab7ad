"""`sim://NAME`, `sim:///path/device.sock` or `sim://`: a simulated device, through its Unix socket.

Each datagram of the `SOCK_SEQPACKET` socket is one message of the link protocol. Two control documents belong to
the link and not to the simulation, and every server answers them:

- `{"op": "acquire"}` asks for the right to write, which ends with the connection; answered `{"ok": true}`, or
  `{"ok": false, "reason": "busy", "error": TEXT}` while another connection holds it;
- `{"op": "advance", "cycles": N}` grants device time (capability `TIME_GRANTS`), answered once it has passed.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Sequence
from pathlib import Path

from morphnic.errors import DeviceBusy, DeviceNotFound, LinkError

from . import rundir
from .linked import SessionTransport
from .pipe import MessagePipe
from .transport import Capability

_DATAGRAM_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 20


class DatagramPipe(MessagePipe):
    """Messages as datagrams of a Unix socket: none is lost, damaged or reordered."""

    reliable = True
    max_response_words = 8192

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            gone = error.errno in (errno.ENOENT, errno.ECONNREFUSED)
            remedy = "start it with `morphnic sim run`" if gone else "is it a device's socket?"
            raise DeviceNotFound(f"no simulated device answers at {path} ({error.strerror}): {remedy}") from error

    def send(self, messages: Sequence[bytes], *, resynchronise: bool = False) -> None:
        """Send each message as a datagram."""
        try:
            for message in messages:
                self._socket.send(message)
        except OSError as error:
            raise self._ended(error) from error

    def receive(self, timeout: float) -> list[bytes | None]:
        """Datagrams that arrived."""
        messages: list[bytes | None] = []
        try:
            wait = timeout
            while select.select([self._socket], [], [], wait)[0]:
                message = self._socket.recv(_DATAGRAM_BYTES)
                if not message:
                    if messages:
                        return messages  # the next call tells that the other side is gone
                    raise self._ended(None)
                messages.append(message)
                wait = 0.0
        except OSError as error:
            raise self._ended(error) from error
        return messages

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _ended(self, error: OSError | None) -> LinkError:
        why = f" ({error.strerror})" if error else ""
        return LinkError(f"the simulated device at {self._path} ended{why}: start it again with `morphnic sim run`")


def find(name: str) -> rundir.ReadyFile:
    """The running simulated device `name`; "" stands for the only one."""
    devices = rundir.running()
    if name:
        devices = [device for device in devices if device.name == name]
    if len(devices) == 1:
        return devices[0]
    if devices:
        names = ", ".join(device.url for device in devices)
        raise DeviceNotFound(f"several simulated devices run, say which: {names}")
    others = ", ".join(device.url for device in rundir.running()) or "none"
    which = f"no simulated device {name!r} runs" if name else "no simulated device runs"
    raise DeviceNotFound(f"{which} (running: {others}): start one with `morphnic sim run`")


def open_sim(target: str, *, url: str, timeout: float = 1.0, writer: bool = False) -> SessionTransport:
    """Transport to the simulated device `target`: a name, "" or an absolute path of its socket."""
    if target.startswith("/"):
        path = Path(target)
        try:
            ready: rundir.ReadyFile | None = rundir.read_ready(path.parent)
        except DeviceNotFound:
            ready = None  # a server without a ready file can be spoken to all the same
    else:
        ready = find(target)
        path = Path(ready.socket)
    transport = SessionTransport(DatagramPipe(path), url=url, timeout=timeout, writer=writer)
    transport.capabilities |= _named(ready.capabilities if ready else ("CONTROL", "EXCLUSIVE"))
    if writer and Capability.EXCLUSIVE in transport.capabilities:
        _acquire(transport)
    return transport


def _named(names: Sequence[str]) -> Capability:
    found = Capability.REGISTERS
    for name in names:
        found |= Capability.__members__.get(name, Capability.REGISTERS)  # a newer server may know more
    return found


def _acquire(transport: SessionTransport) -> None:
    try:
        answer = transport.session.control({"op": "acquire"}, transport.timeout)
        if not answer.get("ok"):
            kind = DeviceBusy if answer.get("reason") == "busy" else LinkError
            raise kind(f"{transport.url}: {answer.get('error', 'the right to write was refused')}: stop the program "
                       "that holds it, or go through the manager")
    except BaseException:
        transport.close()
        raise
