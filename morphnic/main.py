"""Entry points of the command line: `morphnic`, `host-agent` and `offload-manager`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from morphnic.program import Command, Program

__all__ = ["PROGRAM", "host_agent", "main", "offload_manager"]

PROGRAM = Program(
    "morphnic",
    "Look into, simulate, test and operate Morphnic offload devices.",
    {
        "demo": Command("morphnic.commands.demo", "the closed loop on the simulated device, with a report"),
        "doctor": Command("morphnic.commands.doctor", "check this machine; print the remedy of each fault"),
        "list": Command("morphnic.commands.list", "devices that answer"),
        "info": Command("morphnic.commands.info", "what a device says about itself"),
        "regs": Command("morphnic.commands.regs", "read, write, dump, compare and follow registers"),
        "scope": Command("morphnic.commands.scope", "the logic analyzer in a device: trigger, capture, waveform"),
        "watch": Command("morphnic.commands.watch", "follow a device window by window"),
        "new": Command("morphnic.commands.new", "begin a block of your own: component, registers, test, contract"),
        "selftest": Command("morphnic.commands.selftest", "ask a device in use whether it is well"),
        "serve": Command("morphnic.commands.serve", "share a device with many clients, here and over the network",
                         service=True),
        "test": Command("morphnic.commands.test", "the conformance suite on a device"),
        "build": Command("morphnic.commands.build", "a bitstream for a board, with use and timing"),
        "flash": Command("morphnic.commands.flash", "write a bitstream to a board, and prove that it runs"),
        "sim": Command("morphnic.commands.sim", "the simulated device: run, repl, wave"),
        "manager": Command("morphnic.commands.manager", "the offload manager (also offload-manager)"),
        "agent": Command("host_agent.cli", "the host agent (also host-agent)"),
    },
)


def main(argv: Sequence[str] | None = None) -> int:
    """`morphnic`."""
    return PROGRAM.main(argv)


def host_agent(argv: Sequence[str] | None = None) -> int:
    """`host-agent`: the same code as `morphnic agent`, under the name that service files use."""
    from host_agent.cli import PROGRAM as agent

    return agent.main(argv)


def offload_manager(argv: Sequence[str] | None = None) -> int:
    """`offload-manager`: the same code as `morphnic manager`."""
    given = sys.argv[1:] if argv is None else argv
    return Program("offload-manager", "", PROGRAM.commands).main(["manager", *given])


if __name__ == "__main__":
    sys.exit(main())
