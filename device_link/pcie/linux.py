"""PCIe functions of this machine, as Linux gives them: registers alone through sysfs, all of it through vfio-pci.

A function that is bound to vfio-pci is taken whole (`VfioFunction`); of any other, BAR0 is mapped from `resource0`
(`SysfsFunction`). What is missing - a right, a driver, a switch - is said with what to type.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

from morphnic.errors import DeviceBusy, DeviceNotFound, EnvironmentFault, LinkError

from .function import BAR_BYTES, Function, Window
from .vfio import VfioFunction

SYSFS = Path("/sys")
_ADDRESS = re.compile(r"(?:[0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")


def is_address(text: str) -> bool:
    """Whether `text` is the address of a function: domain, bus, device, function; the domain may be left out."""
    return bool(_ADDRESS.fullmatch(text))


def full_address(text: str) -> str:
    """The address as sysfs has it."""
    return text.lower() if text.count(":") == 2 else f"0000:{text.lower()}"


def open_function(address: str, *, writer: bool, sysfs: Path = SYSFS, dev: Path = Path("/dev")) -> Function:
    """The function at `address`: whole if vfio-pci has it, else its registers. `writer`: nobody else may have it so."""
    address = full_address(address)
    folder = sysfs / "bus/pci/devices" / address
    if not folder.exists():
        raise DeviceNotFound(f"there is no PCIe function {address}: `morphnic list` shows those that may be meant; "
                             f"if it was just plugged in, `echo 1 | sudo tee {sysfs}/bus/pci/rescan`")
    driver = folder / "driver"
    if driver.exists() and driver.resolve().name == "vfio-pci":
        return VfioFunction(folder, dev)
    return SysfsFunction(folder, writer=writer)


class SysfsFunction(Function):
    """Registers alone, through the file `resource0` of the function's folder in sysfs."""

    def __init__(self, folder: Path, *, writer: bool) -> None:
        super().__init__(f"the PCIe function {folder.name}")
        self._check(folder)
        path = folder / "resource0"
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _refusal(path, error) from error
        try:
            if writer:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._window = Window(self._descriptor, 0)
        except OSError as error:
            os.close(self._descriptor)
            if error.errno == errno.EWOULDBLOCK:
                raise DeviceBusy(f"{self.name} is held by another process: close it there first") from error
            raise _refusal(path, error) from error
        except ValueError as error:
            os.close(self._descriptor)
            raise LinkError(f"{self.name}: BAR0 cannot be mapped ({error})") from error

    def _check(self, folder: Path) -> None:
        """What would end in nothing but ones later."""
        try:
            first = (folder / "resource").read_text().split()
            size = int(first[1], 16) - int(first[0], 16) + 1
            enabled = (folder / "enable").read_text().strip() != "0"
        except (OSError, ValueError, IndexError) as error:
            raise LinkError(f"{self.name} has no readable description in {folder} ({error})") from error
        if size != BAR_BYTES:
            found = size if first[1] != first[0] else 0
            raise LinkError(f"{self.name} is no Morphnic device: BAR0 has {found} bytes, not {BAR_BYTES}")
        if not enabled:
            raise EnvironmentFault(f"{self.name} is switched off: `echo 1 | sudo tee {folder}/enable`")

    def read32(self, offset: int) -> int:
        """As `Function`."""
        return self._window.read(offset)

    def write32(self, offset: int, word: int) -> None:
        """As `Function`."""
        self._window.write(offset, word)

    def close(self) -> None:
        """As `Function`."""
        self._window.close()
        os.close(self._descriptor)


def _refusal(path: Path, error: OSError) -> Exception:
    if error.errno in (errno.EACCES, errno.EPERM):
        return EnvironmentFault(
            f"no permission to map {path}: it is root's. Run the command with sudo, or bind the function to vfio-pci "
            "and give its group to your user (docs/guides/pcie.md). With Secure Boot the kernel may refuse even root")
    if error.errno == errno.EINVAL:
        return EnvironmentFault(f"the kernel does not let {path} be mapped: a driver has the function; unbind it with "
                                f"`echo {path.parent.name} | sudo tee {path.parent}/driver/unbind`")
    return LinkError(f"{path} cannot be mapped: {error.strerror}")


__all__ = ["SysfsFunction", "full_address", "is_address", "open_function"]
