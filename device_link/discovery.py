"""Which devices could be opened from here. Nothing is opened by looking; `ask` speaks to a server, made for that.

Each source is a function that gives candidates; a new kind of link adds one to `SOURCES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from serial.tools import list_ports

from morphnic.errors import LinkError

from . import rundir
from .remote import open_pipe

#: USB serial adapters of the boards that Morphnic runs on. Ids are shared by many cables, so that a candidate is
#: only that: the magic word read over the link decides.
KNOWN_ADAPTERS = {
    (0x0403, 0x6010): "FTDI FT2232H (Versa-ECP5, ECPIX-5, Arty A7, ...)",
    (0x0403, 0x6011): "FTDI FT4232H",
    (0x0403, 0x6014): "FTDI FT232H",
    (0x0403, 0x6015): "FTDI FT231X (ULX3S, ...)",
    (0x10C4, 0xEA60): "Silicon Labs CP210x",
}
#: PCIe functions by vendor and device id: one of those that Red Hat leaves to experiments (1af4:10f0 to 10ff), to be
#: set in the hard IP of a bitstream. Others may use it too: the magic word read from BAR0 decides.
KNOWN_FUNCTIONS = {(0x1AF4, 0x10F4): "Morphnic PCIe function"}


@dataclass(frozen=True)
class Candidate:
    """A device that may answer at `url`. kind: "simulated", "serial", "pcie" or "server".

    names: what it may be called besides its URL. board, build_id, map_hash, in_use (who holds the right to write, or
    the port) and serves (URL of the device behind a server) are None where they are not known.
    """

    url: str
    kind: str
    description: str
    details: dict[str, str | int | None] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    serial_number: str | None = None
    board: str | None = None
    build_id: int | None = None
    map_hash: int | None = None
    in_use: str | None = None
    serves: str | None = None


def discover() -> list[Candidate]:
    """What can be seen from here: simulated devices and servers that run, serial adapters, PCIe functions."""
    return [candidate for source in SOURCES for candidate in source()]


def running_servers() -> Iterator[Candidate]:
    """Simulated devices (their socket and their pseudo-terminal), and servers of devices, of this user."""
    for ready in rundir.running():
        details: dict[str, str | int | None] = {"pid": ready.pid, "map_hash": f"{ready.map_hash:#010x}",
                                                "build_id": f"{ready.build_id:#018x}", "time": ready.time}
        if ready.serves is not None:
            yield Candidate(ready.url, "server", f"{ready.name} serves {ready.serves}", details, (ready.name,),
                            serves=ready.serves,
                            build_id=ready.build_id, map_hash=ready.map_hash)
            continue
        yield Candidate(ready.url, "simulated", f"simulated device {ready.name}, {ready.time}", details,
                        (ready.name,), board="simulated",
                            build_id=ready.build_id, map_hash=ready.map_hash)
        if ready.pcie:
            yield Candidate(f"pcie://{ready.name}", "simulated", f"PCIe function of {ready.name}", details,
                            board="simulated", build_id=ready.build_id, map_hash=ready.map_hash)
        if ready.pty:
            yield Candidate(f"uart://{ready.pty}", "simulated", f"serial port of {ready.name}", details,
                            board="simulated", in_use=port_holder(Path(ready.pty)),
                            build_id=ready.build_id, map_hash=ready.map_hash)


def serial_ports() -> Iterator[Candidate]:
    """Known USB serial adapters."""
    for port in sorted(list_ports.comports(), key=lambda port: str(port.device)):
        adapter = KNOWN_ADAPTERS.get((port.vid, port.pid))
        if adapter:
            names = tuple(filter(None, (port.serial_number, Path(port.device).name, port.device)))
            yield Candidate(f"uart://{port.device}", "serial", f"{port.product or adapter}", {
                "usb": f"{port.vid:04x}:{port.pid:04x}", "serial_number": port.serial_number, "adapter": adapter},
                names, serial_number=port.serial_number, board=port.product, in_use=port_holder(Path(port.device)))


def pcie_functions(root: Path = Path("/sys/bus/pci/devices"),
                   known: Mapping[tuple[int, int], str] = KNOWN_FUNCTIONS,
                   groups: Path = Path("/dev/vfio")) -> Iterator[Candidate]:
    """Known PCIe functions, with the driver that has them; `groups`: the folder of vfio's IOMMU groups."""
    for folder in sorted(root.glob("*")):
        try:
            ids = tuple(int((folder / name).read_text(), 16) for name in ("vendor", "device"))
        except (OSError, ValueError):
            continue
        board = known.get((ids[0], ids[1]))
        if board:
            driver = (folder / "driver").resolve().name if (folder / "driver").exists() else None
            holder = f"driver {driver}" if driver is not None else None
            if driver == "vfio-pci":  # It is there for a program to take it, by its group, which opens once.
                holder = file_holder(groups / (folder / "iommu_group").resolve().name)
            yield Candidate(f"pcie://{folder.name}", "pcie", board, {
                "pcie": f"{ids[0]:04x}:{ids[1]:04x}", "driver": driver}, (folder.name,), board=board, in_use=holder)


#: Called in this order.
SOURCES: tuple[Callable[[], Iterator[Candidate]], ...] = (running_servers, serial_ports, pcie_functions)


def port_holder(port: Path, locks: Path = Path("/proc/locks"), proc: Path = Path("/proc")) -> str | None:
    """The process that holds the lock of a serial port, as `uart://` takes it; None where there is none."""
    try:
        status = port.stat()
        lines = locks.read_text().splitlines()
    except OSError:
        return None
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for words in map(str.split, lines):
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == place:
            return _process(words[4], proc)
    return None


def file_holder(path: Path, proc: Path = Path("/proc")) -> str | None:
    """The process that has `path` open; None where there is none, or where this user may not see it."""
    for descriptor in proc.glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(descriptor)
        except OSError:  # It has ended, or is another user's.
            continue
        if target == str(path):
            return _process(descriptor.parts[-3], proc)
    return None


def _process(number: str, proc: Path) -> str:
    try:
        name = (proc / number / "comm").read_text().strip()
    except OSError:
        name = "of another user or container"
    return f"process {number} ({name})"


def remote(url: str, name: str) -> Candidate:
    """A candidate for a server at `url` that the settings name."""
    return Candidate(url, "server", f"{name} at {urlsplit(url).netloc or urlsplit(url).path}", names=(name,))


def ask(candidate: Candidate, timeout: float = 1.0) -> Candidate:
    """`candidate` with what its server tells; itself where there is no server. Raises `MorphnicError`."""
    pipe = open_pipe(candidate.url, timeout=timeout)
    if pipe is None:
        return candidate
    try:
        told = pipe.ask({"op": "describe"})
    finally:
        pipe.close()
    if not told.get("ok"):
        raise LinkError(f"{candidate.url}: {told.get('error', 'it does not tell what it is')}")
    return replace(candidate, serial_number=f"{int(told['uid']):#018x}", build_id=int(told["build_id"]),
                   map_hash=int(told["map_hash"]), in_use=told["writer"], board=told.get("board", candidate.board),
                   serves=candidate.serves or (str(told["url"]) if candidate.kind == "server" else None))


__all__ = ["KNOWN_ADAPTERS", "Candidate", "ask", "discover", "remote"]
