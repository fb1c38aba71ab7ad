"""`DmaShare`: several users of the two DMA engines, a command at a time each.

Contract: a user has one command of a direction under way, and takes its report only when the last of its data has gone.
From the command to the report the engine is that user's; then the others come in turn. The directions are independent.
Latency: one cycle in which the choice is made.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .dma import Command, Report

__all__ = ["DmaShare", "DmaSignature"]


class DmaSignature(wiring.Signature):
    """The engines, seen from a user, with beats of `width` bits."""

    def __init__(self, width: int):
        self.width = width
        super().__init__({
            "read_commands": Out(stream.Signature(Command)),
            "read_data": In(stream.Signature(data.StructLayout({"data": width, "last": 1}))),
            "read_reports": In(stream.Signature(Report)),
            "write_commands": Out(stream.Signature(Command)),
            "write_data": Out(stream.Signature(width)),
            "write_reports": In(stream.Signature(Report)),
        })

    def __eq__(self, other):
        return isinstance(other, DmaSignature) and self.width == other.width


class DmaShare(wiring.Component):
    """Ports: `users[i]`, and `engines`."""

    def __init__(self, width: int, count: int):
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        super().__init__({"users": In(DmaSignature(width)).array(count), "engines": Out(DmaSignature(width))})

    def elaborate(self, platform):
        m = Module()
        for side in ("read", "write"):
            owner, held, asked = (Signal(shape, name=f"{side}_{name}") for name, shape in (
                ("owner", range(len(self.users))), ("held", 1), ("asked", 1)))
            commands, reports = getattr(self.engines, f"{side}_commands"), getattr(self.engines, f"{side}_reports")
            with m.If(~held):
                self._choose(m, side, owner)
                m.d.sync += [asked.eq(0), held.eq(Cat(
                    getattr(user, f"{side}_commands").valid for user in self.users).any())]
            with m.Else():
                with m.Switch(owner):
                    for index, user in enumerate(self.users):
                        with m.Case(index):
                            self._join(m, side, user, asked)
                with m.If(commands.valid & commands.ready):
                    m.d.sync += asked.eq(1)
                with m.If(reports.valid & reports.ready):
                    m.d.sync += held.eq(0)
        return m

    def _choose(self, m, side, owner):
        """The nearest user after the last one that asks; the last assignment wins."""
        count = len(self.users)
        with m.Switch(owner):
            for last in range(count):
                with m.Case(last):
                    for step in range(count, 0, -1):
                        with m.If(getattr(self.users[(last + step) % count], f"{side}_commands").valid):
                            m.d.sync += owner.eq((last + step) % count)

    def _join(self, m, side, user, asked):
        user, engine = wiring.flipped(user), wiring.flipped(self.engines)
        theirs, ours = getattr(user, f"{side}_commands"), getattr(engine, f"{side}_commands")
        m.d.comb += [ours.payload.eq(theirs.payload), ours.valid.eq(theirs.valid & ~asked),
                     theirs.ready.eq(ours.ready & ~asked)]
        wiring.connect(m, getattr(engine, f"{side}_reports"), getattr(user, f"{side}_reports"))
        if side == "read":
            wiring.connect(m, engine.read_data, user.read_data)
        else:
            wiring.connect(m, user.write_data, engine.write_data)
