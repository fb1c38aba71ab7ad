"""The first process of a guest: mounts and switches on what a kernel leaves to it, and runs what it is told.

Nothing but the standard library is used, and nothing of this machine is written: what a program writes goes to /run.
Requests and answers are lines of JSON on the virtio port named `agent`: {"run": [...], "directory": ...} is
answered with {"code": ..., "output": ..., "errors": ...}. Arguments: the folder of the kernel's modules.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"))
MODULES = {"virt/lib/irqbypass": "", "drivers/vfio/vfio": "",
           # QEMU's IOMMU is used without its interrupt remapping, which userspace emulation of interrupts has not.
           "drivers/vfio/vfio_iommu_type1": "allow_unsafe_interrupts=1",
           "drivers/vfio/pci/vfio-pci-core": "", "drivers/vfio/pci/vfio-pci": ""}
_FINIT_MODULE, _COMPRESSED = 313, 4
_POWER_OFF = 0x4321FEDC
_SET_FLAGS, _UP = 0x8914, 1  # of a network interface
_C = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def prepare(modules: Path) -> None:
    """Mounts, modules, and the network of the guest with itself."""
    for kind, place in MOUNTS:
        _check(_C.mount(b"none", place.encode(), kind.encode(), 0, None), f"mount {place}")
    for name, options in MODULES.items():
        descriptor = os.open(modules / f"{name}.ko.xz", os.O_RDONLY)
        _check(_C.syscall(_FINIT_MODULE, descriptor, options.encode(), _COMPRESSED), f"module {name}")
        os.close(descriptor)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH22x", b"lo", _UP))
    os.environ |= {"HOME": "/run", "TMPDIR": "/run", "XDG_RUNTIME_DIR": "/run", "PYTHONDONTWRITEBYTECODE": "1",
                   "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def agent_port() -> Path:
    """The virtio port of that name."""
    for folder in Path("/sys/class/virtio-ports").iterdir():
        if (folder / "name").read_text().strip() == "agent":
            return Path("/dev") / folder.name
    raise FileNotFoundError("there is no virtio port named agent")


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one request."""
    try:
        done = subprocess.run(request["run"], cwd=request["directory"], check=False, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)
    except OSError as error:
        return {"code": None, "output": "", "errors": str(error)}
    return {"code": done.returncode, "output": done.stdout, "errors": done.stderr}


def main() -> None:
    """Until the host ends the guest."""
    prepare(Path(sys.argv[1]))
    with open(agent_port(), "r+b", buffering=0) as port:
        port.write(json.dumps({"ready": os.uname().release}).encode() + b"\n")
        waiting = b""
        while True:
            waiting += port.read(65536) or b""
            while b"\n" in waiting:
                line, waiting = waiting.split(b"\n", 1)
                answer = memoryview(json.dumps(run(json.loads(line))).encode() + b"\n")
                while answer:
                    answer = answer[port.write(answer):]


if __name__ == "__main__":
    try:
        main()
    finally:
        sys.stderr.flush()
        _C.sync()
        _C.reboot(_POWER_OFF)
