"""`DmaShare`: several users of the two DMA engines, with commands of several under way at once.

Contract: commands are taken from the users in turn, up to `DEPTH` of a direction before the first of them has ended.
Data and reports go to and come from who gave the command, in the order of commands; a user that does not take its data
holds up the others. The directions are independent. Latency: one cycle in which the choice is made.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from .dma import Command, Report
from .protection import LENGTH_BITS

__all__ = ["DEPTH", "DmaShare", "DmaSignature"]

DEPTH = 16


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
        self._beat_bytes = width // 8
        super().__init__({"users": In(DmaSignature(width)).array(count), "engines": Out(DmaSignature(width))})

    def elaborate(self, platform):
        m = Module()
        users = range(len(self.users))
        for side in ("read", "write"):
            # Who gave the commands whose data, and whose reports, are still to come; of writes, how many beats.
            owners = data.StructLayout({"owner": range(len(users) + 1), "beats": LENGTH_BITS if side == "write" else 0})
            moving, ending = (self._queue(m, f"{side}_{name}", owners) for name in ("moving", "ending"))
            command, accepted = self._choose(m, side, moving.w_rdy & ending.w_rdy)
            entry = data.View(owners, moving.w_data)
            m.d.comb += [
                entry.owner.eq(command.owner), ending.w_data.eq(moving.w_data), ending.w_en.eq(accepted),
                # What is not followed by data is not waited for.
                moving.w_en.eq(accepted & ((side == "read") | (command.payload.length != 0))),
            ]
            if side == "write":
                m.d.comb += entry.beats.eq((command.payload.length + (self._beat_bytes - 1)) // self._beat_bytes)
            current, reporting = data.View(owners, moving.r_data), data.View(owners, ending.r_data)
            self._join(m, side, "reports", ending, reporting.owner, C(1, 1))
            self._join(m, side, "data", moving, current.owner, self._is_last(m, side, current))
        return m

    def _queue(self, m, name, layout):
        m.submodules[name] = fifo = SyncFIFO(width=layout.size, depth=DEPTH)
        return fifo

    def _choose(self, m, side, room):
        """The nearest user after the last one that asks; its command is held until the engine takes it."""
        count, engine = len(self.users), getattr(self.engines, f"{side}_commands")
        command = _Held(side, count)
        accepted, ours = engine.valid & engine.ready, [getattr(user, f"{side}_commands") for user in self.users]
        m.d.comb += [engine.payload.eq(command.payload), engine.valid.eq(command.valid & room)]
        with m.If(accepted):
            m.d.sync += command.valid.eq(0)
        with m.If(~command.valid | accepted):
            with m.Switch(command.owner):
                for last in range(count):
                    with m.Case(last):
                        self._take(m, command, [((last + step) % count, ours[(last + step) % count])
                                                for step in range(1, count + 1)])
        return command, accepted

    def _take(self, m, command, asking):
        """The command of the first in `asking` that has one."""
        earlier = C(0, 1)
        for index, commands in asking:
            with m.If(commands.valid & ~earlier):
                m.d.comb += commands.ready.eq(1)
                m.d.sync += [command.owner.eq(index), command.payload.eq(commands.payload), command.valid.eq(1)]
            earlier = earlier | commands.valid

    def _is_last(self, m, side, current):
        if side == "read":
            return self.engines.read_data.payload.last
        gone = Signal(LENGTH_BITS)
        last = gone + 1 == current.beats
        with m.If(self.engines.write_data.valid & self.engines.write_data.ready):
            m.d.sync += gone.eq(Mux(last, 0, gone + 1))
        return last

    def _join(self, m, side, name, queue, owner, last):
        """The stream `name` of the engine and that of `owner`, until `last` passes."""
        ours = getattr(wiring.flipped(self.engines), f"{side}_{name}")
        with m.If(queue.r_rdy):
            with m.Switch(owner):
                for index, user in enumerate(self.users):
                    theirs = getattr(wiring.flipped(user), f"{side}_{name}")
                    with m.Case(index):
                        if (side, name) == ("write", "data"):
                            wiring.connect(m, theirs, ours)
                        else:
                            wiring.connect(m, ours, theirs)
        m.d.comb += queue.r_en.eq(ours.valid & ours.ready & last)


class _Held:
    """The command that is offered to an engine."""

    def __init__(self, side, count):
        self.valid, self.owner = Signal(name=f"{side}_held"), Signal(range(count), name=f"{side}_owner")
        self.payload = Signal(Command, name=f"{side}_command")
