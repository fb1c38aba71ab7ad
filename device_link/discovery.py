"""Which devices could be opened from here. Nothing is opened by looking."""

from __future__ import annotations

from dataclasses import dataclass

from serial.tools import list_ports

from . import rundir

#: USB serial adapters of the boards that Morphnic runs on. Ids are shared by many cables, so that a candidate is
#: only that: the magic word read over the link decides.
KNOWN_ADAPTERS = {
    (0x0403, 0x6010): "FTDI FT2232H (Versa-ECP5, ECPIX-5, Arty A7, ...)",
    (0x0403, 0x6011): "FTDI FT4232H",
    (0x0403, 0x6014): "FTDI FT232H",
    (0x0403, 0x6015): "FTDI FT231X (ULX3S, ...)",
    (0x10C4, 0xEA60): "Silicon Labs CP210x",
}


@dataclass(frozen=True)
class Candidate:
    """A device that may answer at `url`. kind: "simulated" or "serial"."""

    url: str
    kind: str
    description: str
    details: dict[str, str | int | None]


def discover() -> list[Candidate]:
    """Running simulated devices (their socket and their pseudo-terminal), then known serial adapters."""
    found = []
    for device in rundir.running():
        details: dict[str, str | int | None] = {
            "pid": device.pid, "map_hash": f"{device.map_hash:#010x}", "build_id": f"{device.build_id:#018x}",
            "time": device.time}
        found.append(Candidate(device.url, "simulated", f"simulated device {device.name}, {device.time}", details))
        if device.pty:
            found.append(Candidate(f"uart://{device.pty}", "simulated", f"serial port of {device.name}", details))
    for port in sorted(list_ports.comports(), key=lambda port: port.device):
        adapter = KNOWN_ADAPTERS.get((port.vid, port.pid))
        if adapter:
            found.append(Candidate(f"uart://{port.device}", "serial", f"{port.product or adapter}", {
                "usb": f"{port.vid:04x}:{port.pid:04x}", "serial_number": port.serial_number, "adapter": adapter}))
    return found
