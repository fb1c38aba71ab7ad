"""What the DMA engines share: commands, reports, and the splitting of a command into requests."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from .protection import LENGTH_BITS

__all__ = ["SIZE_BITS", "Command", "Outcome", "Piece", "Report", "Splitter", "enables", "outcome_of"]

#: Bits of the size of one request in bytes: 1 to 4096.
SIZE_BITS = 13


class Command(data.Struct):
    """`length` bytes at guest address `address` of a tenant; `tag` comes back in the report."""

    tenant: 6
    generation: 8
    address: 64
    length: LENGTH_BITS
    tag: 8


class Outcome(enum.Enum, shape=unsigned(4)):
    """How a command ended. The first five are those of `GrantStatus`.

    REVOKED: the tenant's regions changed, or bus mastering ended, before all was sent. POISONED, UNSUPPORTED, ABORTED:
    what a completion said. MALFORMED: a completion that does not fit its request. TIMEOUT: none came. EMPTY: no bytes
    were asked for.
    """

    DONE = 0
    NO_REGION = 1
    NO_RIGHT = 2
    STALE = 3
    STOPPED = 4
    REVOKED = 5
    POISONED = 6
    UNSUPPORTED = 7
    ABORTED = 8
    MALFORMED = 9
    TIMEOUT = 10
    EMPTY = 11


class Report(data.Struct):
    """The end of a command."""

    tag: 8
    outcome: Outcome


class Piece(data.Struct):
    """One request of a command: `size` bytes at bus address `address`; `last` is the command's last one."""

    address: 64
    size: SIZE_BITS
    last: 1


class Splitter(wiring.Component):
    """Splits a run of bytes at naturally aligned multiples of a limit, so that no request is longer or crosses 4 KiB.

    `load` takes `address` and `length` (at least 1); then `pieces` offers one a cycle. `limit` is the encoding of a
    maximum payload or read request size: 128 << limit bytes, at most 4096.
    """

    def __init__(self):
        super().__init__({
            "load": In(1), "address": In(64), "length": In(LENGTH_BITS), "limit": In(3),
            "pieces": Out(stream.Signature(Piece)),
        })

    def elaborate(self, platform):
        m = Module()
        address, left = Signal(64), Signal(LENGTH_BITS)
        mask, room = Signal(12), Signal(SIZE_BITS)
        piece = self.pieces.payload
        m.d.comb += [
            mask.eq((128 << self.limit) - 1),
            room.eq((mask & ~address[:12]) + 1),
            piece.address.eq(address),
            piece.last.eq(left <= room),
            piece.size.eq(Mux(piece.last, left, room)),
            self.pieces.valid.eq(left != 0),
        ]
        with m.If(self.load):
            m.d.sync += [address.eq(self.address), left.eq(self.length)]
        with m.Elif(self.pieces.valid & self.pieces.ready):
            m.d.sync += [address.eq(address + piece.size), left.eq(left - piece.size)]
        return m


def outcome_of(status):
    """The `Outcome` of a command that the gate answered with `status`."""
    return Outcome(Cat(status.as_value(), C(0, 1)))


def enables(address, size):
    """Length in DW, first and last byte enables of a request for `size` bytes at a byte address (2.2.5)."""
    start, end = Signal(2), Signal(SIZE_BITS)
    length, first, last = Signal(11), Signal(4), Signal(4)
    one = length == 1
    statements = [
        start.eq(address[:2]),
        end.eq(start + size),
        length.eq((end + 3) >> 2),
        first.eq((0xF << start) & Mux(one, 0xF >> (4 - end)[:2], 0xF)),
        last.eq(Mux(one, 0, 0xF >> (4 - end[:2])[:2])),
    ]
    return statements, length, first, last


