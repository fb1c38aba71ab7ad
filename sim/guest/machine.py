"""`Guest`: a Linux guest that runs commands, and has the PCIe function of a simulated device when it is given one.

Its root is this machine's, read-only (virtiofs); what it writes goes to its memory, in /run. It has an IOMMU, so that
vfio-pci works in it. QEMU emulates the processor: no KVM is needed, and a program takes some twenty times as long.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from morphnic.errors import EnvironmentFault

from . import init
from .packages import Packages

__all__ = ["Completed", "Guest"]

BOOT_SECONDS = 300.0  # on a busy machine; alone it takes a few
STOP_SECONDS = 10.0
MEMORY_MIB = 512
_ACCEPTS = 1 << 16  # among the flags in /proc/net/unix


@dataclass(frozen=True)
class Completed:
    """What a command in the guest left: exit code, standard output, standard error."""

    code: int
    output: str
    errors: str


class Guest:
    """A running guest: it takes commands when the constructor returns, and ends with this process.

    function: the socket `vfio-user.sock` of a simulated device, whose function is in the guest at 0000:01:00.0.
    """

    def __init__(self, packages: Packages, function: Path | None = None, *, timeout: float = BOOT_SECONDS) -> None:
        self._packages = packages
        self._folder = tempfile.TemporaryDirectory(prefix="guest-")
        self._started: list[subprocess.Popen[bytes]] = []
        self._agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._waiting = b""
        try:
            deadline = time.monotonic() + timeout
            self._start("virtiofsd", self._virtiofsd())
            self._wait_for(self._path("files"), deadline)
            self._start("qemu", self._qemu(function))
            self._wait_for(self._path("agent"), deadline)
            self._agent.connect(str(self._path("agent")))
            #: Release of its kernel.
            self.kernel = str(self._answer(deadline)["ready"])
        except BaseException:
            self.close()
            raise

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name

    def _virtiofsd(self) -> list[str]:
        return [str(self._packages.virtiofsd), "--shared-dir", "/", "--socket-path", str(self._path("files")),
                "--sandbox", "none", "--seccomp", "none", "--readonly", "--cache", "always", "--log-level", "error"]

    def _qemu(self, function: Path | None) -> list[str]:
        # On a busy machine a guest's checks of its clocks fail; and against whom would its kernel be hardened?
        boot = (f"console=ttyS0 loglevel=6 panic=-1 no_timer_check clocksource=hpet mitigations=off "
                f"root=files rootfstype=virtiofs ro intel_iommu=on,sm_off "
                f"init={Path(sys.executable).resolve()} -- {Path(init.__file__).resolve()} {self._packages.modules}")
        command = [
            str(self._packages.qemu), "-machine", "q35,accel=tcg,memory-backend=memory", "-cpu", "max",
            # Shared, so that virtiofsd and the simulated device reach it.
            "-m", str(MEMORY_MIB), "-object", f"memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on",
            "-nodefaults", "-display", "none", "-no-reboot", "-run-with", "exit-with-parent=on",
            "-serial", f"file:{self._path('console')}",
            "-device", "intel-iommu,intremap=off,caching-mode=on",
            "-chardev", f"socket,id=files,path={self._path('files')}",
            "-device", "vhost-user-fs-pci,chardev=files,tag=files",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={self._path('agent')},server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=agent",
            "-kernel", str(self._packages.kernel), "-append", boot]
        if function is not None:
            place = {"driver": "vfio-user-pci", "bus": "root1", "socket": {"type": "unix", "path": str(function)}}
            command += ["-device", "pcie-root-port,id=root1,chassis=1", "-device", json.dumps(place)]
        return command

    def _start(self, name: str, command: list[str]) -> None:
        with open(self._path(f"{name}.log"), "wb") as errors:
            self._started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors))

    def _wait_for(self, path: Path, deadline: float) -> None:
        """Until a process of the guest's listens there: the name is there before that."""
        while not _listens(path):
            self._check_alive(deadline)
            time.sleep(0.01)

    def _check_alive(self, deadline: float) -> None:
        if any(process.poll() is not None for process in self._started):
            raise EnvironmentFault(f"the guest has ended: {self.log()}")
        if time.monotonic() > deadline:
            raise EnvironmentFault(f"the guest does not answer in time: {self.log()}")

    def log(self) -> str:
        """The last lines that its console and its processes have written."""
        lines = []
        for name in ("virtiofsd.log", "qemu.log", "console"):
            if self._path(name).exists():
                lines += self._path(name).read_text(errors="replace").splitlines()[-15:]
        return "\n".join(lines)

    def run(self, command: Sequence[str | os.PathLike[str]], *, directory: Path | None = None,
            timeout: float = 300.0) -> Completed:
        """Run a command as root, in this process's directory or another.

        `EnvironmentFault` when it cannot be started, or does not end in time; the guest is of no use then. The time is
        this machine's: a guest's clock may leap when its processor was kept waiting.
        """
        request = {"run": [os.fspath(word) for word in command], "directory": str(directory or Path.cwd())}
        self._agent.sendall(json.dumps(request).encode() + b"\n")
        answer = self._answer(time.monotonic() + timeout)
        if answer["code"] is None:
            raise EnvironmentFault(f"in the guest: {answer['errors']}")
        return Completed(answer["code"], answer["output"], answer["errors"])

    def _answer(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._waiting:
            self._check_alive(deadline)
            if select.select([self._agent], [], [], 0.2)[0]:
                self._waiting += self._received()
        line, self._waiting = self._waiting.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _received(self) -> bytes:
        try:
            data = self._agent.recv(65536)
        except OSError:
            data = b""
        if not data:
            raise EnvironmentFault(f"the guest has ended: {self.log()}")
        return data

    def close(self) -> None:
        """End it, as by pulling the plug."""
        self._agent.close()
        for process in reversed(self._started):
            process.kill()
            process.wait(STOP_SECONDS)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _listens(path: Path) -> bool:
    """Whether somebody listens at a Unix socket; not by connecting: virtiofsd serves one connection, QEMU's."""
    for line in Path("/proc/net/unix").read_text().splitlines():
        words = line.split(maxsplit=7)
        if words[7:] == [str(path)] and int(words[3], 16) & _ACCEPTS:
            return True
    return False
