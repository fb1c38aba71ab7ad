"""Look at signals inside a device: its logic analyzer waits for a trigger and keeps what was around it.

    morphnic scope probes
    morphnic scope capture out.vcd --trigger 'rise(manager.changed)' --cycles 5000
    morphnic scope arm --trigger 'fabric.outputs0.header.valid & fabric.outputs0.header.tenant == 3 times 10'
    morphnic scope wait && morphnic scope save out.fst

`capture` is `arm`, `wait` and `save` in one. A device has the probes that it was built with (`--set scope_probes=...`
of `morphnic build` and `morphnic sim run`). A trigger is up to four conditions joined by `then`: names of probes, with
==, !=, rise(), fall(), change(), !, & and |, and how often each must hold (`times 10`). Files end in .vcd or .fst; a
viewer's save file is written beside them. A capture that is interrupted or not complete in time goes on in the device.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphnic.devices import add_device_flag, open_device
from morphnic.errors import InputError
from morphnic.program import Context
from morphnic.table import plain_table

if TYPE_CHECKING:
    from device_link.scope import Capture, LogicAnalyzer, Status

ACTIONS = ("probes", "arm", "wait", "save", "capture", "status", "stop")
WITH_FILE = ("save", "capture")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `morphnic scope`."""
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("file", type=Path, nargs="?", help="save, capture: file to write, .vcd or .fst")
    parser.add_argument("--trigger", metavar="CONDITIONS", help="arm, capture: what to wait for (default: nothing)")
    parser.add_argument("--before", type=int, default=25, metavar="PERCENT",
                        help="arm, capture: share of the buffer for what was before the trigger (default 25)")
    parser.add_argument("--cycles", type=int, default=0, metavar="N",
                        help="arm, capture: how many from the trigger on (default: until the buffer is full)")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS",
                        help="wait, capture: how long (default 10)")
    add_device_flag(parser)


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Carry out one action; what is wrong in the arguments is found before a device is opened."""
    from device_link.scope import LogicAnalyzer

    action = arguments.action
    check(arguments)
    with open_device(context, writer=action in ("arm", "capture", "stop")) as device:
        scope = LogicAnalyzer(device)
        if action == "probes":
            show_probes(context, scope)
            return 0
        status = scope.stop() if action == "stop" else None
        if action in ("arm", "capture"):
            scope.arm(arguments.trigger, before=arguments.before / 100, cycles=arguments.cycles)
        if action in ("wait", "capture"):
            status = scope.wait(arguments.timeout)
        if action in WITH_FILE:
            save(context, arguments.file, scope.read())
        else:
            show_status(context, scope, status or scope.status())
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Raise `InputError` for what no device could do."""
    from device_link.scope.files import writer_of

    if (arguments.file is not None) != (arguments.action in WITH_FILE):
        raise InputError(f"{arguments.action} writes no file" if arguments.file is not None else
                         f"name the file to write, such as `morphnic scope {arguments.action} out.vcd`")
    if arguments.file is not None:
        writer_of(arguments.file)
    if not 0 <= arguments.before < 100:
        raise InputError(f"--before must be in 0..99 percent, not {arguments.before}")
    if not arguments.timeout >= 0:
        raise InputError(f"--timeout must be at least 0, not {arguments.timeout}")


def show_probes(context: Context, scope: LogicAnalyzer) -> None:
    """What the device samples."""
    if context.json:
        context.document("scope-probes", {
            "bits": scope.bits, "rows": scope.rows,
            "probes": [{"name": one.name, "width": one.width, "values": one.values} for one in scope.probes]})
        return
    print(plain_table(["probe", "bits", "values"], [
        [one.name, str(one.width), " ".join(f"{value}={name}" for value, name in one.values.items())]
        for one in scope.probes]))
    print(f"{scope.bits} bits, {scope.rows} rows")


def show_status(context: Context, scope: LogicAnalyzer, status: Status) -> None:
    """What the analyzer does."""
    state = status.state.name.lower()
    if context.json:
        context.document("scope-status", {
            "state": state, "triggered": status.triggered, "condition": status.stage + 1, "rows": status.rows,
            "rows_of_buffer": scope.rows, "captures": status.captures})
        return
    what = {"waiting": f", for condition {status.stage + 1}", "complete": ", triggered" if status.triggered else
            ", stopped before the trigger"}.get(state, "")
    print(f"{state}{what}; {status.rows} of {scope.rows} rows; {status.captures} captures since reset")


def save(context: Context, path: Path, capture: Capture) -> None:
    """Write the file and the viewer's save file, and say what is in it."""
    from device_link.scope import write
    from device_link.scope.files import TRIGGER
    from sim.viewer import EnumNames, write_grouped

    write(path, capture)
    signals = [(f"scope.{TRIGGER}", 1), *((probe.name, probe.width) for probe in capture.probes)]
    enums = {probe.name: EnumNames(probe.name.rpartition(".")[2], probe.width, dict(probe.values))
             for probe in capture.probes if probe.values}
    save_file = write_grouped(path, signals, enums)
    facts: dict[str, Any] = {"path": str(path), "save_file": str(save_file), "first": capture.start, "end": capture.end,
                             "trigger": capture.trigger, "rows": len(capture.runs)}
    if context.json:
        context.document("scope-capture", facts)
        return
    trigger = "stopped before the trigger" if capture.trigger is None else f"trigger at {capture.trigger}"
    print(f"{path}: cycles {capture.start} to {capture.end} in {len(capture.runs)} rows, {trigger}; "
          f"gtkwave {save_file}")
