"""What the logic analyzer can sample: every port of the device's blocks, by name, and every field of a structure.

A port's name is its block and its path in the interface, with the index of an array behind the name and without the
`payload` of a structure: `fabric.outputs0.header.tenant` is field `tenant` of the payload of the stream
`fabric.outputs[0].header`. A name that ends before that is a group: `fabric.outputs0` is all of that port.
"""

import difflib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data, enum, wiring

from morphnic.errors import InputError

__all__ = ["MAX_BITS", "Probe", "catalogue", "choose", "describe"]

MAX_BITS = 240  # with the 16 bits of a run they fill the eight words of a row
DESCRIPTION_SCHEMA = 1


@dataclass(frozen=True)
class Probe:
    """A signal under its name. values: names of an enum's members by value; empty without."""

    name: str
    signal: Value
    values: Mapping[int, str]


def catalogue(blocks: Mapping[str, wiring.Component]) -> dict[str, Probe]:
    """Every probe of the named blocks, by name, in the order of their ports."""
    found: dict[str, Probe] = {}
    for block, component in blocks.items():
        for path, member, port in component.signature.flatten(component):
            for probe in _fields(f"{block}.{_joined(path)}", member.shape, Value.cast(port)):
                if probe.name in found:
                    raise ValueError(f"two ports of {block} have the probe name {probe.name}")
                found[probe.name] = probe
    return found


def _joined(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += str(part) if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _fields(name: str, shape: object, signal: Value) -> Iterator[Probe]:
    """The fields of a structure, each by itself; or the signal."""
    if isinstance(shape, type) and issubclass(shape, enum.Enum):
        yield Probe(name, signal, {member.value: member.name for member in shape})
        return
    try:
        layout = data.Layout.cast(shape)
    except TypeError:
        if len(signal):
            yield Probe(name, signal, {})
        return
    for key, field in layout:
        place = signal[field.offset:field.offset + field.width]
        yield from _fields(f"{name.removesuffix('.payload')}.{key}", field.shape, place)


def choose(names: Sequence[str], known: Mapping[str, Probe]) -> list[Probe]:
    """The probes that `names` name, each once, in that order; a group stands for all that is in it.

    Raises `InputError` for a name that does not exist, with those that come close, and for too many bits.
    """
    chosen: dict[str, Probe] = {}
    for name in names:
        matching = {one: probe for one, probe in known.items() if one == name or one.startswith(name + ".")}
        if not matching:
            groups = {one.rsplit(".", depth)[0] for one in known for depth in range(1, one.count(".") + 1)}
            near = difflib.get_close_matches(name, [*known, *groups], n=5, cutoff=0.5)
            blocks = sorted({one.partition(".")[0] for one in known})
            raise InputError(f"there is no probe {name!r} in the device; " + (
                f"did you mean {' or '.join(near)}?" if near else f"its blocks are {', '.join(blocks)}"))
        chosen |= matching
    bits = sum(len(probe.signal) for probe in chosen.values())
    if bits > MAX_BITS:
        raise InputError(f"scope_probes must have at most {MAX_BITS} bits together, not {bits}: name single fields")
    return list(chosen.values())


def describe(probes: Sequence[Probe]) -> bytes:
    """What software reads from the device: JSON compressed by zlib, `{"schema", "probes": [[name, bits, values]]}`.

    The first probe is in the lowest bits of a sample. `values` is left out where there are none.
    """
    rows = [[probe.name, len(probe.signal), *([probe.values] if probe.values else [])] for probe in probes]
    text = json.dumps({"schema": DESCRIPTION_SCHEMA, "probes": rows}, separators=(",", ":"))
    return zlib.compress(text.encode(), 9)
