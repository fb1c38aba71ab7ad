"""List the devices that can be opened from here: simulated ones that run, and serial adapters of known boards.

Nothing is opened by looking: a serial adapter is a candidate until its device answers. With --probe each one is
opened (for reading only) and asked who it is.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from morphnic.errors import MorphnicError
from morphnic.program import Context
from morphnic.table import plain_table

if TYPE_CHECKING:
    from device_link import Candidate


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `morphnic list`."""
    parser.add_argument("--probe", action="store_true", help="open each and ask who it is")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Print what is found; finding nothing is no failure."""
    from device_link import discover

    found = discover()
    answers = [probe(one) for one in found] if arguments.probe else [{} for _ in found]
    if context.json:
        context.document("list", {
            "devices": [asdict(one) | answer for one, answer in zip(found, answers, strict=True)]})
        return 0
    if not found:
        print("no device is found; `morphnic sim run` starts a simulated one", file=sys.stderr)
        return 0
    rows = [[one.url, one.kind, one.description, *([summary(answer)] if arguments.probe else [])]
            for one, answer in zip(found, answers, strict=True)]
    print(plain_table(["url", "kind", "description", *(["answer"] if arguments.probe else [])], rows))
    return 0


def probe(candidate: Candidate) -> dict[str, Any]:
    """Identity of a candidate, or why it gives none."""
    import device_link
    from device_link.device import fields_of

    try:
        with device_link.open(candidate.url) as device:
            return {"identity": fields_of(device.identity)}
    except MorphnicError as error:
        return {"error": str(error)}


def summary(answer: dict[str, Any]) -> str:
    """One cell for people."""
    if "error" in answer:
        return str(answer["error"])
    identity = answer["identity"]
    config = identity["config"]
    return f"uid {identity['uid']:#018x}, {config['ports']} ports, {config['tenants']} tenants"
