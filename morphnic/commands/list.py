"""List the devices that can be opened from here: boards on serial ports, PCIe functions, simulated devices, servers.

Nothing is opened by looking: a serial adapter is a candidate until its device answers. Servers (simulated devices,
those of `morphnic serve` here, and the tcp:// and unix:// ones among the aliases of the settings) are asked what they
serve, and who writes. With --probe each device is opened, for reading only, and asked who it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from morphnic.errors import InputError, MorphnicError
from morphnic.program import Context
from morphnic.table import plain_table

if TYPE_CHECKING:
    from device_link import Candidate

SERVER_SCHEMES = ("tcp://", "unix://")
AT_ONCE = 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `morphnic list`."""
    parser.add_argument("--probe", action="store_true", help="open each and ask who it is")
    parser.add_argument("--timeout", type=float, default=1.0, metavar="SECONDS",
                        help="to wait for a server's answer (default 1)")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print what is found; finding nothing is no failure."""
    if not arguments.timeout > 0:
        raise InputError(f"--timeout must be over 0, not {arguments.timeout}")
    devices = find(context.settings.aliases, probing=arguments.probe, timeout=arguments.timeout)
    if context.json:
        context.document("list", {"devices": devices})
        return 0
    if not devices:
        print("no device is found; `morphnic sim run` starts a simulated one", file=sys.stderr)
        return 0
    print(plain_table(["url", "alias", "kind", "serial number", "board", "build", "map", "in use by"],
                      [cells(one) for one in devices]))
    for one in devices:
        if "error" in one:
            print(f"{one['url']}: {one['error']}", file=sys.stderr)
    return 0


def find(aliases: Mapping[str, str], *, probing: bool, timeout: float) -> list[dict[str, Any]]:
    """Every candidate as plain values; what went wrong with one is under its `error`."""
    from device_link import discover
    from device_link.discovery import remote

    found = discover()
    known = {one.url for one in found}
    found += [remote(url, name) for name, url in aliases.items()
              if url.startswith(SERVER_SCHEMES) and url not in known]
    with ThreadPoolExecutor(AT_ONCE) as pool:  # each waits for another machine
        return list(pool.map(lambda one: describe(one, aliases, probing=probing, timeout=timeout), found))


def describe(candidate: Candidate, aliases: Mapping[str, str], *, probing: bool, timeout: float) -> dict[str, Any]:
    """One candidate, asked."""
    from device_link.discovery import ask

    answer: dict[str, Any] = {}
    try:
        candidate = ask(candidate, timeout)
        if probing:
            answer = probe(candidate)
    except MorphnicError as error:
        answer = {"error": str(error)}
    called = [name for name, target in aliases.items()
              if target.partition("?")[0] in (candidate.url.partition("?")[0], *candidate.names)]
    facts = asdict(candidate) | {"alias": called}
    if "identity" in answer:
        identity = answer["identity"]
        facts |= {"build_id": identity["build_id"], "map_hash": identity["map_hash"],
                  "serial_number": candidate.serial_number or f"{identity['uid']:#018x}"}
    return facts | answer


def probe(candidate: Candidate) -> dict[str, Any]:
    """Identity of a candidate; raises `MorphnicError` where it gives none."""
    import device_link
    from device_link.device import fields_of

    with device_link.open(candidate.url) as device:
        return {"identity": fields_of(device.identity)}


def cells(device: Mapping[str, Any]) -> list[str]:
    """One line for people."""
    def shown(key: str, form: str = "{}") -> str:
        return "-" if device[key] is None else form.format(device[key])

    kind = device["kind"] + (f" of {device['serves']}" if device["serves"] else "")
    return [device["url"], ", ".join(device["alias"]) or "-", kind, shown("serial_number"), shown("board"),
            shown("build_id", "{:#018x}"), shown("map_hash", "{:#010x}"),
            "?" if "error" in device else device["in_use"] or "nobody"]
