"""What guests need: QEMU, and KVM that really runs one.

/dev/kvm may open, and even create a machine, where no guest ever runs (nested virtualisation). So one is booted: 512
bytes that do what a kernel begins with (64-bit mode, paging) and then end QEMU with an exit code of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from sim.guest import packages

from .finding import Finding, first_line_of

QEMU = "qemu-system-x86_64"
INSTALL = "sudo apt-get install qemu-system-x86"
BOOT_TIMEOUT_S = 10.0
BOOTED = 33  # of isa-debug-exit: twice the byte that the guest writes, plus one
#: tests/morphnic/boot_probe.S, assembled.
PROBE = bytes.fromhex(
    "fa31c08ed88ec0bf00106631c066b9000c0000fc66f3abc70600100320c70600200330c60600308366b8001000000f22"
    "d80f20e00c200f22e066b9800000c00f3280cc010f30660f0116787c0f20c0660d010000800f22c066ea607c00000800"
    "b010e6f4f4ebfd90000000000000000000000000009a20000f00687c"
).ljust(510, b"\0") + b"\x55\xaa"


def find_qemu() -> str | None:
    """QEMU on the PATH, or that which was fetched for guests."""
    fetched = packages.fetched()
    return shutil.which(QEMU) or (str(fetched.qemu) if fetched else None)


def guest() -> Finding:
    """What tests with a Linux guest boot, which brings a QEMU of its own; everything else goes without."""
    fetched = packages.fetched()
    if fetched is None:
        return Finding("guest", "warning", "nothing to boot one was fetched: tests with a card in a guest cannot run",
                       f"make guest, or {packages.FETCH}: 50 MB from Debian, without root")
    return Finding("guest", "ok", f"{fetched.kernel.name.removeprefix('vmlinuz-')} in {fetched.folder}")


def qemu() -> Finding:
    """QEMU, to try KVM and for what runs guests; everything else goes without."""
    path = find_qemu()
    if path is None:
        return Finding("qemu", "warning", f"{QEMU} is not on the PATH, and none was fetched", INSTALL)
    found = first_line_of("qemu", [path, "--version"], INSTALL)
    return found if found.state == "ok" else Finding("qemu", "warning", found.detail, found.remedy)


def kvm(device: Path = Path("/dev/kvm"), timeout: float = BOOT_TIMEOUT_S) -> Finding:
    """KVM, by booting a guest; without it guests run some ten times slower."""
    slower = "guests run under TCG, slower"
    if not device.exists():
        return Finding("kvm", "warning", f"there is no {device}: {slower}",
                       "sudo modprobe kvm_intel || sudo modprobe kvm_amd; "
                       "in a virtual machine, allow nesting at its host")
    if not os.access(device, os.R_OK | os.W_OK):
        return Finding("kvm", "warning", f"{device} may not be opened by this user: {slower}",
                       "sudo usermod -aG kvm $USER, and log in again")
    path = find_qemu()
    if path is None:
        return Finding("kvm", "warning", "it cannot be tried without QEMU", INSTALL)
    fault = boot(path, "kvm", timeout)
    if fault is None:
        return Finding("kvm", "ok", "a guest boots")
    return Finding("kvm", "warning", f"{fault}: {slower}",
                   "nothing here: in a virtual machine, allow nesting at its host; otherwise enable VT-x or AMD-V")


def boot(path: str, accelerator: str, timeout: float) -> str | None:
    """Boot the probe; None when it ran, else why it did not."""
    with tempfile.NamedTemporaryFile(suffix=".img") as image:
        image.write(PROBE)
        image.flush()
        command = [path, "-accel", accelerator, "-cpu", "max", "-m", "32", "-nodefaults", "-display", "none",
                   "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-boot", "a",
                   "-drive", f"file={image.name},format=raw,if=floppy,readonly=on"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False,
                                  stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return f"a guest did not boot within {timeout:g} s"
        except OSError as error:
            return f"{path} does not start: {error.strerror}"
    if done.returncode == BOOTED:
        return None
    lines = done.stderr.strip().splitlines()
    return f"a guest does not boot ({lines[0] if lines else f'QEMU ends with {done.returncode}'})"
