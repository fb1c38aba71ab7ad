"""A bitstream onto a board through openFPGALoader: the right board first, then the write, then proof over the link.

Which board it is, is asked three times, because USB ids are shared by many cables: by USB ids and product string
before anything is opened, by the JTAG IDCODE before anything is written, and by the build id that the running device
answers with afterwards. A failed step names the cable, the permission or the wrong board.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphnic.errors import DeviceNotFound, EnvironmentFault, InputError, LinkError, MorphnicError

from .board import Board

__all__ = ["Bitstream", "UsbDevice", "find_cable", "load", "read_bitstream", "read_idcode", "usb_devices", "verify"]

LOADER = "openFPGALoader"
SYSFS = Path("/sys/bus/usb/devices")
NODES = Path("/dev/bus/usb")
RULES = "deploy/udev/71-morphnic-cables.rules"
_REMEDY = (f"install the udev rule: sudo cp {RULES} /etc/udev/rules.d/ && sudo udevadm control --reload && "
           "sudo udevadm trigger, then plug the board in again")
#: What openFPGALoader, libftdi and libusb say when the system refuses them.
_REFUSED = re.compile(r"usb_open\(\) failed|libusb_open\(\) failed|LIBUSB_ERROR_ACCESS|[Pp]ermission denied|"
                      r"Access denied|insufficient permissions")
_IDCODE = re.compile(r"idcode\s+(0x[0-9a-fA-F]+)")
_PERCENT = re.compile(r"(\w[\w ]*):? *\[=*>? *\] *(\d+)\.\d+%")
DETECT_TIMEOUT_S, WRITE_TIMEOUT_S = 60, 600
BOOT_TIMEOUT_S = 10  # for the device to be configured and its serial port to come back


@dataclass(frozen=True)
class UsbDevice:
    """One USB device as the kernel describes it. ttys: its serial ports."""

    place: str
    vendor: int
    product: int
    name: str
    serial: str
    bus: int
    number: int
    ttys: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.vendor:04x}:{self.product:04x} '{self.name}'" + (f" {self.serial}" if self.serial else "")

    @property
    def node(self) -> Path:
        """File through which programs reach it."""
        return NODES / f"{self.bus:03d}" / f"{self.number:03d}"


@dataclass(frozen=True)
class Bitstream:
    """A built bitstream, its file unchanged since `morphnic build`."""

    path: Path
    build_id: int


def read_bitstream(board: Board, folder: Path) -> Bitstream:
    """The bitstream for `board` in a build folder. Raises `InputError` when there is none, or another."""
    path = folder / "report.json"
    remedy = f"build it: morphnic build --board {board.name} --output {folder}"
    if not path.exists():
        raise InputError(f"there is no report.json in {folder}; {remedy}")
    document: dict[str, Any] = json.loads(path.read_text())
    if document.get("target") != board.name:
        raise InputError(f"{folder} holds a build for {document.get('target', 'no board')}, not for {board.name}")
    if document["bitstream"] is None:
        raise InputError(f"{path} is of a build without a bitstream; {remedy}")
    file = folder / document["bitstream"]["file"]
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != document["bitstream"]["sha256"]:
        raise InputError(f"{file} is not the file that {path} describes; {remedy}")
    return Bitstream(file, int(document["build_id"], 16))


def usb_devices() -> list[UsbDevice]:
    """All USB devices; hubs and root hubs too."""
    found = []
    for folder in sorted(SYSFS.glob("*")):
        if not (folder / "idVendor").exists():
            continue
        facts = {name: (folder / name).read_text().strip() if (folder / name).exists() else ""
                 for name in ("idVendor", "idProduct", "product", "serial", "busnum", "devnum")}
        ttys = sorted(path.name for path in folder.glob(f"{folder.name}:*/tty*") if path.name != "tty")
        found.append(UsbDevice(folder.name, int(facts["idVendor"], 16), int(facts["idProduct"], 16), facts["product"],
                               facts["serial"], int(facts["busnum"]), int(facts["devnum"]), tuple(ttys)))
    return found


def find_cable(board: Board, serial: str | None = None) -> UsbDevice:
    """The one USB device that may be `board`.

    Raises `DeviceNotFound` when there is none or several, `EnvironmentFault` when it may not be opened.
    """
    vendor, product = board.cable.usb
    looked_for = f"{vendor:04x}:{product:04x}" + (f" '{board.cable.product}...'" if board.cable.product else "")
    same = [one for one in usb_devices() if (one.vendor, one.product) == board.cable.usb]
    found = [one for one in same if board.cable.product in one.name and (serial is None or one.serial == serial)]
    if not found:
        there = ", ".join(map(str, same))
        raise DeviceNotFound(f"no cable of {board.title} is plugged in: looked for USB {looked_for}"
                             + (f" with serial number {serial}" if serial else "")
                             + (f"; {there} has the same ids but is another board" if there else "; check the cable"))
    if len(found) > 1:
        raise DeviceNotFound(f"several cables may be {board.title}: {', '.join(map(str, found))}; name one with "
                             "--serial")
    if found[0].node.exists() and not os.access(found[0].node, os.R_OK | os.W_OK):
        raise _forbidden(str(found[0]), f"{found[0].node} may not be opened by this user")
    return found[0]


def _forbidden(cable: str, fault: str) -> EnvironmentFault:
    return EnvironmentFault(f"cable {cable}: {fault}; {_REMEDY}")


def loader_arguments(board: Board, cable: UsbDevice, chosen: str | None) -> list[str]:
    """How openFPGALoader is told which cable: that of the board, or `--cable`; then which of several."""
    base = ["--cable", chosen] if chosen else list(board.cable.loader)
    return base + (["--ftdi-serial", cable.serial] if cable.serial else [])


def find_loader() -> str:
    """Path of openFPGALoader."""
    given = os.environ.get("OPENFPGALOADER", LOADER)
    found = shutil.which(given)
    if found is None:
        raise EnvironmentFault(f"{given} is not on the PATH; type: sudo apt-get install openfpgaloader")
    return found


def read_idcode(board: Board, cable: UsbDevice, arguments: Sequence[str]) -> int | None:
    """IDCODE of the part behind the cable; None for a board whose part has none.

    Raises `DeviceNotFound` when it is another part's, or none answers.
    """
    if board.idcode is None:
        return None
    output = _run([find_loader(), *arguments, "--detect"], cable, DETECT_TIMEOUT_S, lambda line: None)
    found = [int(code, 16) for code in _IDCODE.findall(output)]
    if not found:
        raise DeviceNotFound(f"cable {cable}: no part answers on JTAG; is the board powered?")
    if board.idcode not in found:
        raise DeviceNotFound(f"cable {cable}: the part has IDCODE {', '.join(f'{code:#010x}' for code in found)}, "
                             f"{board.title} has {board.idcode:#010x}: this is another board")
    return board.idcode


def load(board: Board, cable: UsbDevice, bitstream: Path, arguments: Sequence[str], *, keep: bool,
         progress: Callable[[str], None]) -> None:
    """Write the bitstream; with `keep` into the configuration flash, so that it survives power-off."""
    last = [-1]

    def follow(line: str) -> None:
        found = _PERCENT.search(line)
        if found and int(found[2]) // 10 != last[0]:
            last[0] = int(found[2]) // 10
            progress(f"{found[1].strip()}: {found[2]} %")

    _run(load_command(board, bitstream, arguments, keep=keep), cable, WRITE_TIMEOUT_S, follow)


def load_command(board: Board, bitstream: Path, arguments: Sequence[str], *, keep: bool) -> list[str]:
    """The command that writes; a board that can only be programmed through its flash always keeps."""
    where = ["--write-flash", "--verify"] if keep or board.cable.flash_only else ["--write-sram"]
    return [find_loader(), *arguments, *where, str(bitstream)]


def _run(command: Sequence[str], cable: UsbDevice, limit: float, follow: Callable[[str], None]) -> str:
    """Run openFPGALoader; it redraws its progress with carriage returns, each of which ends a line here."""
    output = []
    late = threading.Event()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace") as process:
        assert process.stdout is not None

        def stop() -> None:
            late.set()
            process.kill()

        watchdog = threading.Timer(limit, stop)
        watchdog.start()
        try:
            for line in process.stdout:  # universal newlines: a carriage return is one
                output.append(line)
                follow(line)
        except BaseException:
            process.kill()
            raise
        finally:
            watchdog.cancel()
    if late.is_set():
        raise LinkError(f"cable {cable}: {LOADER} has not ended after {limit:g} s and was stopped")
    text = "".join(output)
    if _REFUSED.search(text):
        raise _forbidden(str(cable), f"{LOADER} was refused: {_last(text)}")
    if process.returncode:
        raise LinkError(f"cable {cable}: {LOADER} ended with status {process.returncode}: {_last(text)}")
    return text


def _last(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-3:]) or "it printed nothing"


def link_url(board: Board, cable: UsbDevice) -> str | None:
    """Serial port of the cable, the last of several: the first ones are JTAG's. None while there is none."""
    for one in usb_devices():
        if one.place == cable.place and one.ttys:
            return f"uart:///dev/{one.ttys[-1]}?baud={board.config.uart_baud}"
    return None


def verify(board: Board, cable: UsbDevice, build_id: int, url: str | None) -> str:
    """Ask the device behind `url`, else behind the cable's serial port, for its build id; return the URL.

    Raises `LinkError` when it answers another, or nothing within 10 s.
    """
    import device_link

    deadline = time.monotonic() + BOOT_TIMEOUT_S
    fault = f"cable {cable}: it has no serial port (is the kernel's ftdi_sio loaded?)"
    while True:
        place = url or link_url(board, cable)
        if place is not None:
            try:
                with device_link.open(place) as device:
                    answered = int(device.identity.build_id)
                break
            except MorphnicError as error:
                fault = f"{place}: {error}"
        if time.monotonic() > deadline:
            raise LinkError(f"the bitstream was written, but no device answers: {fault}")
        time.sleep(0.2)
    if answered != build_id:
        raise LinkError(f"the device at {place} answers with build {answered:#018x}, not with {build_id:#018x}: what "
                        "was written does not run there (another board's serial port? name it with --device)")
    return place
