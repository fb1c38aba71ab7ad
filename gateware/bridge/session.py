"""`SequenceTable`: sessions, the expected sequence number, and how the last `REMEMBERED` requests ended.

Contract: everything is registered state read combinationally; `hello`, `finish` are strobes. For the `session` and
`sequence` offered, `known` says that the session is the current one, `fresh` that the sequence is the expected
one, `repeated` that it is one of the last `REMEMBERED` of this session; `status` and `index` then tell how that request
ended. `hello` makes `session` the current one unless it is already; `finish` remembers `end_status` and `end_index`
under the expected sequence and raises it by one.
"""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["REMEMBERED", "SequenceTable"]

#: Half of the sequence numbers, so that a repeated one is never taken for one that comes too early. A host has at most
#: half of these in flight: enough for 12 M baud and a turnaround of 16 ms.
REMEMBERED = 128


class SequenceTable(wiring.Component):
    """What a device knows about its host's requests."""

    session: In(8)
    sequence: In(8)
    hello: In(1)
    finish: In(1)
    end_status: In(2)
    end_index: In(8)

    current: Out(8)
    expected: Out(8)
    previous_session: Out(8)
    previous_expected: Out(8)
    known: Out(1)
    fresh: Out(1)
    repeated: Out(1)
    status: Out(2)
    index: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.ends = ends = memory.Memory(shape=10, depth=REMEMBERED, init=[])
        read, write = ends.read_port(domain="comb"), ends.write_port()
        held = Signal(range(REMEMBERED + 1))  # entries of this session
        age = Signal(8)
        m.d.comb += [
            age.eq(self.expected - self.sequence),
            self.known.eq((self.session != 0) & (self.session == self.current)),
            self.fresh.eq(age == 0),
            self.repeated.eq((age != 0) & (age <= held)),
            read.addr.eq(self.sequence),
            Cat(self.status, self.index).eq(read.data),
            write.addr.eq(self.expected),
            write.data.eq(Cat(self.end_status, self.end_index)),
            write.en.eq(self.finish),
        ]
        with m.If(self.finish):
            m.d.sync += self.expected.eq(self.expected + 1)
            with m.If(held != REMEMBERED):
                m.d.sync += held.eq(held + 1)
        with m.If(self.hello & (self.session != self.current)):
            m.d.sync += [
                self.previous_session.eq(self.current),
                self.previous_expected.eq(self.expected),
                self.current.eq(self.session),
                self.expected.eq(0),
                held.eq(0),
            ]
        return m
