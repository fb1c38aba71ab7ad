"""The run directory: where running simulated devices (and services) are found by name.

`$XDG_RUNTIME_DIR/morphnic/`, else `/tmp/morphnic-<uid>/`; of this user alone. A device NAME has a folder
`NAME/` with its socket `device.sock` and a ready file `device.json`, written by an atomic rename once the device
answers and removed when it stops: whoever waits for a device waits for the file, and never sleeps for a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from morphnic.errors import DeviceNotFound, EnvironmentFault
from morphnic.files import replace_text

READY_SCHEMA = 1
READY_NAME = "device.json"
SOCKET_NAME = "device.sock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SOCKET_PATH_BYTES = 107  # sun_path of Linux, without its final zero


def run_dir() -> Path:
    """The run directory, made if it is missing; raises `EnvironmentFault` when it is not this user's alone."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "morphnic" if base else Path(tempfile.gettempdir()) / f"morphnic-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat().st_uid
    except OSError as error:
        raise EnvironmentFault(f"the run directory {path} cannot be made ({error.strerror}): "
                               "set XDG_RUNTIME_DIR to a folder that you may write to") from error
    if owner != os.getuid():
        raise EnvironmentFault(f"the run directory {path} belongs to another user: set XDG_RUNTIME_DIR "
                               "to a folder of your own")
    return path


def check_name(name: str) -> str:
    """`name`, if it can name a device."""
    if not _NAME.fullmatch(name):
        raise ValueError("name must be 1..64 letters, digits, '.', '_' or '-' and begin with a letter or digit, "
                         f"not {name!r}")
    return name


def device_dir(name: str) -> Path:
    """Folder of the device `name` (not made here)."""
    return run_dir() / check_name(name)


def socket_path(name: str) -> Path:
    """Socket of the device `name`; raises `EnvironmentFault` when a socket cannot have so long a path."""
    path = device_dir(name) / SOCKET_NAME
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise EnvironmentFault(f"the socket path {path} is longer than {_SOCKET_PATH_BYTES} bytes: "
                               "set XDG_RUNTIME_DIR to a shorter folder, or use a shorter name")
    return path


@dataclass(frozen=True)
class ReadyFile:
    """What a running simulated device, or a server of a device, tells about itself.

    socket and pty are absolute paths; pty is None without a virtual serial port. time is "lockstep" or
    "free-running". capabilities are names of `device_link.transport.Capability` beyond register access. serves is the
    URL of the device that a server shares, None for a simulated device. pcie: it has a PCIe function, `pcie://NAME`.
    """

    name: str
    pid: int
    socket: str
    pty: str | None
    map_hash: int
    build_id: int
    time: str = "free-running"
    capabilities: tuple[str, ...] = ("WINDOWS", "CONTROL", "EXCLUSIVE")
    serves: str | None = None
    pcie: bool = False
    schema: int = READY_SCHEMA

    @property
    def url(self) -> str:
        """Device URL of the register socket."""
        return f"sim://{self.name}" if self.serves is None else f"unix://{self.socket}"

    @property
    def running(self) -> bool:
        """Whether the process that wrote the file still exists."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def write_ready(folder: Path, ready: ReadyFile) -> Path:
    """Publish `ready` in `folder`, atomically."""
    path = folder / READY_NAME
    replace_text(path, json.dumps(asdict(ready)) + "\n")
    return path


def read_ready(folder: Path) -> ReadyFile:
    """The ready file in `folder`; raises `DeviceNotFound` when there is none that this software understands."""
    path = folder / READY_NAME
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DeviceNotFound(f"no device has published {path}: start one with `morphnic sim run`") from error
    except (OSError, ValueError) as error:
        raise DeviceNotFound(f"the ready file {path} cannot be read: {error}") from error
    if document.get("schema") != READY_SCHEMA:
        raise DeviceNotFound(f"the ready file {path} has schema {document.get('schema')!r}, this software knows "
                             f"{READY_SCHEMA}: restart the device with the same version")
    known = {field.name for field in fields(ReadyFile)}
    values = {name: value for name, value in document.items() if name in known}
    try:
        values["capabilities"] = tuple(values.get("capabilities", ()))
        return ReadyFile(**values)
    except TypeError as error:
        raise DeviceNotFound(f"the ready file {path} is incomplete: {error}") from error


def running() -> list[ReadyFile]:
    """Ready files of the simulated devices whose process exists, by name."""
    found = []
    for path in sorted(run_dir().glob(f"*/{READY_NAME}")):
        try:
            ready = read_ready(path.parent)
        except DeviceNotFound:
            continue  # half removed, or of another version: not a device that this software can use
        if ready.running:
            found.append(ready)
    return found


def remove_ready(folder: Path) -> None:
    """Withdraw what `write_ready` published; nothing happens when it is gone."""
    with contextlib.suppress(FileNotFoundError):
        (folder / READY_NAME).unlink()


@contextlib.contextmanager
def claimed(name: str) -> Iterator[Path]:
    """The folder of the device `name`, held by a lock as long as this process lives."""
    folder = device_dir(name)
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise EnvironmentFault(f"the name {name!r} is in use by process {owner}: choose another name, or stop "
                                   "that device first") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield folder
