"""What boards need: permission to open their ports, udev rules, FTDI's latency timer; of cards, vfio-pci."""

from __future__ import annotations

import getpass
import grp
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from device_link import discovery

from .finding import Finding

GROUP = "dialout"
RULES = ("70-morphnic.rules", "71-morphnic-cables.rules")
RULE_FOLDERS = (Path("/etc/udev/rules.d"), Path("/run/udev/rules.d"), Path("/usr/lib/udev/rules.d"),
                Path("/lib/udev/rules.d"))


def serial_group() -> Finding:
    """Serial ports belong to a group; root needs none."""
    try:
        entry = grp.getgrnam(GROUP)
    except KeyError:
        return Finding("permissions", "warning", f"there is no group {GROUP}", f"sudo groupadd --system {GROUP}")
    if os.geteuid() == 0 or entry.gr_gid in {os.getegid(), *os.getgroups()}:
        return Finding("permissions", "ok", "root" if os.geteuid() == 0 else f"member of {GROUP}")
    user = getpass.getuser()
    if user in entry.gr_mem:
        return Finding("permissions", "warning", f"{user} is in {GROUP}, but this session began before that",
                       "log in again, or: newgrp dialout")
    return Finding("permissions", "warning", f"{user} is not in the group {GROUP}: no serial port may be opened",
                   f"sudo usermod -aG {GROUP} {user}, and log in again")


def udev_rules(folders: Sequence[Path] = RULE_FOLDERS) -> Finding:
    """The rules that give boards' ports and cables to their users, and set the latency timer at each plugging in."""
    lacking = [name for name in RULES if not any((folder / name).exists() for folder in folders)]
    if not lacking:
        return Finding("udev rules", "ok", f"{', '.join(RULES)} are installed")
    copied = " ".join(f"deploy/udev/{name}" for name in lacking)
    return Finding("udev rules", "warning", f"{' and '.join(lacking)} not installed: needed for boards only",
                   f"sudo cp {copied} /etc/udev/rules.d/ && sudo udevadm control --reload && sudo udevadm trigger")


def serial_ports(sys_root: Path = Path("/sys"), dev_root: Path = Path("/dev")) -> Iterator[Finding]:
    """Each USB serial port: may we open it, and is FTDI's latency timer at 1 ms (16 ms as delivered)?"""
    ports = sorted(path.name for pattern in ("ttyUSB*", "ttyACM*") for path in dev_root.glob(pattern))
    if not ports:
        yield Finding("serial ports", "ok", "no USB serial port is plugged in")
    for port in ports:
        device = dev_root / port
        if not os.access(device, os.R_OK | os.W_OK):
            yield Finding(port, "warning", f"{device} may not be opened by this user",
                          "sudo cp deploy/udev/70-morphnic.rules /etc/udev/rules.d/ && sudo udevadm trigger")
            continue
        timer = sys_root / "bus" / "usb-serial" / "devices" / port / "latency_timer"
        yield latency_timer(port, device, timer)


def latency_timer(port: str, device: Path, timer: Path) -> Finding:
    """FTDI chips hold short answers back for the latency timer: 16 ms is 60 exchanges a second."""
    try:
        milliseconds = int(timer.read_text())
    except FileNotFoundError:
        return Finding(port, "ok", f"{device} (no latency timer)")
    except (OSError, ValueError) as error:
        return Finding(port, "warning", f"{timer} cannot be read: {error}")
    if milliseconds > 1:
        return Finding(port, "warning", f"latency timer {milliseconds} ms", f"echo 1 | sudo tee {timer}")
    return Finding(port, "ok", f"{device}, latency timer {milliseconds} ms")


def pcie_functions(sys_root: Path = Path("/sys"), dev_root: Path = Path("/dev")) -> Iterator[Finding]:
    """Each PCIe function: can a program of this user have all of it, or registers alone?"""
    found = list(discovery.pcie_functions(sys_root / "bus/pci/devices"))
    if not found:
        yield Finding("PCIe functions", "ok", "no card is plugged in")
    for candidate in found:
        folder = sys_root / "bus/pci/devices" / candidate.url.removeprefix("pcie://")
        driver = candidate.details["driver"]
        yield pcie_function(folder, None if driver is None else str(driver), dev_root)


def pcie_function(folder: Path, driver: str | None, dev_root: Path) -> Finding:
    """One, whose folder in sysfs is `folder`."""
    alone = "registers alone, without DMA and interrupts"
    if not (folder / "iommu_group").exists():
        return Finding(folder.name, "warning", f"the IOMMU is off: {alone}",
                       "intel_iommu=on on the kernel's command line; AMD's is on where the firmware has it")
    if driver != "vfio-pci":
        held = f"driver {driver} has it" if driver else "it has no driver"
        unbind = f"echo {folder.name} | sudo tee {folder}/driver/unbind && " if driver else ""
        return Finding(folder.name, "warning", f"{held}: {alone}",
                       f"sudo modprobe vfio-pci && {unbind}echo vfio-pci | sudo tee {folder}/driver_override && "
                       f"echo {folder.name} | sudo tee {folder.parents[1]}/drivers_probe")
    group = dev_root / "vfio" / (folder / "iommu_group").resolve().name
    if not os.access(group, os.R_OK | os.W_OK):
        return Finding(folder.name, "warning", f"{group} may not be opened by this user",
                       "sudo cp deploy/udev/73-morphnic-vfio.rules /etc/udev/rules.d/ && "
                       "sudo udevadm control --reload && sudo udevadm trigger")
    return Finding(folder.name, "ok", f"{group}, through vfio-pci")
