"""Captures as files for waveform viewers: VCD by pyvcd, FST by GTKWave's own library (pylibfst).

The scopes are the parts of a probe's name, so that a viewer shows the device's hierarchy. Time is the device's: cycle
*n* begins *n* clock periods after reset. Beside the probes there is `trigger`, high in the cycle of the trigger. FST
has the names of enums in it; for a VCD they are in the save file beside it (`sim/viewer.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from morphnic.errors import InputError

from .capture import Capture, Probe

#: File suffix and what writes such a file.
FORMATS: dict[str, Callable[[Path, Capture], None]] = {}
TRIGGER = "trigger"
PICOSECONDS = 10**12


def write(path: Path, capture: Capture) -> None:
    """Write `capture` in the format of the file's suffix; nothing is left of a file that could not be written whole."""
    writer = writer_of(path)
    if not capture.runs:
        raise InputError("the capture has no rows: it was stopped in its first cycle; begin another one")
    part = path.with_name(path.name + ".part")
    try:
        writer(part, capture)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def writer_of(path: Path) -> Callable[[Path, Capture], None]:
    """What writes a file of this suffix; `InputError` names those that there are."""
    if path.suffix not in FORMATS:
        raise InputError(f"a capture is written as {' or '.join(FORMATS)}, not as {path.name!r}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: the folder does not exist: make it, or name another")
    return FORMATS[path.suffix]


def changes(capture: Capture) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Cycles in which something changes, with place (that of the trigger is behind the last probe's) and new value.

    The first cycle has every value.
    """
    cycle, before = capture.start, None
    for sample, cycles in capture.runs:
        changed = [(place, probe.extract(sample)) for place, probe in enumerate(capture.probes)
                   if before is None or probe.extract(sample) != probe.extract(before)]
        starts, ended = cycle == capture.trigger, cycle - 1 == capture.trigger
        if starts or ended or before is None:
            changed.append((len(capture.probes), int(starts)))
        if changed:
            yield cycle, changed
        if starts and cycles > 1:
            yield cycle + 1, [(len(capture.probes), 0)]
        cycle, before = cycle + cycles, sample


def _period(capture: Capture) -> int:
    """Of the device's clock, in picoseconds."""
    return round(PICOSECONDS / capture.clock_hz)


def write_vcd(path: Path, capture: Capture) -> None:
    """A VCD file."""
    from vcd import VCDWriter

    with path.open("w", encoding="ascii") as file:
        with VCDWriter(file, timescale="1 ps", init_timestamp=capture.start * _period(capture)) as writer:
            variables = [writer.register_var(*_place(name), "wire", size=width)
                         for name, width in _signals(capture.probes)]
            for cycle, changed in changes(capture):
                for place, value in changed:
                    writer.change(variables[place], cycle * _period(capture), value)
            writer.close(capture.end * _period(capture))


def write_fst(path: Path, capture: Capture) -> None:
    """An FST file."""
    with _fst_writer(path) as (lib, ffi, context):
        lib.fstWriterSetTimescale(context, -12)
        lib.fstWriterSetFileType(context, lib.FST_FT_VERILOG)
        handles = []
        scopes: list[str] = []
        values = [probe.values for probe in capture.probes] + [{}]
        for (name, width), named in zip(_signals(capture.probes), values, strict=True):
            scope, variable = _place(name)
            scopes = _enter(lib, ffi, context, scopes, scope.split(".") if scope else [])
            if named:
                _name_values(lib, ffi, context, name, width, named)
            handles.append(lib.fstWriterCreateVar(context, lib.FST_VT_VCD_WIRE, lib.FST_VD_IMPLICIT, width,
                                                  variable.encode(), 0))
        _enter(lib, ffi, context, scopes, [])
        widths = [width for _, width in _signals(capture.probes)]
        for cycle, changed in changes(capture):
            lib.fstWriterEmitTimeChange(context, cycle * _period(capture))
            for place, value in changed:
                lib.fstWriterEmitValueChange(context, handles[place], f"{value:0{widths[place]}b}".encode())
        lib.fstWriterEmitTimeChange(context, capture.end * _period(capture))


FORMATS |= {".vcd": write_vcd, ".fst": write_fst}


@contextmanager
def _fst_writer(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    from pylibfst import ffi, lib

    context = lib.fstWriterCreate(str(path).encode(), 1)
    if context == ffi.NULL:
        raise InputError(f"{path} cannot be written")
    try:
        yield lib, ffi, context
    finally:
        lib.fstWriterClose(context)


def _enter(lib: Any, ffi: Any, context: Any, now: list[str], wanted: list[str]) -> list[str]:
    """Leave and enter scopes until `wanted` is the one; it is returned."""
    common = 0
    while common < min(len(now), len(wanted)) and now[common] == wanted[common]:
        common += 1
    for _ in now[common:]:
        lib.fstWriterSetUpscope(context)
    for scope in wanted[common:]:
        lib.fstWriterSetScope(context, lib.FST_ST_VCD_MODULE, scope.encode(), ffi.NULL)
    return wanted


def _name_values(lib: Any, ffi: Any, context: Any, name: str, width: int, values: Any) -> None:
    """The names of an enum's values, for the variable that is made next."""
    literals = [ffi.new("char[]", text.encode()) for text in values.values()]
    codes = [ffi.new("char[]", f"{value:0{width}b}".encode()) for value in values]
    table = lib.fstWriterCreateEnumTable(context, name.encode(), len(literals), width, literals, codes)
    lib.fstWriterEmitEnumTableRef(context, table)


def _signals(probes: tuple[Probe, ...]) -> list[tuple[str, int]]:
    """Names and widths of what a file has, in the order of the places of `changes`."""
    return [*((probe.name, probe.width) for probe in probes), (TRIGGER, 1)]


def _place(name: str) -> tuple[str, str]:
    """Scope and name of a variable."""
    scope, _, variable = name.rpartition(".")
    return scope or "scope", variable
