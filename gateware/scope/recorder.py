"""`Recorder`: keeps the samples around a trigger, equal ones in a row as one.

The buffer is a ring of rows: a sample, and for how many cycles it lasted, less one. A row ends when the sample changes,
after 65536 cycles, before the trigger and with the capture; so the trigger always begins a row, and the rows
of a capture cover every cycle without a gap. Before the trigger the oldest row gives way to the newest; from it on,
`rows` - `before` rows are written and no more, so that `before` of those ahead of it are still there. A capture is
complete when these are used up, or `after` cycles from the trigger on, or by `stop`; what runs then is written too.
"""

from amaranth import *
from amaranth.lib import enum, memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RUN_BITS", "Recorder", "State"]

RUN_BITS = 16


class State(enum.Enum, shape=unsigned(2)):
    """Of a capture; the values are those of `scope.status.state`."""

    IDLE = 0
    WAITING = 1
    TRIGGERED = 2
    COMPLETE = 3


class Recorder(wiring.Component):
    """Recorder of samples of `width` bits into `rows` rows, a power of two.

    sample, changed: one a cycle, and whether it differs from the one before. trigger: it is the trigger (heeded while
    WAITING). cycle: its device cycle. arm, stop: as in `scope.control`; arm also ends a capture under way. before,
    after: as in the registers, steady from `arm` to the trigger. length, first, trigger_row, end: as in the registers,
    steady while COMPLETE. read_row: `read_data` is that row in the next cycle, the sample in its lowest bits.
    """

    def __init__(self, width: int, rows: int):
        if rows < 2 or rows & (rows - 1):
            raise ValueError(f"rows must be a power of two, at least 2, not {rows!r}")
        self._width, self._rows = width, rows
        super().__init__({
            "sample": In(width), "changed": In(1), "trigger": In(1), "cycle": In(64),
            "arm": In(1), "stop": In(1), "before": In(range(rows)), "after": In(32),
            "state": Out(State), "triggered": Out(1),
            "length": Out(range(rows + 1)), "first": Out(range(rows)), "trigger_row": Out(range(rows)), "end": Out(64),
            "read_row": In(range(rows)), "read_data": Out(width + RUN_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        capturing, starts, ends, finish = Signal(), Signal(), Signal(), Signal()
        running = Signal()             # `run` has been going on for `lasted` + 1 cycles and is not written yet
        run, lasted = Signal(self._width), Signal(RUN_BITS)
        longest = Signal()             # `lasted` is as long as a row can tell
        breaks = Signal()              # by the sample alone a row ends
        write, row = Signal(), Signal(range(self._rows))
        room = Signal(range(self._rows + 1))  # rows that may still be written once triggered
        final = Signal()               # there is room for one

        m.d.comb += [
            capturing.eq((self.state == State.WAITING) | (self.state == State.TRIGGERED)),
            starts.eq(self.trigger & (self.state == State.WAITING) & ~ends),
            breaks.eq(running & (self.changed | longest)),
            write.eq(capturing & (breaks | running & (starts | ends))),
            finish.eq(capturing & (ends | breaks & self.triggered & final)),
            self.first.eq(row - self.length),
        ]
        self._elaborate_store(m, write, row, Cat(run, lasted))
        self._elaborate_limit(m, starts, ends)
        m.d.sync += run.eq(self.sample)
        with m.If(capturing):
            m.d.sync += [
                running.eq(~finish), lasted.eq(Mux(running & ~write, lasted + 1, 0)),
                longest.eq(running & ~write & (lasted == (1 << RUN_BITS) - 2)),
            ]
        with m.If(write):
            m.d.sync += [row.eq(row + 1), room.eq(room - 1), final.eq(room == 2)]
            with m.If(self.length != self._rows):
                m.d.sync += self.length.eq(self.length + 1)
        with m.If(starts):
            m.d.sync += [
                self.state.eq(State.TRIGGERED), self.triggered.eq(1), self.trigger_row.eq(row + write),
                room.eq(self._rows - self.before), final.eq(self.before == self._rows - 1),
            ]
        with m.If(finish):
            m.d.sync += [self.state.eq(State.COMPLETE), self.end.eq(self.cycle)]
        with m.If(self.arm):
            m.d.sync += [
                self.state.eq(State.WAITING), self.triggered.eq(0), running.eq(0), row.eq(0), self.length.eq(0),
            ]
        return m

    def _elaborate_store(self, m, write, row, entry):
        """The ring. It is read when nothing is written, so nothing is promised of a row that is, which spares a bypass
        around each block RAM; synthesis believes that only of a register behind a port."""
        m.submodules.store = store = memory.Memory(shape=self._width + RUN_BITS, depth=self._rows, init=[],
                                                   attrs={"no_rw_check": 1})
        writer, reader = store.write_port(), store.read_port(domain="comb")
        read = Signal(self._width + RUN_BITS, reset_less=True)
        m.d.sync += read.eq(reader.data)
        m.d.comb += [
            writer.en.eq(write), writer.addr.eq(row), writer.data.eq(entry),
            reader.addr.eq(self.read_row), self.read_data.eq(read),
        ]

    def _elaborate_limit(self, m, starts, ends):
        """The capture ends before this sample: by `stop`, or `after` cycles from the trigger on were captured."""
        left, limited = Signal(32), Signal()
        spent, only = Signal(), Signal()  # nothing is left, known in time; the trigger itself is all
        m.d.comb += ends.eq(self.stop | spent)
        m.d.sync += [limited.eq(self.after != 0), only.eq(self.after == 1)]
        with m.If(starts):
            m.d.sync += [left.eq(self.after - 1), spent.eq(only)]
        with m.Else():
            m.d.sync += [left.eq(left - 1), spent.eq(self.triggered & limited & (left == 1))]
        with m.If(self.arm):
            m.d.sync += spent.eq(0)
