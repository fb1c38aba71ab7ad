"""The simulated device: `morphnic sim run`, `repl`, `reset` and `wave`."""

from __future__ import annotations

from morphnic.program import Command, Program

PROGRAM = Program(
    "morphnic",
    "The simulated device: the gateware itself, compiled, with a board around it. Needs the extra [sim].",
    {
        "run": Command("morphnic.commands.sim.run", "start a simulated device and serve it until stopped",
                       service=True),
        "repl": Command("morphnic.commands.sim.repl", "look at and drive the signals of the model by hand"),
        "reset": Command("morphnic.commands.sim.reset", "let a simulated device begin anew, as a board does when it "
                         "is configured"),
        "wave": Command("morphnic.commands.sim.wave", "write a waveform (VCD) of what a simulated device did"),
    },
)
