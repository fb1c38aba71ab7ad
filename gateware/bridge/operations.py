"""`OperationRunner`: one operation list, first checked as a whole, then carried out on the register bus.

Contract: `start` for one cycle begins with the list at the `bytes` stream, which holds `remaining` bytes and starts
again when `rewind` is high for a cycle. `check` and `run` say which passes are made: a check alone tells only
whether the list is well-formed; `run` without `write` (a repetition) skips writes and stops behind the operation
`stop_index` if `stop` is set. Words that are read leave through `words`, least significant byte first. `done` is high
for one cycle when it ends; `status` and `index` are valid with it and stay: 0 done, 1 bus error, 2 malformed.
A check takes about a cycle a byte; a run three to six cycles a word beyond the bus and the taker of words.
"""

from amaranth import *
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..csr.bus import CsrSignature

__all__ = ["Opcode", "OperationRunner", "Status"]

_SPACE_BYTES = 4 << 16


class Opcode(enum.Enum, shape=unsigned(3)):
    """Operations; even ones are lists, those from `WRITE` on write."""

    READ = 1
    READ_LIST = 2
    WRITE = 3
    WRITE_LIST = 4


class Status(enum.Enum, shape=unsigned(2)):
    """How a list ended."""

    DONE = 0
    BUS_ERROR = 1
    MALFORMED = 2


class OperationRunner(wiring.Component):
    """Checks and carries out operation lists."""

    def __init__(self, max_bytes: int = 512):
        self._max_bytes = max_bytes
        super().__init__({
            "bytes": In(stream.Signature(8)),
            "remaining": In(range(max_bytes + 1)),
            "rewind": Out(1),
            "start": In(1),
            "run": In(1),
            "write": In(1),
            "stop": In(1),
            "stop_index": In(8),
            "done": Out(1),
            "status": Out(Status),
            "index": Out(8),
            "words": Out(stream.Signature(8)),
            "bus": Out(CsrSignature(16)),
        })

    def elaborate(self, platform):
        m = Module()
        state = _State()
        m.d.comb += [
            state.is_list.eq(~state.opcode[0]),
            state.is_write.eq(state.opcode >= Opcode.WRITE.value),
            self.bus.address.eq(state.address),
            self.bus.write.eq(state.is_write),
            self.bus.w_data.eq(state.shift),
            self.bus.w_mask.eq(0b1111),
        ]
        with m.FSM():
            with m.State("idle"):
                with m.If(self.start):
                    m.d.sync += [self.index.eq(0), self.status.eq(Status.DONE), state.second.eq(0)]
                    m.next = "opcode"
            self._elaborate_head(m, state)
            self._elaborate_check(m, state)
            self._elaborate_run(m, state)
            with m.State("end"):
                m.d.comb += self.done.eq(1)
                m.next = "idle"
        return m

    def _take(self, m, target=None):
        """Take one byte of the list, into `target`; returns the condition that it is there."""
        m.d.comb += self.bytes.ready.eq(1)
        if target is not None:
            with m.If(self.bytes.valid):
                m.d.sync += target.eq(self.bytes.payload)
        return self.bytes.valid

    def _fail(self, m, status):
        m.d.sync += self.status.eq(status)
        m.next = "end"

    def _elaborate_head(self, m, state):
        """Opcode and count of an operation, the same in both passes."""
        # Between two operations: the list ends here, or a pass does.
        with m.State("opcode"):
            with m.If(self.remaining == 0):
                m.next = "end"
                with m.If(~state.second & self.run):
                    m.d.comb += self.rewind.eq(1)
                    m.d.sync += [state.second.eq(1), self.index.eq(0)]
                    m.next = "opcode"
                with m.Else():
                    m.d.sync += self.index.eq(0)
            with m.Elif(state.second & self.stop & (self.index > self.stop_index)):
                m.next = "end"
            with m.Else():
                with m.If(self._take(m, state.opcode)):
                    m.next = "count"
                    with m.If((self.bytes.payload < 1) | (self.bytes.payload > 4)):
                        self._fail(m, Status.MALFORMED)
        with m.State("count"):
            with m.If(self.remaining == 0):
                self._fail(m, Status.MALFORMED)
            with m.Else():
                with m.If(self._take(m, state.count)):
                    m.next = "size"
                    with m.If(self.bytes.payload == 0):
                        self._fail(m, Status.MALFORMED)
                    with m.Elif(state.second):
                        m.d.sync += state.left.eq(Mux(state.is_list, 2, 4))
                        m.next = "address"

    def _elaborate_check(self, m, state):
        """First pass: every operation is complete, aligned and within the space."""
        count = state.count
        # How many bytes the operation has behind its count.
        with m.State("size"):
            with m.Switch(state.opcode):
                with m.Case(Opcode.READ):
                    m.d.sync += state.size.eq(4)
                with m.Case(Opcode.READ_LIST):
                    m.d.sync += state.size.eq(count << 1)
                with m.Case(Opcode.WRITE):
                    m.d.sync += state.size.eq((count << 2) + 4)
                with m.Default():
                    m.d.sync += state.size.eq((count << 2) + (count << 1))
            m.d.sync += state.left.eq(4)
            m.next = "fits"
        with m.State("fits"):
            m.next = "skip"
            with m.If(state.size > self.remaining):
                self._fail(m, Status.MALFORMED)
        # Past the bytes; the first four are the address of a block operation.
        with m.State("skip"):
            with m.If(state.size == 0):
                m.next = "range"
            with m.Else():
                with m.If(self._take(m)):
                    m.d.sync += state.size.eq(state.size - 1)
                    with m.If(state.left != 0):
                        m.d.sync += state.left.eq(state.left - 1)
                        m.d.sync += state.shift.eq(Cat(state.shift[8:], self.bytes.payload))
        with m.State("range"):
            m.d.sync += self.index.eq(self.index + 1)
            m.next = "opcode"
            outside = (state.shift >= _SPACE_BYTES) | (state.shift[2:18] + count > _SPACE_BYTES // 4)
            with m.If(~state.is_list & ((state.shift[:2] != 0) | outside)):
                m.d.sync += self.index.eq(self.index)
                self._fail(m, Status.MALFORMED)

    def _elaborate_run(self, m, state):
        """Second pass: word by word."""
        # Two bytes of a word address, or four of a byte address.
        with m.State("address"):
            with m.If(self._take(m)):
                shifted = Cat(state.shift[8:], self.bytes.payload)
                m.d.sync += [state.shift.eq(shifted), state.left.eq(state.left - 1)]
                with m.If(state.left == 1):
                    m.d.sync += [
                        state.address.eq(Mux(state.is_list, shifted[16:32], shifted[2:18])),
                        state.left.eq(4),
                    ]
                    m.next = "access"
                    with m.If(state.is_write):
                        m.next = "data"
        with m.State("data"):
            with m.If(self._take(m)):
                m.d.sync += [state.shift.eq(Cat(state.shift[8:], self.bytes.payload)), state.left.eq(state.left - 1)]
                with m.If(state.left == 1):
                    m.next = "access"
                    with m.If(~self.write):
                        m.next = "advance"  # a repetition: this word was written before
        with m.State("access"):
            m.d.comb += self.bus.valid.eq(1)
            with m.If(self.bus.ready):
                m.next = "advance"
                with m.If(self.bus.error):
                    self._fail(m, Status.BUS_ERROR)
                with m.Elif(~state.is_write):
                    m.d.sync += [state.shift.eq(self.bus.r_data), state.left.eq(4)]
                    m.next = "emit"
        with m.State("emit"):
            m.d.comb += [self.words.valid.eq(1), self.words.payload.eq(state.shift[:8])]
            with m.If(self.words.ready):
                m.d.sync += [state.shift.eq(state.shift >> 8), state.left.eq(state.left - 1)]
                with m.If(state.left == 1):
                    m.next = "advance"
        # To the next word of this operation, or to the next operation.
        with m.State("advance"):
            m.d.sync += [state.count.eq(state.count - 1), state.address.eq(state.address + 1)]
            with m.If(state.count == 1):
                m.d.sync += self.index.eq(self.index + 1)
                m.next = "opcode"
            with m.Elif(state.is_list):
                m.d.sync += state.left.eq(2)
                m.next = "address"
            with m.Elif(state.is_write):
                m.d.sync += state.left.eq(4)
                m.next = "data"
            with m.Else():
                m.next = "access"


class _State:
    """Registers of the runner."""

    def __init__(self):
        self.opcode = Signal(3)
        self.count = Signal(8)       # words of the operation that are left
        self.size = Signal(11)       # bytes of the operation that are left, in the check
        self.left = Signal(range(5))  # bytes of a number that are left
        self.shift = Signal(32)      # a number on its way in or out
        self.address = Signal(16)    # in words
        self.second = Signal()       # the list was checked and is being carried out
        self.is_list = Signal()
        self.is_write = Signal()
