"""`sim://NAME`, `sim:///path/device.sock` or `sim://`: a simulated device, through its Unix socket.

The socket is that of any server of devices (`device_link.serving`): each datagram is one message of the link protocol.
"""

from __future__ import annotations

from pathlib import Path

from morphnic.errors import DeviceNotFound

from . import rundir
from .linked import SessionTransport, open_served
from .sockets import DatagramPipe

START = "morphnic sim run"


def find(name: str) -> rundir.ReadyFile:
    """The running simulated device `name`; "" stands for the only one."""
    devices = running = [device for device in rundir.running() if device.serves is None]
    if name:
        devices = [device for device in devices if device.name == name]
    if len(devices) == 1:
        return devices[0]
    if devices:
        names = ", ".join(device.url for device in devices)
        raise DeviceNotFound(f"several simulated devices run, say which: {names}")
    others = ", ".join(device.url for device in running) or "none"
    which = f"no simulated device {name!r} runs" if name else "no simulated device runs"
    raise DeviceNotFound(f"{which} (running: {others}): start one with `{START}`")


def sim_pipe(target: str, *, timeout: float) -> DatagramPipe:
    """A connection to the simulated device `target`: a name, "" or an absolute path of its socket."""
    path = Path(target) if target.startswith("/") else Path(find(target).socket)
    return DatagramPipe(path, timeout=timeout, noun="simulated device", start=START)


def open_sim(target: str, *, url: str, timeout: float = 1.0, writer: bool = False) -> SessionTransport:
    """Transport to the simulated device `target`."""
    return open_served(sim_pipe(target, timeout=timeout), url=url, timeout=timeout, writer=writer)
