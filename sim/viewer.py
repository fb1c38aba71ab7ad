"""A GTKWave save file beside a waveform, which shows enums by name and headers field by field.

Amaranth writes each field of a structure as a signal of its own, and the names of an enum as attributes in the Verilog:
both are read from there, so nothing about any component is repeated here. The names of an `m.FSM`'s states are not in
the Verilog: such a state shows as a number. Surfer and others read the same VCD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from vcd.gtkw import GTKWSave, make_translation_filter

FIRST = ("clk", "rst")  # in the viewer
ROOT_PORTS = "$rootio"  # scope in which Verilator repeats the ports


@dataclass(frozen=True)
class EnumNames:
    """An enum as it stands in the Verilog: its name, its bits, and what each value is called."""

    name: str
    width: int
    values: dict[int, str]


@dataclass
class _Wave:
    """One traced signal: the scopes above it, its name in the VCD, its width."""

    scopes: tuple[str, ...]
    name: str
    width: int
    fields: list[_Wave] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Scopes and name."""
        return ".".join((*self.scopes, self.name))

    @property
    def path(self) -> str:
        """As GTKWave names it."""
        return self.place if self.width == 1 else f"{self.place}[{self.width - 1}:0]"


def write_save_file(waveform: Path, verilog: Path, scope: tuple[str, ...] = ()) -> Path:
    """Write `waveform` with the suffix `.gtkw`, and a translation file for each enum in `verilog`; the save file.

    scope: where the waveform has the top module of Amaranth's Verilog; by default it is the outermost.
    Shown are the named signals of the top module, those of a structure as a group of its fields, and in a group of
    their own the enums inside its parts, such as states.
    """
    waves = _read_waves(waveform)
    top = scope or next(
        (wave.scopes for wave in waves if len(wave.scopes) == 1 and wave.scopes[0] != ROOT_PORTS), ())
    enums = {".".join((*top, *name.split(".")[1:])): enum for name, enum in read_enums(verilog.read_text()).items()}
    files = _write_filters(waveform.parent, enums)
    save_path = waveform.with_suffix(".gtkw")
    with save_path.open("w") as file:
        save = GTKWSave(file)
        save.dumpfile(str(waveform.resolve()))
        for wave in _grouped([wave for wave in waves if wave.scopes == top]):
            _show(save, wave, enums, files)
        inner = [wave for wave in waves if wave.scopes != top and wave.place in enums]
        if inner:
            with save.group("enums of the parts", closed=True):
                for wave in inner:
                    _trace(save, wave, enums, files, ".".join((*wave.scopes[len(top):], wave.name)))
    return save_path


def write_grouped(waveform: Path, signals: Sequence[tuple[str, int]], enums: Mapping[str, EnumNames]) -> Path:
    """Write `waveform` with the suffix `.gtkw`, and a translation file for each enum; the save file.

    signals: path and bits of what is shown, in this order, those of one scope as a group. enums: by path.
    """
    files = _write_filters(waveform.parent, enums)
    waves = [_Wave(tuple(path.split(".")[:-1]), path.rpartition(".")[2], bits) for path, bits in signals]
    save_path = waveform.with_suffix(".gtkw")
    with save_path.open("w") as file:
        save = GTKWSave(file)
        save.dumpfile(str(waveform.resolve()))
        for scopes, members in groupby(waves, lambda wave: wave.scopes):
            with save.group(".".join(scopes)):
                for wave in members:
                    _trace(save, wave, enums, files, wave.name)
    return save_path


_MODULE = re.compile(r"module \\?(\S+?)\s*\(")
_ENUM = re.compile(r'\s*\(\* enum_base_type = "(?:.*\.)?(\w+)" \*\)')
_VALUE = re.compile(r'\s*\(\* enum_value_([01]+) = "(\w+)" \*\)')
_DECLARED = re.compile(r"\s*(wire|reg|input|output)\b(?: \[\d+:0\])? \\?(\S+?)\s*(?:;|=)")


def read_enums(verilog: str) -> dict[str, EnumNames]:
    """Signals that hold an enum, by module and name: Amaranth names a module by its place, as the waveform does."""
    found: dict[str, EnumNames] = {}
    module = ""
    pending: EnumNames | None = None
    for line in verilog.splitlines():
        if match := _MODULE.match(line):
            module = match[1]
        elif match := _ENUM.match(line):
            pending = EnumNames(match[1], 1, {})
        elif pending and (match := _VALUE.match(line)):
            pending = EnumNames(pending.name, len(match[1]), {**pending.values, int(match[1], 2): match[2]})
        elif pending and (match := _DECLARED.match(line)):
            found[f"{module}.{match[2]}"] = pending
            # A port is declared twice in a row, and the attributes stand before the first only.
            if match[1] in ("wire", "reg"):
                pending = None
    return found


def _read_waves(path: Path) -> list[_Wave]:
    """Signals that the VCD declares."""
    scopes: list[str] = []
    waves = []
    with path.open() as file:
        for line in file:
            words = line.split()
            if words[:1] == ["$scope"]:
                scopes.append(words[2])
            elif words[:1] == ["$upscope"]:
                scopes.pop()
            elif words[:1] == ["$var"]:
                waves.append(_Wave(tuple(scopes), words[4], int(words[2])))
            elif words[:1] == ["$enddefinitions"]:
                break
    return waves


def _grouped(waves: list[_Wave]) -> list[_Wave]:
    """Signals of one scope without temporaries, the fields of a structure below it; clock and reset first."""
    named = {wave.name: wave for wave in waves if "$" not in wave.name}
    roots: list[_Wave] = []
    for name, wave in named.items():
        parent = named.get(name.rpartition(".")[0])
        (parent.fields if parent is not None else roots).append(wave)
    return sorted(roots, key=lambda wave: (wave.name not in FIRST, wave.name))


def _show(save: GTKWSave, wave: _Wave, enums: Mapping[str, EnumNames], files: dict[str, Path]) -> None:
    if not wave.fields:
        _trace(save, wave, enums, files, wave.name)
        return
    with save.group(wave.name):
        _trace(save, wave, enums, files, wave.name)
        for one in wave.fields:
            _show(save, one, enums, files)


def _trace(save: GTKWSave, wave: _Wave, enums: Mapping[str, EnumNames], files: dict[str, Path], alias: str) -> None:
    enum = enums.get(wave.place)
    save.trace(wave.path, alias=alias, datafmt="hex",
               translate_filter_file=str(files[wave.place]) if enum is not None else None)


def _write_filters(folder: Path, enums: Mapping[str, EnumNames]) -> dict[str, Path]:
    """A translation file for each enum (value in hexadecimal, then the name); the signals with their file."""
    files: dict[str, Path] = {}
    texts: dict[str, str] = {}
    for place, enum in enums.items():
        text = make_translation_filter(list(enum.values.items()), "hex", enum.width)
        # Enums of different blocks may have one name.
        names = [f"{enum.name}.enum", *(f"{enum.name}-{number}.enum" for number in range(2, len(enums) + 2))]
        name = next(name for name in names if texts.get(name, text) == text)
        texts[name] = text
        files[place] = (folder / name).resolve()
    for name, text in texts.items():
        (folder / name).write_text(text + "\n")
    return files
