"""Readers of recorded input: MQSim, MSR Cambridge CSV and VSCSI block traces, and pcap captures.

Each names the file and the line (or the packet) that is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from morphnic.errors import InputError

from .requests import REQUEST, SECTOR, Array, Requests

_LIMIT = 1 << 62


def _read(path: Path) -> tuple[bytes, str]:
    """Contents and SHA-256."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data, hashlib.sha256(data).hexdigest()


def _lines(path: Path, data: bytes) -> list[tuple[int, str]]:
    """(number, text) of the lines that are neither empty nor comments."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line} is not text: is it a trace, and not compressed?") from error
    return [(number, line) for number, line in enumerate(text.splitlines(), 1)
            if line.strip() and not line.lstrip().startswith("#")]


Check = Callable[[list[str]], str | None]
Columns = list[list[str]]


def _columns(path: Path, lines: Sequence[tuple[int, str]], separator: str | None, names: Sequence[str],
             check: Check) -> Columns:
    """Fields of each line; the first line that is wrong is named.

    check: what is wrong with the fields of a line, or None. Lines are checked one by one only here, where an error
    must name one; everything after works on whole columns.
    """
    rows = [line.split(separator) for _, line in lines]
    for (number, line), fields in zip(lines, rows, strict=True):
        problem = None
        if len(fields) != len(names):
            problem = f"has {len(fields)} fields instead of {len(names)} ({', '.join(names)})"
        else:
            problem = check(fields)
        if problem:
            raise InputError(f"{path}: line {number} {problem}: {line[:80]!r}")
    return rows


def _integers(fields: Sequence[str], names: Sequence[str], least: Sequence[int]) -> str | None:
    """What is wrong with integer fields."""
    for text, name, low in zip(fields, names, least, strict=True):
        try:
            value = int(text)
        except ValueError:
            return f"has a {name} that is no integer ({text.strip()!r})"
        if not low <= value < _LIMIT:
            return f"has a {name} of {value}; it must be at least {low}"
    return None


def read_mqsim(path: str | Path) -> Requests:
    """An MQSim trace: arrival ns, device, start LBA, sectors of 512 bytes, type (1 read, 0 write)."""
    path = Path(path)
    data, digest = _read(path)
    names = ("arrival ns", "device", "LBA", "sectors", "type")

    def check(fields: list[str]) -> str | None:
        problem = _integers(fields, names, (0, 0, 0, 1, 0))
        return problem or (None if fields[4] in ("0", "1") else f"has a type of {fields[4]}; 0 is write, 1 is read")

    table = np.array(_columns(path, _lines(path, data), None, names, check), dtype=np.int64).reshape(-1, 5)
    rows = np.empty(len(table), REQUEST)
    rows["time"], rows["stream"], rows["lba"] = table[:, 0], table[:, 1], table[:, 2]
    rows["size"], rows["write"] = table[:, 3] * SECTOR, table[:, 4] == 0
    return Requests(rows, path.name, digest)


def read_msr(path: str | Path) -> Requests:
    """An MSR Cambridge CSV: time in 100 ns, host, disk, Read or Write, offset and size in bytes, response time.

    Each (host, disk) is a stream, numbered in order of appearance.
    """
    path = Path(path)
    data, digest = _read(path)
    names = ("timestamp", "host", "disk", "type", "offset", "size", "response time")

    def check(fields: list[str]) -> str | None:
        if fields[3].strip().lower() not in ("read", "write"):
            return f"has a type of {fields[3]!r}; it must be Read or Write"
        numbers = [fields[i] for i in (0, 2, 4, 5, 6)]
        return _integers(numbers, [names[i] for i in (0, 2, 4, 5, 6)], (0, 0, 0, 1, 0))

    lines = _lines(path, data)
    if lines and lines[0][1].lower().startswith("timestamp"):
        lines = lines[1:]
    table = _columns(path, lines, ",", names, check)
    numbers = np.array([[row[0], row[4], row[5]] for row in table], dtype=np.int64).reshape(-1, 3)
    disks: dict[tuple[str, str], int] = {}
    rows = np.empty(len(table), REQUEST)
    rows["stream"] = [disks.setdefault((row[1].strip(), row[2].strip()), len(disks)) for row in table]
    rows["time"] = (numbers[:, 0] - (numbers[:, 0].min() if len(table) else 0)) * 100
    rows["lba"] = numbers[:, 1] // SECTOR
    rows["size"] = _sectors(numbers[:, 2])
    rows["write"] = [row[3].strip().lower() == "write" for row in table]
    return Requests(rows, path.name, digest, {"disks": [" ".join(disk) for disk in disks]})


def read_vscsi(path: str | Path, *, stream: int = 0) -> Requests:
    """A VSCSI trace as text: Read or Write, seconds, LBA, sectors of 512 bytes; one virtual disk a file."""
    path = Path(path)
    data, digest = _read(path)
    names = ("operation", "seconds", "LBA", "sectors")

    def check(fields: list[str]) -> str | None:
        if fields[0].lower() not in ("read", "write", "r", "w"):
            return f"has an operation of {fields[0]!r}; it must be Read or Write"
        try:
            good = 0 <= float(fields[1]) < 1e9
        except ValueError:
            good = False
        if not good:
            return f"has a time that is no number of seconds ({fields[1]!r})"
        return _integers(fields[2:], names[2:], (0, 1))

    table = _columns(path, _lines(path, data), None, names, check)
    rows = np.empty(len(table), REQUEST)
    rows["time"] = np.rint(np.array([row[1] for row in table], dtype=np.float64) * 1e9)
    numbers = np.array([row[2:] for row in table], dtype=np.int64).reshape(-1, 2)
    rows["stream"], rows["lba"], rows["size"] = stream, numbers[:, 0], numbers[:, 1] * SECTOR
    rows["write"] = [row[0].lower().startswith("w") for row in table]
    return Requests(rows, path.name, digest)


def _sectors(size: Array) -> Array:
    """Bytes rounded up to whole sectors: what a disk transfers."""
    return (size + SECTOR - 1) // SECTOR * SECTOR


FORMATS: dict[str, Callable[[str | Path], Requests]] = {"mqsim": read_mqsim, "msr": read_msr, "vscsi": read_vscsi}


def read_trace(path: str | Path, kind: str | None = None) -> Requests:
    """A block trace of `kind`, or of the kind that its first line looks like."""
    path = Path(path)
    if kind is None:
        data, _ = _read(path)
        lines = _lines(path, data[:4096].rpartition(b"\n")[0] or data[:4096])
        first = lines[0][1] if lines else ""
        kind = "msr" if first.count(",") == 6 else "vscsi" if first[:1].isalpha() else "mqsim"
    if kind not in FORMATS:
        raise InputError(f"the kind of {path} must be one of {', '.join(FORMATS)}, not {kind!r}")
    return FORMATS[kind](path)


FRAME = np.dtype([("time", "<i8"), ("offset", "<i8"), ("length", "<i8"), ("flow", "<i8")])


@dataclass(frozen=True)
class Frames:
    """Ethernet frames of a capture: `flow` numbers the pairs of IPv4 addresses (whichever way), -1 without one."""

    rows: Array
    payload: bytes
    name: str
    sha256: str
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Sum of the lengths."""
        return int(self.rows["length"].sum())


def read_pcap(path: str | Path) -> Frames:
    """The Ethernet frames of a pcap or pcapng capture."""
    import dpkt

    path = Path(path)
    digest = _read(path)[1]
    times: list[int] = []
    frames: list[bytes] = []
    with open(path, "rb") as file:
        try:
            reader = dpkt.pcap.UniversalReader(file)
        except (ValueError, dpkt.Error) as error:
            raise InputError(f"{path}: no pcap or pcapng capture ({error})") from error
        if reader.datalink() != dpkt.pcap.DLT_EN10MB:
            raise InputError(f"{path}: link type {reader.datalink()} instead of Ethernet (1)")
        try:
            for stamp, frame in reader:
                times.append(round(float(stamp) * 1e9))
                frames.append(frame)
        except (ValueError, dpkt.Error) as error:
            raise InputError(f"{path}: packet {len(frames)}: {error}") from error
    if not frames:
        raise InputError(f"{path}: the capture has no packets")
    return _frames(path, digest, times, frames)


def _frames(path: Path, digest: str, times: list[int], frames: list[bytes]) -> Frames:
    rows = np.empty(len(frames), FRAME)
    flows: dict[tuple[bytes, bytes], int] = {}
    rows["time"] = times
    rows["length"] = [len(frame) for frame in frames]
    rows["offset"] = np.concatenate([[0], np.cumsum(rows["length"])[:-1]])
    rows["flow"] = [_pair(frame, flows) for frame in frames]
    short = np.flatnonzero(rows["length"] < 14)
    if len(short):
        raise InputError(f"{path}: packet {int(short[0])} has {int(rows['length'][short[0]])} bytes: no Ethernet frame")
    order = np.argsort(rows["time"], kind="stable")
    return Frames(rows[order], b"".join(frames), path.name, digest, {"conversations": len(flows)})


def _pair(frame: bytes, flows: dict[tuple[bytes, bytes], int]) -> int:
    """Number of the frame's pair of IPv4 addresses, whichever way it goes."""
    at = 14
    kind = frame[12:14]
    if kind == b"\x81\x00":
        kind, at = frame[16:18], 18
    if kind != b"\x08\x00" or len(frame) < at + 20:
        return -1
    ends = sorted([frame[at + 12:at + 16], frame[at + 16:at + 20]])
    return flows.setdefault((ends[0], ends[1]), len(flows))
