"""Read, write, dump, compare and follow registers, by name, by field or by address.

    morphnic regs read rm.status rm.active.epoch 0x1008
    morphnic regs write rm.stall_timeout=100000 staging[3].weight.weight=512 0x30=0xC0FFEE
    morphnic regs dump rm staging[3]
    morphnic regs diff before.json sim://sim0 rm active
    morphnic regs watch rm.active rm.status.state port
    morphnic regs export --csr-csv csr.csv --set tenants=4

A field is written by reading its register, changing the field and writing it back. Writes are carried out in the
order given, in one exchange; names and values are all checked before the first. While an offload manager
holds the device they are refused. `diff` compares two devices, or files of `regs dump --json`, and exits with 1 where
they differ. `watch` prints a register whenever it has another value than at the last look.
`export` needs no device: it writes the map for the tools of LiteX, which reach a device whose link speaks UARTBone;
what the device was built with is given by --set, as to `morphnic build`.
"""

from __future__ import annotations

import argparse

from morphnic.devices import add_device_flag, open_device
from morphnic.errors import InputError
from morphnic.program import Context

from .access import dumped, read, read_where_allowed, write
from .diff import run_diff
from .export import export
from .output import show
from .targets import parse_assignment, parse_block, parse_target
from .watch import check, watch

ACTIONS = ("read", "write", "dump", "diff", "watch", "export")
EXAMPLES = {"read": "rm.status", "write": "rm.stall_timeout=1000", "watch": "rm.active"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `morphnic regs`."""
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("registers", nargs="*", metavar="REGISTER",
                        help="block.register, block[i].register, either with .field, or 0xADDRESS; to write: "
                             "REGISTER=VALUE; to dump: blocks (without one: all); to watch: blocks too; to compare: "
                             "two devices or dumps, and blocks")
    add_device_flag(parser)
    parser.add_argument("--ignore", action="append", default=[], metavar="NAME",
                        help="diff: leave out this register or block; may be repeated")
    parser.add_argument("--every", type=float, default=0.1, metavar="SECONDS", help="watch: between looks (0.1)")
    parser.add_argument("--csr-csv", metavar="FILE", help="export: LiteX's csr.csv to FILE, - for standard output")
    parser.add_argument("--set", action="append", default=[], metavar="PARAMETER=VALUE", dest="parameters",
                        help="export: a parameter of the device")
    parser.add_argument("--changes", type=int, metavar="N", help="watch: end after N changes (default: never)")


def run(arguments: argparse.Namespace, context: Context) -> int:
    """Carry out one action; what is wrong in the arguments is found before a device is opened."""
    from device_link.registers import register_map

    names: list[str] = arguments.registers
    if arguments.action in EXAMPLES and not names:
        raise InputError("name at least one register, such as "
                         f"`{context.prog} {arguments.action} {EXAMPLES[arguments.action]}`")
    match arguments.action:
        case "read":
            targets = [parse_target(text, register_map()) for text in names]
            with open_device(context) as device:
                show(context, targets, read(device, targets), written=False)
        case "write":
            pairs = [parse_assignment(text, register_map()) for text in names]
            with open_device(context, writer=True) as device:
                write(device, pairs)
                show(context, [target for target, _ in pairs], [value for _, value in pairs], written=True)
        case "dump":
            for text in names:
                parse_block(text, register_map())
            with open_device(context) as device:
                targets = dumped(device, names)
                show(context, targets, read_where_allowed(device, targets), written=False, url=device.url,
                     map_hash=device.map.hash)
        case "diff":
            return run_diff(context, names, arguments.ignore, register_map())
        case "watch":
            check(arguments, register_map())
            with open_device(context) as device:
                watch(device, context, names, interval=arguments.every, changes=arguments.changes)
        case "export":
            export(arguments, register_map())
    return 0
